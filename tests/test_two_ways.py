"""One call reported by ElevenLabs and the same call pushed in through ingest: the same rows, the same events."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from persistence.models import (
    Call,
    Contact,
    ContactNote,
    Conversation,
    HeldRecording,
    Message,
    Recording,
    TransferRequest,
)
from tests.support.api import Api, running_api
from tests.support.audio import mp3, mp3_base64
from tests.support.vendors import FakeElevenLabs

pytestmark = [pytest.mark.usefixtures("on_engine"), pytest.mark.any_engine]

CONVERSATION = "conv_8f3d1b9c2e7a4f0b9a4d2c1e6e2f8c01"
THEIRS, OURS = "+14165550142", "+12362320246"
SUMMARY = "Loose crown; appointment at four."
STARTED = 1_796_117_400

# What became of the transfer only the report says.
OUTCOME = {"outcome", "outcome_reason"}
# What tells how the call came in: its source, who pushed it, and what else came with it. The digests are of fields as
# they were sent, and two vendors never send the same.
WAY_IN = {"source", "user", "provider_metadata", "payload_digests"}

REPORTED = {
    "type": "post_call_transcription",
    "event_timestamp": STARTED + 60,
    "data": {
        "agent_id": "agent_1",
        "agent_name": "Reception",
        "conversation_id": CONVERSATION,
        "status": "done",
        "transcript": [
            {"role": "agent", "message": "Harbour Dental.", "time_in_call_secs": 0},
            {"role": "user", "message": "My crown came loose.", "time_in_call_secs": 3},
        ],
        "metadata": {
            "start_time_unix_secs": STARTED,
            "call_duration_secs": 47,
            "phone_call": {
                "type": "sip_trunking",
                "direction": "inbound",
                "phone_number_id": "phnum_9",
                "agent_number": OURS,
                "external_number": THEIRS,
                "call_sid": "SCL_1",
            },
        },
        "analysis": {"call_successful": "success", "transcript_summary": SUMMARY},
    },
}
AUDIO = {"type": "post_call_audio", "event_timestamp": STARTED + 61, "data": {"conversation_id": CONVERSATION}}

PUSHED = {
    "direction": "inbound",
    "fromNumber": THEIRS,
    "toNumber": OURS,
    "duration": 47,
    "status": "completed",
    "transcript": [
        {"role": "agent", "message": "Harbour Dental.", "timestamp": 0},
        {"role": "user", "message": "My crown came loose.", "timestamp": 3},
    ],
    "summary": SUMMARY,
    "agentName": "Reception",
    "callStartTime": "2026-12-01T09:30:00.000Z",
    "externalCallId": CONVERSATION,
}


@pytest.fixture
async def elevenlabs() -> AsyncIterator[FakeElevenLabs]:
    async with FakeElevenLabs() as elevenlabs:
        yield elevenlabs


async def during_the_call(api: Api) -> None:
    """Have the agent use its tools, as it does whichever way the call is reported afterwards."""
    agent = {"phone_number": api.demo.contact_phone, "conversation_id": CONVERSATION}
    await api.tool("create-note", agent | {"note": "Loose crown."})
    await api.tool("send-sms", agent | {"message": "Four o'clock."})
    await api.tool("transfer", {"reason": "Pain", "conversation_id": CONVERSATION})


async def reported(folder: Path, elevenlabs: FakeElevenLabs, *, audio_first: bool) -> Any:
    """Let ElevenLabs report the call; return what is stored and what was told."""
    async with running_api(folder, elevenlabs_url=elevenlabs.url) as api:
        await api.configure({"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key})
        await during_the_call(api)
        webhook_id = elevenlabs.settings["webhooks"]["post_call_webhook_id"]
        audio = {**AUDIO, "data": {**AUDIO["data"], "full_audio": mp3_base64()}}  # type: ignore[dict-item]
        for document in (audio, REPORTED) if audio_first else (REPORTED, audio):
            delivery = elevenlabs.delivery(webhook_id, document)
            answer = await api.http.post("/api/webhook/elevenlabs", content=delivery.body, headers=delivery.headers)
            assert answer.status_code == 200, answer.text
        return await stored(api)


async def pushed(folder: Path, elevenlabs: FakeElevenLabs) -> Any:
    """Push the call in; return what is stored and what was told."""
    async with running_api(folder, elevenlabs_url=elevenlabs.url) as api:
        await api.configure({"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key})
        await during_the_call(api)
        answer = await api.ingest({**PUSHED, "recording": mp3_base64()})
        assert answer.status_code == 201, answer.text
        return await stored(api)


async def stored(api: Api) -> dict[str, Any]:
    """Return every row of every table that a call touches, and every event, with ids by what they name."""

    def unit() -> dict[str, list[dict[str, Any]]]:
        return {model.__name__: list(model.select().order_by(model.id).dicts()) for model in TABLES}

    tables = await api.read(unit)
    names = {row["id"]: f"{table} {number}" for table, rows in tables.items() for number, row in enumerate(rows)}
    told = json.loads(_named(json.dumps(await api.events()), names))
    assert [path.read_bytes() for path in api.objects()] == [mp3()]
    return {"rows": json.loads(_named(json.dumps(tables), names)), "events": told}


TABLES: list[Any] = [
    Contact,
    Conversation,
    Call,
    Recording,
    ContactNote,
    Message,
    TransferRequest,
    HeldRecording,
]


def _named(text: str, names: dict[str, str]) -> str:
    for row_id, name in names.items():
        text = text.replace(row_id, name)
    return text


# When something was written here, what the SMS provider called it, and what is named after ids: no two runs share them.
MOMENTS = {
    "created_at",
    "updated_at",
    "sent_at",
    "requested_at",
    "createdAt",
    "requestedAt",
    "last_message_at",
    "organization",
    "key",
    "provider_message_id",
}


def without(value: Any, names: set[str]) -> Any:
    """Return `value` without the members of those names, wherever they stand."""
    if isinstance(value, dict):
        return {name: without(each, names) for name, each in value.items() if name not in names}
    return [without(each, names) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("audio_first", [False, True])
async def test_both_ways_end_in_the_same_rows(tmp_path: Path, elevenlabs: FakeElevenLabs, audio_first: bool) -> None:
    """Field by field; the webhook's call has one note more, and remembers the other way it came in.

    What became of the transfer only the agent's vendor knows.
    """
    one = (await reported(tmp_path / "one", elevenlabs, audio_first=audio_first))["rows"]
    elevenlabs.webhooks.clear()
    two = (await pushed(tmp_path / "two", elevenlabs))["rows"]
    *notes, summary = one["ContactNote"]

    assert (summary["note"], summary["source_tool"], summary["call"]) == (SUMMARY, "post-call", "Call 0")
    assert [one["Call"][0][name] != two["Call"][0][name] for name in ("source", "provider_metadata")] == [True, True]
    assert [each["TransferRequest"][0]["outcome"] for each in (one, two)] == ["not-attempted", None]
    known = MOMENTS | WAY_IN | OUTCOME
    assert without({**one, "ContactNote": notes}, known) == without(two, known)


@pytest.mark.parametrize("audio_first", [False, True])
async def test_both_ways_end_in_the_same_events(tmp_path: Path, elevenlabs: FakeElevenLabs, audio_first: bool) -> None:
    """Name by name and field by field; the summary's note and the end of the transfer come besides.

    Late audio is told of when it comes.
    """
    one = (await reported(tmp_path / "one", elevenlabs, audio_first=audio_first))["events"]
    elevenlabs.webhooks.clear()
    two = (await pushed(tmp_path / "two", elevenlabs))["events"]
    besides = [event for event in one if event["data"].get("note") == SUMMARY or event["name"] == "transfer_ended"]
    shared = [event for event in one if event not in besides]

    assert sorted(event["name"] for event in besides) == ["note_created", "transfer_ended"]
    assert [event["seq"] for event in one] == list(range(1, len(two) + 3))
    by_name = {"key": lambda event: event["name"]} if not audio_first else {"key": lambda event: event["seq"]}
    assert without(sorted(shared, **by_name), MOMENTS | {"seq"}) == without(sorted(two, **by_name), MOMENTS | {"seq"})  # type: ignore[call-overload]
