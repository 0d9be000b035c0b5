"""Reading conversations and the messages in them."""

from dataclasses import dataclass

from actions import read_contacts
from actions.paging import Page, page_after
from actions.relay import Relay
from domain.errors import NotFound
from domain.positions import Position
from persistence import conversations, messages
from persistence.models import Conversation, Message


@dataclass(frozen=True, slots=True)
class ShownConversation:
    """A conversation, its latest message, and how many it has."""

    row: Conversation
    latest: Message | None
    message_count: int


async def list_conversations(
    relay: Relay, organization_id: str, contact_id: str, channel_type: str | None = None
) -> list[ShownConversation]:
    """Return the contact's conversations over a channel (`sms`, `voice`) or all, the one last used first.

    Raises:
        NotFound: when the organization has no such contact.
    """

    def unit() -> list[ShownConversation]:
        read_contacts.existing(organization_id, contact_id)
        found = conversations.of_contact(organization_id, contact_id, channel_type)
        return [_shown(organization_id, conversation) for conversation in found]

    return await relay.database.read(unit)


async def read_conversation(relay: Relay, organization_id: str, conversation_id: str) -> ShownConversation:
    """Return one conversation.

    Raises:
        NotFound: when the organization has no such conversation.
    """
    return await relay.database.read(
        lambda: _shown(organization_id, existing_conversation(organization_id, conversation_id))
    )


async def list_messages(
    relay: Relay, organization_id: str, conversation_id: str, *, limit: int, cursor: str | None = None
) -> Page[Message]:
    """Return at most `limit` messages of the conversation after the cursor.

    Raises:
        NotFound: when the organization has no such conversation.
        InvalidRequest: when the cursor is none of ours.
    """

    def find(after: Position | None, most: int) -> list[tuple[Position, Message]]:
        found = messages.page(organization_id, existing_conversation(organization_id, conversation_id).id, after, most)
        return [(Position(message.created_at, message.id), message) for message in found]

    return await page_after(relay.database.read, cursor, limit, find)


def existing_conversation(organization_id: str, conversation_id: str) -> Conversation:
    """Return the organization's conversation, in a unit.

    Raises:
        NotFound: when it has none of that id.
    """
    found = conversations.get(organization_id, conversation_id)
    if found is None:
        raise NotFound("Conversation not found")
    return found


def _shown(organization_id: str, conversation: Conversation) -> ShownConversation:
    latest = messages.page(organization_id, conversation.id, None, 1)
    return ShownConversation(
        conversation, latest[0] if latest else None, messages.count(organization_id, conversation.id)
    )
