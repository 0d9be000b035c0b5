"""Resolving a conversation, and opening it again."""

from actions.read_conversations import existing_conversation
from actions.relay import Relay
from domain.times import now
from persistence import conversations


async def resolve_conversation(
    relay: Relay, organization_id: str, user_id: str, conversation_id: str, *, is_resolved: bool
) -> str | None:
    """Resolve the conversation or open it again; return since when it is resolved, None if it is open.

    Raises:
        NotFound: if the organization has no such conversation.
    """

    def unit() -> str | None:
        known: str | None = existing_conversation(organization_id, conversation_id).resolved_at
        if is_resolved and known is not None:
            return known
        at = now() if is_resolved else None
        conversations.resolve(organization_id, conversation_id, at, user_id if is_resolved else None)
        return at

    return await relay.database.write(unit, of=organization_id)
