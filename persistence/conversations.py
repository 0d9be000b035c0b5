"""Conversations: one thread per contact, channel and number of ours."""

from peewee import Query

from persistence.models import Conversation
from persistence.statements import Given, Insertion, Lookup, Statement

_BY_KEY = Lookup(Conversation, "organization", "contact", "channel_type", "channel_identifier")
_CONVERSATION = Insertion(Conversation, unless_taken=True)
_TOUCH = Statement(lambda: _touch())


def find_or_create(organization_id: str, contact_id: str, channel_type: str, our_number: str) -> Conversation:
    """Return the thread with the contact over `channel_type` (`voice`, `sms`) and `our_number`, made if need be."""
    key = (organization_id, contact_id, channel_type, our_number)
    return _BY_KEY.find(*key) or _made(*key)


def _made(organization_id: str, contact_id: str, channel_type: str, our_number: str) -> Conversation:
    key = {
        "organization": organization_id,
        "contact": contact_id,
        "channel_type": channel_type,
        "channel_identifier": our_number,
    }
    conversation = Conversation(**key)
    return conversation if _CONVERSATION.add(conversation) else Conversation.get(**key)


def touch(conversation_id: str, at: str) -> None:
    """Record activity at the timestamp `at`; an earlier one than is recorded changes nothing."""
    _TOUCH.run(id=conversation_id, at=at)


def _touch() -> Query:
    last = Conversation.last_message_at
    is_later = last.is_null() | (last < Given("at"))
    return Conversation.update({last: Given("at")}).where(Conversation.id == Given("id"), is_later)


def get(organization_id: str, conversation_id: str) -> Conversation | None:
    """Return the organization's conversation of that id."""
    return Conversation.get_or_none(Conversation.organization == organization_id, Conversation.id == conversation_id)


def resolve(organization_id: str, conversation_id: str, at: str | None, user_id: str | None) -> None:
    """Record when the conversation was resolved and by whom, or (None) that it is open."""
    mine = (Conversation.organization == organization_id) & (Conversation.id == conversation_id)
    Conversation.update(resolved_at=at, resolved_by=user_id).where(mine).execute()


def of_contact(organization_id: str, contact_id: str, channel_type: str | None = None) -> list[Conversation]:
    """Return the contact's conversations over a channel, or over all of them, the one that was last used first."""
    query = Conversation.select().where(
        Conversation.organization == organization_id, Conversation.contact == contact_id
    )
    if channel_type is not None:
        query = query.where(Conversation.channel_type == channel_type)
    return sorted(query, key=lambda one: (one.last_message_at or one.created_at, one.id), reverse=True)
