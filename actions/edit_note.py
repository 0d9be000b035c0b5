"""Editing a note, and reacting to one; listeners are shown the note as it is then."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actions.announcements import note_updated
from actions.relay import Relay
from domain.documents import dump, load
from domain.errors import InvalidRequest, NotFound
from persistence import contact_notes, contacts, outbox
from persistence.models import ContactNote

MAX_EMOJIS = 50


@dataclass(frozen=True, slots=True)
class NoteChange:
    """What replaces what a note says; None leaves it."""

    note: str | None = field(default=None, repr=False)
    mentions: list[str] | None = None
    attachments: list[dict[str, Any]] | None = field(default=None, repr=False)


async def edit_note(relay: Relay, organization_id: str, note_id: str, change: NoteChange) -> ContactNote:
    """Edit the note, tell the listeners, and return it with its author.

    Raises:
        NotFound: if the organization has no such note.
    """
    columns: dict[str, Any] = {} if change.note is None else {"note": change.note.strip()}
    for name, listed in (("mentions", change.mentions), ("attachments", change.attachments)):
        if listed is not None:
            columns[name] = dump(listed).decode()

    def unit() -> ContactNote:
        _existing(organization_id, note_id)
        return _changed(organization_id, note_id, columns | {"is_edited": True})

    return await relay.database.write(unit, of=organization_id)


async def toggle_reaction(relay: Relay, organization_id: str, user_id: str, note_id: str, emoji: str) -> ContactNote:
    """Add the user's reaction to the note, or remove it if it is there; tell the listeners and return the note.

    Raises:
        NotFound: if the organization has no such note.
        InvalidRequest: if the note has as many different emojis as it may have.
    """

    def unit() -> ContactNote:
        reactions = {one["emoji"]: one["users"] for one in load(_existing(organization_id, note_id).reactions)}
        users = reactions.setdefault(emoji, [])
        reactions[emoji] = [one for one in users if one != user_id] if user_id in users else [*users, user_id]
        kept = [{"emoji": one, "users": people} for one, people in reactions.items() if people]
        if len(kept) > MAX_EMOJIS:
            raise InvalidRequest(f"A note has at most {MAX_EMOJIS} different reactions")
        return _changed(organization_id, note_id, {"reactions": dump(kept).decode()})

    return await relay.database.write(unit, of=organization_id)


def _existing(organization_id: str, note_id: str) -> ContactNote:
    note = contact_notes.get(organization_id, note_id)
    # The notes of a person who is being erased are gone, although their rows may still be there.
    if note is None or contacts.get(organization_id, note.contact_id) is None:
        raise NotFound("Note not found")
    return note


def _changed(organization_id: str, note_id: str, columns: Mapping[str, Any]) -> ContactNote:
    contact_notes.change(organization_id, note_id, dict(columns))
    note = _existing(organization_id, note_id)
    outbox.append(organization_id, [note_updated(note)])
    return note
