"""Calls the five published operations with the package that openapi-python-client made."""

import json
import os
import sys

from tether_relay_and_tether_api_client import AuthenticatedClient
from tether_relay_and_tether_api_client.api.calls import post_calls_ingest, post_calls_voice_ai_config
from tether_relay_and_tether_api_client.api.webhooks import (
    post_webhook_elevenlabs_tools_create_note,
    post_webhook_elevenlabs_tools_send_sms,
    post_webhook_elevenlabs_tools_transfer,
)
from tether_relay_and_tether_api_client.models import (
    CallsIngestCreatedResponse,
    CallsIngestExternalCallRequest,
    CallsIngestExternalCallRequestDirection,
    CallsIngestExternalCallRequestStatus,
    CallsSaveVoiceAiConfigRequest,
    CallsSimpleSuccessResponse,
    ElevenLabsCreateNoteRequest,
    ElevenLabsCreateNoteResponse,
    ElevenLabsSendSmsRequest,
    ElevenLabsSendSmsResponse,
    ElevenLabsTransferRequest,
)


def client(token: str) -> AuthenticatedClient:
    """Return a client that sends the token of that name."""
    return AuthenticatedClient(base_url=os.environ["RELAY_URL"], token=os.environ[token])


def main() -> None:
    """Call all five and print the statuses and what was answered."""
    vendor, tools, admin = client("RELAY_API_KEY"), client("RELAY_TOOL_SECRET"), client("RELAY_JWT")
    call = post_calls_ingest.sync_detailed(
        client=vendor,
        body=CallsIngestExternalCallRequest(
            direction=CallsIngestExternalCallRequestDirection.INBOUND,
            from_number="+14165550100",
            to_number="+12362320246",
            duration=0,
            status=CallsIngestExternalCallRequestStatus.BUSY,
        ),
    )
    note = post_webhook_elevenlabs_tools_create_note.sync_detailed(
        client=tools, body=ElevenLabsCreateNoteRequest(phone_number="+14165550100", note="From Python.")
    )
    text = post_webhook_elevenlabs_tools_send_sms.sync_detailed(
        client=tools, body=ElevenLabsSendSmsRequest(phone_number="+14165550100", message="From Python.")
    )
    transfer = post_webhook_elevenlabs_tools_transfer.sync_detailed(
        client=tools, body=ElevenLabsTransferRequest(reason="A person, please")
    )
    saved = post_calls_voice_ai_config.sync_detailed(
        client=admin, body=CallsSaveVoiceAiConfigRequest(ai_voice_provider=None)
    )
    assert isinstance(call.parsed, CallsIngestCreatedResponse)
    assert isinstance(note.parsed, ElevenLabsCreateNoteResponse)
    assert isinstance(text.parsed, ElevenLabsSendSmsResponse)
    assert isinstance(saved.parsed, CallsSimpleSuccessResponse)
    told = {
        "answers": [int(one.status_code) for one in (call, note, text, transfer, saved)],
        "callId": call.parsed.call_id,
        "noteId": note.parsed.note_id,
        "texted": text.parsed.success,
        "saved": saved.parsed.message,
    }
    sys.stdout.write(json.dumps(told))


def refused() -> None:
    """What does not fit the page is no type; the checker would complain about an ignore it does not need."""
    post_calls_ingest.sync(client=client("RELAY_JWT"), body=42)  # type: ignore[arg-type]
    CallsIngestExternalCallRequest(from_number="+14165550100")  # type: ignore[call-arg]
    ElevenLabsCreateNoteRequest(phone_number=42, note="")  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
