"""Saving a note an agent takes in the middle of a call."""

from dataclasses import dataclass, field

from actions.relay import Relay
from actions.tool_calls import Contacted, call_of, find_contact, fingerprint
from domain.errors import Speakable
from domain.events import Event, EventName
from persistence import contact_notes, outbox, tool_invocations
from persistence.models import ContactNote

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


def note_created(note: ContactNote) -> Event:
    """Say that a note was written, by whomever."""
    source = {"tool": note.source_tool, "conversationId": note.elevenlabs_conversation_id}
    data = {
        "noteId": note.id,
        "contactId": note.contact_id,
        "type": note.type,
        "note": note.note,
        "createdAt": note.created_at,
    }
    if note.source_tool:
        data["source"] = {name: value for name, value in source.items() if value is not None}
    return Event(EventName.NOTE_CREATED, data, contact_id=note.contact_id)
