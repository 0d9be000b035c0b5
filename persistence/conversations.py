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
