"""Handlers of the operations on conversation."""

from actions.relay import Relay
from openapi import exchange, models, operations


async def post_conversation_all(
    request: exchange.Request[Relay], *, body: models.ConversationAllRequest
) -> operations.PostConversationAllAnswer:
    """List a contact's conversations over a channel."""
    del request, body
    raise exchange.NotWritten


async def get_conversation(
    request: exchange.Request[Relay], *, conversation_id: str
) -> operations.GetConversationAnswer:
    """Read one conversation."""
    del request, conversation_id
    raise exchange.NotWritten


async def get_conversation_messages(
    request: exchange.Request[Relay], *, conversation_id: str, limit: int, cursor: str | None
) -> operations.GetConversationMessagesAnswer:
    """List a conversation's messages, newest first."""
    del request, conversation_id, limit, cursor
    raise exchange.NotWritten
