"""Writing a note by hand; listeners learn of it as of one an agent took."""

from dataclasses import dataclass, field
from typing import Any

from actions.announcements import note_created
from actions.read_contacts import existing
from actions.relay import Relay
from persistence import contact_notes, outbox
from persistence.models import ContactNote


@dataclass(frozen=True, slots=True)
class NoteToWrite:
    """A note as a person wrote it; `mentions` are ids of users, `attachments` files that were uploaded elsewhere."""

    contact_id: str
    note: str = field(repr=False)
    mentions: list[str] = field(default_factory=list)
    attachments: list[dict[str, Any]] = field(default_factory=list, repr=False)


async def write_note(relay: Relay, organization_id: str, user_id: str, written: NoteToWrite) -> ContactNote:
    """Write the note, tell the listeners, and return it with its author.

    Raises:
        NotFound: when the organization has no such contact.
    """

    def unit() -> ContactNote:
        existing(organization_id, written.contact_id)
        note = contact_notes.add_from_user(
            organization_id,
            written.contact_id,
            user_id,
            written.note.strip(),
            mentions=written.mentions,
            attachments=written.attachments,
        )
        outbox.append(organization_id, [note_created(note)])
        return contact_notes.get(organization_id, note.id) or note

    return await relay.database.write(unit, of=organization_id)
