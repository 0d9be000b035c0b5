"""Webhooks: the tools an ElevenLabs agent calls in the middle of a call, and what vendors report afterwards.

A problem the agent can tell the caller is raised as `Speakable` and answered 200 with `success: false`. Vendors sign
the raw bytes of what they report, so those are read here, and believed before anything else is looked at.
"""

from typing import Literal

from pydantic import BaseModel

from actions.availability import count_available
from actions.business_hours import is_open_now
from actions.configure_voice_ai import ORGANIZATION_HEADER
from actions.personalize import ConnectedCall, personalize
from actions.receive_post_call import Signed, open_delivery, receive_post_call
from actions.relay import Relay
from actions.request_transfer import TransferWish, request_transfer
from actions.save_note import NoteToSave, save_note
from actions.status_callbacks import Callback
from actions.text_caller import TextToSend, text_caller
from actions.track_message import believe, track_message
from actions.update_contact import ContactChange, update_contact
from domain.errors import UnsupportedMediaType
from domain.lengths import LENGTHS
from openapi import models
from openapi.exchange import Request
from openapi.media import is_json
from openapi.operations import (
    PostWebhookElevenlabs200,
    PostWebhookElevenlabsAnswer,
    PostWebhookElevenlabsConversationInitiation200,
    PostWebhookElevenlabsConversationInitiationAnswer,
    PostWebhookElevenlabsPersonalization200,
    PostWebhookElevenlabsPersonalizationAnswer,
    PostWebhookElevenlabsToolsCheckAvailability200,
    PostWebhookElevenlabsToolsCheckAvailabilityAnswer,
    PostWebhookElevenlabsToolsCheckBusinessHours200,
    PostWebhookElevenlabsToolsCheckBusinessHoursAnswer,
    PostWebhookElevenlabsToolsCreateNote200,
    PostWebhookElevenlabsToolsCreateNoteAnswer,
    PostWebhookElevenlabsToolsSendSms200,
    PostWebhookElevenlabsToolsSendSmsAnswer,
    PostWebhookElevenlabsToolsTransfer200,
    PostWebhookElevenlabsToolsTransferAnswer,
    PostWebhookElevenlabsToolsUpdateContact200,
    PostWebhookElevenlabsToolsUpdateContactAnswer,
    PostWebhookSmsStatus200,
    PostWebhookSmsStatusAnswer,
)

_FORM = "application/x-www-form-urlencoded"


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
    """Write down that the caller wants a person, and tell the agent what to say."""
    wish = TransferWish(body.reason, _usable(body.conversation_id), body.called_id)
    answer = await request_transfer(request.relay, request.caller.organization_id, wish)
    return PostWebhookElevenlabsToolsTransfer200(models.ElevenLabsTransferResponse(success=False, message=answer.words))


async def post_webhook_elevenlabs_tools_check_business_hours(
    request: Request[Relay], *, body: models.ElevenLabsToolInvocation
) -> PostWebhookElevenlabsToolsCheckBusinessHoursAnswer:
    """Say whether the organization is open now."""
    del body  # the secret alone selects the organization
    found = await is_open_now(request.relay, request.caller.organization_id)
    return PostWebhookElevenlabsToolsCheckBusinessHours200(
        models.ElevenLabsBusinessHoursResponse(
            is_open=found.is_open,
            current_time=found.current_time,
            timezone=found.timezone,
            organization_name=found.organization_name,
        )
    )


async def post_webhook_elevenlabs_tools_check_availability(
    request: Request[Relay], *, body: models.ElevenLabsToolInvocation
) -> PostWebhookElevenlabsToolsCheckAvailabilityAnswer:
    """Say how many people are there, and how many of them take calls."""
    del body
    found = await count_available(request.relay, request.caller.organization_id)
    return PostWebhookElevenlabsToolsCheckAvailability200(
        models.ElevenLabsAvailabilityResponse(
            agents_available=found.available > 0, available_count=found.available, online_count=found.online
        )
    )


async def post_webhook_elevenlabs_tools_update_contact(
    request: Request[Relay], *, body: models.ElevenLabsUpdateContactRequest
) -> PostWebhookElevenlabsToolsUpdateContactAnswer:
    """Correct the caller's contact."""
    change = ContactChange(body.phone_number, body.first_name, body.last_name, body.email, _conversation(body))
    updated = await update_contact(request.relay, request.caller.organization_id, change)
    return PostWebhookElevenlabsToolsUpdateContact200(
        models.ElevenLabsUpdateContactResponse(success=True, message="Contact updated", updated_fields=updated)
    )


