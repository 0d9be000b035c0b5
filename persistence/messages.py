"""Text messages, and how far each got."""

from collections.abc import Mapping
from typing import Any

from peewee import fn

from domain.positions import Position
from domain.statuses import MessageStatus, may_follow
from domain.times import now
from persistence import pages
from persistence.models import Message


def queue(organization_id: str, values: Mapping[str, object]) -> Message:
    """Write an outbound message that has yet to be sent."""
    return Message.create(
        organization=organization_id, direction="outbound", status=MessageStatus.QUEUED.value, **values
    )


def get(organization_id: str, message_id: str) -> Message | None:
    """Return the organization's message of that id."""
    return Message.get_or_none(Message.organization == organization_id, Message.id == message_id)


def by_id(message_id: str) -> Message | None:
    """Return the message of that id; only for whoever then checks a signature with its organization's secret."""
    return Message.get_or_none(Message.id == message_id)


def advance(
    organization_id: str,
    message_id: str,
    status: MessageStatus,
    *,
    provider_message_id: str | None = None,
    error: str | None = None,
) -> Message | None:
    """Move the message forward; None, and nothing changed, when `status` may not follow the present one."""
    message = get(organization_id, message_id)
    if message is None or not may_follow(MessageStatus(message.status), status):
        return None
    changes = {
        "status": status.value,
        "updated_at": now(),
        "error": error,
        "provider_message_id": provider_message_id or message.provider_message_id,
    }
    # Somebody else may be moving it at the same moment; whoever comes second finds it changed.
    unmoved = (
        (Message.organization == organization_id) & (Message.id == message_id) & (Message.status == message.status)
    )
    moved = Message.update(changes).where(unmoved).execute()
    return get(organization_id, message_id) if moved else None


def attach_to_call(organization_id: str, elevenlabs_conversation_id: str, call_id: str) -> None:
    """Tie every text sent during that conversation to the call it turned out to be."""
    Message.update(call=call_id).where(
        Message.organization == organization_id,
        Message.elevenlabs_conversation_id == elevenlabs_conversation_id,
        Message.call.is_null(),
    ).execute()


def stranded(before: str) -> list[Message]:
    """Return the messages still queued from before that moment: their sender died, and nobody knows if they left."""
    query = Message.select().where(Message.status == MessageStatus.QUEUED.value, Message.created_at < before)
    return list(query.order_by(Message.id).limit(1000))


def contact_in(organization_id: str, elevenlabs_conversation_id: str) -> str | None:
    """Return the contact a text was sent to during that ElevenLabs conversation."""
    query = Message.select(Message.contact).where(
        Message.organization == organization_id, Message.elevenlabs_conversation_id == elevenlabs_conversation_id
    )
    contact_id: str | None = query.order_by(Message.id.desc()).scalar()
    return contact_id


def page(organization_id: str, conversation_id: str, after: Position | None, limit: int) -> list[Message]:
    """Return at most `limit` messages of the conversation after the position, newest first."""
    query = Message.select().where(Message.organization == organization_id, Message.conversation == conversation_id)
    return pages.following(query, Message.created_at, Message.id, after, limit)


def count(organization_id: str, conversation_id: str) -> int:
    """Return how many messages the conversation has."""
    query: Any = Message.select(fn.COUNT(Message.id))
    mine = (Message.conversation == conversation_id) & (Message.organization == organization_id)
    return int(query.where(mine).scalar())
