"""Notes about contacts."""

from collections.abc import Mapping, Sequence
from typing import Any

from peewee import JOIN, fn

from domain.documents import dump
from domain.positions import Position
from persistence import pages
from persistence.models import ContactNote, User
from persistence.statements import Insertion

_NOTE = Insertion(ContactNote)


def add_from_tool(
    organization_id: str,
    contact_id: str,
    note: str,
    *,
    tool: str,
    elevenlabs_conversation_id: str | None,
    call_id: str | None = None,
) -> ContactNote:
    """Write a note an agent took; its type tells it from what people write."""
    written = ContactNote(
        organization=organization_id,
        contact=contact_id,
        type="ai_summary",
        note=note,
        source_tool=tool,
        elevenlabs_conversation_id=elevenlabs_conversation_id,
        call=call_id,
    )
    _NOTE.add(written)
    return written


def add_from_user(
    organization_id: str,
    contact_id: str,
    user_id: str,
    note: str,
    *,
    mentions: Sequence[str] = (),
    attachments: Sequence[Mapping[str, object]] = (),
) -> ContactNote:
    """Write a note a person wrote."""
    return ContactNote.create(
        organization=organization_id,
        contact=contact_id,
        user=user_id,
        type="note",
        note=note,
        mentions=dump(list(mentions)).decode(),
        attachments=dump(list(attachments)).decode(),
    )


def get(organization_id: str, note_id: str) -> ContactNote | None:
    """Return the organization's note of that id, with its author."""
    return _authored().where(ContactNote.organization == organization_id, ContactNote.id == note_id).first()


def page(organization_id: str, contact_id: str, after: Position | None, limit: int) -> list[ContactNote]:
    """Return at most `limit` notes about the contact after the position, newest first, with their authors."""
    query = _authored().where(ContactNote.organization == organization_id, ContactNote.contact == contact_id)
    return pages.following(query, ContactNote.created_at, ContactNote.id, after, limit)


def numbered(organization_id: str, contact_id: str, offset: int, limit: int) -> list[ContactNote]:
    """Return the notes `offset` to `offset + limit` about the contact, newest first, with their authors."""
    query = _authored().where(ContactNote.organization == organization_id, ContactNote.contact == contact_id)
    ordered = query.order_by(ContactNote.created_at.desc(), ContactNote.id.desc())
    return list(ordered.offset(offset).limit(limit))


def count(organization_id: str, contact_id: str) -> int:
    """Return how many notes there are about the contact."""
    mine = (ContactNote.organization == organization_id) & (ContactNote.contact == contact_id)
    return int(ContactNote.select(fn.COUNT(1)).where(mine).scalar())


def change(organization_id: str, note_id: str, values: Mapping[str, object]) -> None:
    """Change columns of a note."""
    mine = (ContactNote.organization == organization_id) & (ContactNote.id == note_id)
    ContactNote.update(values).where(mine).execute()


def _authored() -> Any:
    query: Any = ContactNote.select(ContactNote, User.id, User.full_name, User.email)
    return query.join(User, JOIN.LEFT_OUTER)


def contact_in(organization_id: str, elevenlabs_conversation_id: str) -> str | None:
    """Return the contact a note was taken about during that ElevenLabs conversation."""
    query = ContactNote.select(ContactNote.contact).where(
        ContactNote.organization == organization_id,
        ContactNote.elevenlabs_conversation_id == elevenlabs_conversation_id,
    )
    contact_id: str | None = query.order_by(ContactNote.id.desc()).scalar()
    return contact_id


def is_written(organization_id: str, call_id: str, tool: str) -> bool:
    """Tell whether that tool has written a note about the call."""
    query: Any = ContactNote.select(ContactNote.id).where(
        ContactNote.organization == organization_id, ContactNote.call == call_id, ContactNote.source_tool == tool
    )
    return bool(query.exists())


def attach_to_call(organization_id: str, elevenlabs_conversation_id: str, call_id: str) -> None:
    """Tie every note taken during that conversation to the call it turned out to be."""
    ContactNote.update(call=call_id).where(
        ContactNote.organization == organization_id,
        ContactNote.elevenlabs_conversation_id == elevenlabs_conversation_id,
        ContactNote.call.is_null(),
    ).execute()