async def post_webhook_elevenlabs_personalization(
    request: Request[Relay], *, body: models.ElevenLabsPersonalizationRequest
) -> PostWebhookElevenlabsPersonalizationAnswer:
    """Say who is calling, in Tether's form: nothing if nobody has the number."""
    connected = ConnectedCall(
        conversation_id=_usable(body.conversation_id),
        agent_id=_vendor_id(body.agent_id),
        caller_id=body.caller_id,
        called_id=body.called_id,
    )
    found = await personalize(request.relay, request.caller.organization_id, connected)
    answer = models.ElevenLabsPersonalizationResponse()
    if found.is_known:
        answer = models.ElevenLabsPersonalizationResponse(
            caller_name=found.caller_name, caller_number=found.caller_number, org_name=found.org_name
        )
    return PostWebhookElevenlabsPersonalization200(answer)


async def post_webhook_elevenlabs_conversation_initiation(
    request: Request[Relay], *, body: models.ElevenLabsConversationInitiationRequest
) -> PostWebhookElevenlabsConversationInitiationAnswer:
    """Say who is calling, in ElevenLabs' form: every variable, always."""
    connected = ConnectedCall(
        conversation_id=_usable(body.conversation_id),
        call_sid=_vendor_id(body.call_sid),
        agent_id=_vendor_id(body.agent_id),
        caller_id=body.caller_id,
        called_id=body.called_number,
    )
    found = await personalize(request.relay, request.caller.organization_id, connected)
    variables = models.ElevenLabsConversationInitiationResponseDynamicVariables(
        caller_name=found.caller_name,
        caller_number=found.caller_number,
        org_name=found.org_name,
        available_number=found.available_number,
        available_sip_address=found.available_sip_address,
    )
    return PostWebhookElevenlabsConversationInitiation200(
        models.ElevenLabsConversationInitiationResponse(
            type="conversation_initiation_client_data", dynamic_variables=variables
        )
    )


async def post_webhook_elevenlabs(request: Request[Relay]) -> PostWebhookElevenlabsAnswer:
    """Record what ElevenLabs reports after a call."""
    signature, hint = (request.headers.get(name) for name in ("ElevenLabs-Signature", ORGANIZATION_HEADER))
    signed = Signed(signature or "", hint, request.client)
    proof = request.principal.organization_id if request.principal else signed
    async with open_delivery(request.relay, proof, request.stream()) as delivery:
        _insist_on(request, json=True)
        call_id = await receive_post_call(request.relay, delivery)
    received = models.ElevenLabsPostCallResponse(received=True)
    if call_id is not None:
        received.callId = call_id
    return PostWebhookElevenlabs200(received)


async def post_webhook_sms_status(
    request: Request[Relay],
    *,
    provider: Literal["twilio", "sinch", "textgrid"],
    message_id: str,
    token: str | None,
) -> PostWebhookSmsStatusAnswer:
    """Record how far a message of ours got."""
    body = b"".join([chunk async for chunk in request.stream()])
    callback = Callback(provider, message_id, request.target, request.headers, body, token)
    message = await believe(request.relay, callback)
    _insist_on(request, json=provider == "sinch")
    await track_message(request.relay, message, callback)
    return PostWebhookSmsStatus200(models.SmsStatusResponse(received=True))


def _insist_on(request: Request[Relay], *, json: bool) -> None:
    given = request.headers.get("Content-Type", "").strip()
    fits = is_json(given) if json else given.partition(";")[0].strip().lower() == _FORM
    if given and not fits:
        raise UnsupportedMediaType(f"Request body must be sent as {'application/json' if json else _FORM}")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Request body must be sent without a content encoding")


def _conversation(body: BaseModel) -> str | None:
    # The page does not name it, but agents are commonly set up to send it along.
    return _usable((body.model_extra or {}).get("conversation_id"))


def _usable(conversation_id: object) -> str | None:
    # Ids are looked up by, so they have to fit into an index; ElevenLabs' own have 33 characters.
    fits = isinstance(conversation_id, str) and 0 < len(conversation_id) <= LENGTHS["conversationId"]
    return str(conversation_id) if fits else None


def _vendor_id(value: str | None) -> str | None:
    return value if value and len(value) <= LENGTHS["vendorId"] else None
