"""Conversations with contacts, and the messages in them."""

from actions.read_conversations import ShownConversation, list_conversations, list_messages, read_conversation
from actions.relay import Relay
from actions.resolve_conversation import resolve_conversation
from domain.audit import AuditAction
from handlers import wire
from handlers.acting import noted_reading, user_of
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    GetConversation200,
    GetConversationAll200,
    GetConversationAllAnswer,
    GetConversationAnswer,
    GetConversationMessages200,
    GetConversationMessagesAnswer,
    PostConversationAll200,
    PostConversationAllAnswer,
    PutConversationResolve200,
    PutConversationResolveAnswer,
)


async def post_conversation_all(
    request: Request[Relay], *, body: models.ConversationAllRequest
) -> PostConversationAllAnswer:
    """List a contact's conversations over a channel."""
    organization_id = request.caller.organization_id
    found = await list_conversations(request.relay, organization_id, body.contactId, body.channelType)
    await noted_reading(request, AuditAction.CONVERSATIONS_LISTED, body.contactId)
    return PostConversationAll200(_all(found))


async def get_conversation(request: Request[Relay], *, conversation_id: str) -> GetConversationAnswer:
    """Read one conversation."""
    found = await read_conversation(request.relay, request.caller.organization_id, conversation_id)
    await noted_reading(request, AuditAction.CONVERSATION_READ, conversation_id)
    return GetConversation200(models.ConversationResponse(success=True, conversation=wire.conversation(found)))


async def get_conversation_messages(
    request: Request[Relay], *, conversation_id: str, limit: int, cursor: str | None
) -> GetConversationMessagesAnswer:
    """List a conversation's messages, newest first."""
    organization_id = request.caller.organization_id
    page = await list_messages(request.relay, organization_id, conversation_id, limit=limit, cursor=cursor)
    await noted_reading(request, AuditAction.MESSAGES_READ, conversation_id)
    shown = [wire.message(row) for row in page.entries]
    return GetConversationMessages200(models.ConversationMessagesResponse(success=True, messages=shown, next=page.next))


async def get_conversation_all(request: Request[Relay], *, contact_id: str) -> GetConversationAllAnswer:
    """List a contact's conversations over every channel."""
    found = await list_conversations(request.relay, request.caller.organization_id, contact_id)
    await noted_reading(request, AuditAction.CONVERSATIONS_LISTED, contact_id)
    return GetConversationAll200(_all(found))


async def put_conversation_resolve(
    request: Request[Relay], *, body: models.ConversationResolveRequest, id_: str
) -> PutConversationResolveAnswer:
    """Resolve a conversation, or open it again."""
    resolved_at = await resolve_conversation(request.relay, *user_of(request), id_, is_resolved=body.isResolved)
    message = "Conversation resolved" if body.isResolved else "Conversation reopened"
    data = models.ConversationResolveResponseData(
        field_id=id_, isResolved=body.isResolved, resolvedAt=wire.moment_or_none(resolved_at)
    )
    return PutConversationResolve200(models.ConversationResolveResponse(message=message, data=data))


def _all(found: list[ShownConversation]) -> models.ConversationAllResponse:
    return models.ConversationAllResponse(conversations=[wire.conversation(one) for one in found])
