"""Conversations: one thread per contact, channel and number of ours."""

from persistence.models import Conversation


def find_or_create(organization_id: str, contact_id: str, channel_type: str, our_number: str) -> Conversation:
    """Return the thread with the contact over `channel_type` (`voice`, `sms`) and `our_number`, made if need be."""
    key = {"contact": contact_id, "channel_type": channel_type, "channel_identifier": our_number}
    Conversation.insert(organization=organization_id, **key).on_conflict_ignore().execute()
    return Conversation.get(
        Conversation.organization == organization_id,
        Conversation.contact == contact_id,
        Conversation.channel_type == channel_type,
        Conversation.channel_identifier == our_number,
    )


def touch(conversation_id: str, at: str) -> None:
    """Note that something was said at that moment."""
    Conversation.update(last_message_at=at).where(Conversation.id == conversation_id).execute()


def get(organization_id: str, conversation_id: str) -> Conversation | None:
    """Return the organization's conversation of that id."""
    return Conversation.get_or_none(Conversation.organization == organization_id, Conversation.id == conversation_id)


def of_contact(organization_id: str, contact_id: str, channel_type: str) -> list[Conversation]:
    """Return the contact's conversations over a channel, the one that was last used first."""
    query = Conversation.select().where(
        Conversation.organization == organization_id,
        Conversation.contact == contact_id,
        Conversation.channel_type == channel_type,
    )
    return sorted(query, key=lambda one: (one.last_message_at or one.created_at, one.id), reverse=True)
