"""Saving a note an agent takes in the middle of a call."""

from dataclasses import dataclass, field

from actions.announcements import note_created
from actions.relay import Relay
from actions.tool_calls import Contacted, call_of, find_contact, fingerprint
from domain.errors import Speakable
from persistence import contact_notes, outbox, tool_invocations

TOOL = "create-note"


@dataclass(frozen=True, slots=True)
class NoteToSave:
    """A note as the agent sends it."""

    phone_number: str = field(repr=False)
    note: str = field(repr=False)
    conversation_id: str | None = None


async def save_note(relay: Relay, organization_id: str, request: NoteToSave) -> str:
    """Save the note on its contact once, and tell the listeners; return the note's id.

    Raises:
        Speakable: when the note is blank or nobody has that number.
    """
    text = request.note.strip()
    if not text:
        raise Speakable("The note is empty, so nothing was saved.")

    def unit() -> str:
        contact = find_contact(
            organization_id, request.phone_number, request.conversation_id, otherwise="the note was not saved"
        )
        same_call = fingerprint(TOOL, request.conversation_id, contact.number, text)
        note_id, _ = tool_invocations.once(
            organization_id,
            TOOL,
            same_call,
            relay.rules.tool_replay,
            lambda: _write(organization_id, contact, text, request.conversation_id),
        )
        return note_id

    return await relay.database.write(unit, of=organization_id)


def _write(organization_id: str, contact: Contacted, text: str, conversation_id: str | None) -> str:
    call = call_of(organization_id, conversation_id)
    note = contact_notes.add_from_tool(
        organization_id,
        contact.id,
        text,
        tool=TOOL,
        elevenlabs_conversation_id=conversation_id,
        call_id=call.id if call else None,
    )
    outbox.append(organization_id, [note_created(note)])
    return str(note.id)
