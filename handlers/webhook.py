"""Webhooks: the tools an ElevenLabs agent calls in the middle of a call.

A problem the agent can tell the caller is raised as `Speakable` and answered 200 with `success: false`.
"""

from pydantic import BaseModel

from actions.relay import Relay
from actions.request_transfer import TransferWish, request_transfer
from actions.save_note import NoteToSave, save_note
from actions.text_caller import TextToSend, text_caller
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    PostWebhookElevenlabsToolsCreateNote200,
    PostWebhookElevenlabsToolsCreateNoteAnswer,
    PostWebhookElevenlabsToolsSendSms200,
    PostWebhookElevenlabsToolsSendSmsAnswer,
    PostWebhookElevenlabsToolsTransfer200,
    PostWebhookElevenlabsToolsTransferAnswer,
)

_MAX_CONVERSATION_ID = 200

# The documented answer: nobody transfers the call, but the request reaches the people who can join it.
_HOLD = "Transfer is not yet implemented — please ask the caller to hold while a human agent joins."


async def post_webhook_elevenlabs_tools_create_note(
    request: Request[Relay], *, body: models.ElevenLabsCreateNoteRequest
) -> PostWebhookElevenlabsToolsCreateNoteAnswer:
    """Save a note on the caller's contact."""
    note = NoteToSave(body.phone_number, body.note, _conversation(body))
    note_id = await save_note(request.relay, request.caller.organization_id, note)
    return PostWebhookElevenlabsToolsCreateNote200(models.ElevenLabsCreateNoteResponse(success=True, note_id=note_id))


async def post_webhook_elevenlabs_tools_send_sms(
    request: Request[Relay], *, body: models.ElevenLabsSendSmsRequest
) -> PostWebhookElevenlabsToolsSendSmsAnswer:
    """Text the caller."""
    text = TextToSend(body.phone_number, body.message, body.called_id or body.called_number, _conversation(body))
    await text_caller(request.relay, request.caller.organization_id, text)
    return PostWebhookElevenlabsToolsSendSms200(models.ElevenLabsSendSmsResponse(success=True, message="SMS sent"))


async def post_webhook_elevenlabs_tools_transfer(
    request: Request[Relay], *, body: models.ElevenLabsTransferRequest
) -> PostWebhookElevenlabsToolsTransferAnswer:
    """Write down that the caller wants a person, and ask the agent to let them hold."""
    wish = TransferWish(body.reason, _usable(body.conversation_id), body.called_id)
    await request_transfer(request.relay, request.caller.organization_id, wish)
    return PostWebhookElevenlabsToolsTransfer200(models.ElevenLabsTransferResponse(success=False, message=_HOLD))


def _conversation(body: BaseModel) -> str | None:
    # The page does not name it, but agents are commonly set up to send it along.
    return _usable((body.model_extra or {}).get("conversation_id"))


def _usable(conversation_id: object) -> str | None:
    # Ids are looked up by, so they have to fit into an index; ElevenLabs' own have 33 characters.
    fits = isinstance(conversation_id, str) and 0 < len(conversation_id) <= _MAX_CONVERSATION_ID
    return str(conversation_id) if fits else None


from typing import Literal  # noqa: E402

from openapi import exchange, operations  # noqa: E402


async def post_webhook_elevenlabs(request: exchange.Request[Relay]) -> operations.PostWebhookElevenlabsAnswer:
    """ElevenLabs post-call webhook."""
    del request
    raise exchange.NotWritten


async def post_webhook_sms_status(
    request: exchange.Request[Relay],
    *,
    provider: Literal["twilio", "sinch", "textgrid"],
    message_id: str,
    token: str | None,
) -> operations.PostWebhookSmsStatusAnswer:
    """SMS status callback."""
    del request, provider, message_id, token
    raise exchange.NotWritten
