"""What ElevenLabs reports after a call: who is believed, what is recorded, and in which order it may come."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from actions import administer
from actions.configure_voice_ai import ORGANIZATION_HEADER, VoiceAiChanges, configure_voice_ai
from actions.erase_contact import erase_contact
from domain.audit import Actor
from domain.errors import StorageUnavailable
from keyring.vault import Vault
from persistence import voice_ai_configs
from persistence.models import (
    Call,
    Contact,
    ContactNote,
    HeldRecording,
    Message,
    Recording,
    TransferRequest,
)
from tests.support.api import Api, running_api
from tests.support.audio import mp3, mp3_base64
from tests.support.reading import get
from tests.support.vendors import FakeElevenLabs

pytestmark = pytest.mark.any_engine

POST_CALL = "/api/webhook/elevenlabs"
OURS = "+12362320246"
CONVERSATION = "conv_4k7p2m9x1c6t8r5w3q0z"
SUMMARY = "Loose crown; appointment at four with Dr. Okafor."
MINUTE = 60

# What the captured deliveries of audio hold.
AUDIO = mp3(3)

_PAYLOADS = Path(__file__).parent / "payloads" / "elevenlabs"


def payload(name: str, **changes: Any) -> dict[str, Any]:
    """Return a captured delivery, with `changes` to its data."""
    document: dict[str, Any] = json.loads((_PAYLOADS / f"{name}.json").read_text())
    document.get("data", document).update(changes)
    return document


@dataclass(frozen=True)
class Desk:
    """An organization whose ElevenLabs workspace delivers to a running API."""

    api: Api
    workspace: FakeElevenLabs
    webhook_id: str

    @property
    def secret(self) -> str:
        """The secret its deliveries are signed with."""
        return self.workspace.secrets[self.webhook_id]

    async def deliver(
        self, document: Any, *, at: float | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Deliver as the workspace would; `headers` replace its own."""
        callback = self.workspace.delivery(self.webhook_id, document, at=None if at is None else int(at))
        return await self.send(callback.body, **(dict(callback.headers) | (headers or {})))

    async def send(self, body: Any, **headers: str) -> httpx.Response:
        """Send a body with nothing but these headers."""
        return await self.api.http.post(POST_CALL, content=body, headers=headers)


@pytest.fixture
async def desk(tmp_path: Path, elevenlabs: FakeElevenLabs) -> AsyncIterator[Desk]:
    async with running_api(tmp_path / "var", elevenlabs_url=elevenlabs.url) as api:
        saved = await api.configure({"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key})
        assert saved.status_code == 200
        yield Desk(api, elevenlabs, elevenlabs.settings["webhooks"]["post_call_webhook_id"])


def call_id(response: httpx.Response) -> str:
    """Return the id of the call that was accepted: by exactly 200, because anything else counts as a failure."""
    assert response.status_code == 200, response.text
    assert response.json()["received"] is True
    return str(response.json()["callId"])


async def rows(api: Api, model: Any) -> list[Any]:
    return list(await api.read(lambda: list(model.select().order_by(model.id))))


async def names(api: Api, since: int = 0) -> list[str]:
    return [event["name"] for event in await told(api, since)]


async def told(api: Api, since: int = 0) -> list[dict[str, Any]]:
    """Return the events that tell of calls; saving the configuration was announced before them."""
    return [event for event in await api.events(since) if event["name"] != "voice_ai_webhook"]


async def nothing_is_stored(api: Api) -> bool:
    kept = [await rows(api, model) for model in (Call, ContactNote, HeldRecording, Recording)]
    return not any(kept) and await told(api) == [] and api.objects() == []


# What becomes of each payload


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transcription_inbound_sip", ("inbound", "+14165550142", OURS, "completed", 47)),
        ("transcription_outbound_twilio_without_transcript", ("outbound", OURS, "+14165550177", "completed", 47)),
        ("transcription_older_form", ("inbound", "+14165550188", OURS, "completed", 12.5)),
        ("failure_sip_busy", ("outbound", OURS, "+14165550133", "busy", 0)),
        ("failure_sip_unknown_with_bare_numbers", ("outbound", OURS, "+14165550134", "failed", 0)),
        ("failure_twilio_no_answer", ("outbound", OURS, "+14165550135", "no-answer", 0)),
    ],
)
async def test_every_form_of_report_becomes_one_call(desk: Desk, name: str, expected: tuple[Any, ...]) -> None:
    """Direction, both numbers, outcome and duration in seconds, known by the conversation."""
    document = payload(name)
    recorded = call_id(await desk.deliver(document))
    (call,) = await rows(desk.api, Call)

    assert (call.direction, call.from_number, call.to_number, call.status, call.duration) == expected
    assert (call.id, call.source) == (recorded, "elevenlabs")
    conversation = document.get("data", document)["conversation_id"]
    assert call.external_call_id == call.elevenlabs_conversation_id == conversation


async def test_a_transcription_becomes_call_note_and_events(desk: Desk) -> None:
    """What was said, when it began, what it came to; tool turns are not speech, and no secret of theirs is kept."""
    recorded = call_id(await desk.deliver(payload("transcription_inbound_sip")))
    (call,), (note,) = await rows(desk.api, Call), await rows(desk.api, ContactNote)
    told_of = await told(desk.api)

    assert (call.started_at, call.ended_at) == ("2026-12-01T09:30:00.000Z", "2026-12-01T09:30:47.000Z")
    assert json.loads(call.transcript) == [
        {"role": "agent", "message": "Harbour Dental, how can I help?", "timestamp": 0},
        {"role": "user", "message": "My crown came loose.", "timestamp": 3},
        {"role": "agent", "message": "Dr. Okafor can see you at four.", "timestamp": 9},
        {"role": "user", "message": "Perfect.", "timestamp": 12},
    ]
    assert (call.summary, call.agent_name) == (SUMMARY, "Reception")
    assert (note.type, note.note, note.source_tool) == ("ai_summary", SUMMARY, "post-call")
    assert (note.call_id, note.contact_id, note.elevenlabs_conversation_id) == (recorded, call.contact_id, CONVERSATION)
    assert [event["name"] for event in told_of] == ["call_initiated", "call_ended", "fetch_messages", "note_created"]
    assert {event["data"]["contactId"] for event in told_of} == {call.contact_id}
    assert "kept-out-of-everything" not in call.provider_metadata + json.dumps(told_of)


async def test_a_call_over_the_web_without_a_number_is_accepted_and_no_call(desk: Desk) -> None:
    """Refusing it would not bring a number, and ten refusals would have the webhook switched off."""
    response = await desk.deliver(payload("transcription_without_phone"))

    assert (response.status_code, response.json()) == (200, {"received": True})
    assert await nothing_is_stored(desk.api)


async def test_a_call_over_the_web_belongs_to_whom_its_tools_named(desk: Desk) -> None:
    """The agent asked for the number and used it."""
    document = payload("transcription_without_phone")
    told = {"phone_number": desk.api.demo.contact_phone, "note": "Loose crown."}
    await desk.api.tool("create-note", told | {"conversation_id": document["data"]["conversation_id"]})
    recorded = call_id(await desk.deliver(document))
    (call,) = await rows(desk.api, Call)

    assert (call.id, call.from_number, call.to_number) == (recorded, desk.api.demo.contact_phone, OURS)


async def test_a_type_nobody_knows_is_acknowledged_and_ignored(desk: Desk) -> None:
    """ElevenLabs adds types; refusing them would end in no deliveries at all."""
    for document in (payload("unknown_type"), {"type": "something.new"}):
        response = await desk.deliver(document)

        assert (response.status_code, response.json()) == (200, {"received": True})
    assert await nothing_is_stored(desk.api)


async def test_what_is_optional_may_be_anything(desk: Desk) -> None:
    """A field of another type than documented is read as missing: nobody delivers the call again."""
    for number, changes in enumerate(ODD):
        call_id(await desk.deliver(payload("transcription_inbound_sip", **changes, conversation_id=f"conv_{number}")))
    calls = await rows(desk.api, Call)

    assert {(call.from_number, call.to_number, call.direction) for call in calls} == {("+14165550142", OURS, "inbound")}
    assert len(calls) == len(ODD)


ODD: list[dict[str, Any]] = [
    {"metadata": None},
    {"metadata": {"phone_call": {"external_number": "+14165550142", "agent_number": OURS}}},
    {
        "metadata": {
            "caller_id": 14165550142,
            "called_id": OURS,
            "call_duration_secs": "47",
            "start_time_unix_secs": -1,
        }
    },
    {"transcript": "none", "metadata": {"caller_id": "+14165550142", "start_time_unix_secs": 1e300}},
    {"transcript": [None, 1, {"role": "agent"}, {"role": "dtmf", "message": "1"}], "analysis": ["?"]},
    {"analysis": {"transcript_summary": {"en": "?"}}, "agent_name": 7, "status": ["done"]},
]


# In which order


@pytest.mark.parametrize("order", ["audio last", "audio first"])
@pytest.mark.each_engine
async def test_audio_and_transcription_come_in_any_order(desk: Desk, order: str) -> None:
    """One call with one recording, and every listener hears once that it can be listened to."""
    transcription, audio = payload("transcription_inbound_sip"), payload("audio")
    first, second = (transcription, audio) if order == "audio last" else (audio, transcription)
    early, late = await desk.deliver(first), await desk.deliver(second)
    (call,), (recording,) = await rows(desk.api, Call), await rows(desk.api, Recording)

    assert early.json() == ({"received": True, "callId": call.id} if order == "audio last" else {"received": True})
    assert call_id(late) == call.id == recording.call_id
    assert (await names(desk.api)).count("call_recording_ready") == 1
    assert sorted(await names(desk.api)) == sorted(
        ["call_initiated", "call_ended", "fetch_messages", "note_created", "call_recording_ready"]
    )
    assert [path.read_bytes() for path in desk.api.objects()] == [AUDIO]
    assert (recording.size, recording.sha256) == (len(AUDIO), hashlib.sha256(AUDIO).hexdigest())
    assert await rows(desk.api, HeldRecording) == []


@pytest.mark.each_engine
async def test_audio_alone_waits_and_is_kept_once(desk: Desk) -> None:
    """However often it comes, and no listener hears of it before there is a call."""
    for _ in range(3):
        response = await desk.deliver(payload("audio"))
        assert (response.status_code, response.json()) == (200, {"received": True})
    (held,) = await rows(desk.api, HeldRecording)

    assert (held.elevenlabs_conversation_id, held.size) == (CONVERSATION, len(AUDIO))
    assert len(desk.api.objects()) == 1
    assert await names(desk.api) == []


@pytest.mark.each_engine
async def test_everything_delivered_many_times_at_once_is_recorded_once(desk: Desk) -> None:
    """Ten transcriptions and ten recordings in a heap: one call, one note, one recording, five events."""
    documents = [payload("transcription_inbound_sip"), payload("audio")] * 10
    responses = await asyncio.gather(*[desk.deliver(document) for document in documents])
    again = await desk.deliver(payload("transcription_inbound_sip"))
    counts = [len(await rows(desk.api, model)) for model in (Call, ContactNote, Recording, HeldRecording, Contact)]

    assert {response.status_code for response in responses} == {200}
    assert counts[:4] == [1, 1, 1, 0]
    assert len(await names(desk.api)) == 5
    assert len(desk.api.objects()) == 1
    assert call_id(again) == (await rows(desk.api, Call))[0].id


async def test_the_older_form_of_audio_finds_the_older_form_of_call(desk: Desk) -> None:
    """Their fields stand at the top."""
    recorded = call_id(await desk.deliver(payload("transcription_older_form")))

    assert call_id(await desk.deliver(payload("audio_older_form"))) == recorded
    assert [recording.call_id for recording in await rows(desk.api, Recording)] == [recorded]


@pytest.mark.each_engine
async def test_what_the_tools_did_during_the_call_is_tied_to_it(desk: Desk) -> None:
    """A note, a text and a request for a person, before the call was reported and after."""
    agent = {"phone_number": desk.api.demo.contact_phone, "conversation_id": CONVERSATION}
    await desk.api.tool("create-note", agent | {"note": "Loose crown."})
    await desk.api.tool("send-sms", agent | {"message": "Four o'clock."})
    await desk.api.tool("transfer", {"reason": "Pain", "conversation_id": CONVERSATION})
    recorded = call_id(await desk.deliver(payload("transcription_inbound_sip")))
    await desk.api.tool("create-note", agent | {"note": "Called back."})
    tied = [{row.call_id for row in await rows(desk.api, model)} for model in (ContactNote, Message, TransferRequest)]

    assert tied == [{recorded}] * 3


@pytest.mark.each_engine
async def test_a_call_that_was_pushed_in_before_is_the_same_call(desk: Desk) -> None:
    """Known by its conversation, whatever it was called there; only the note is new."""
    pushed = {
        "direction": "inbound",
        "fromNumber": "+14165550142",
        "toNumber": OURS,
        "duration": 47,
        "status": "completed",
        "transcript": [{"role": "user", "message": "My crown came loose."}],
        "summary": "Crown.",
        "recording": mp3_base64(),
        "externalCallId": "vendor-7",
        "metadata": {"conversation_id": CONVERSATION},
    }
    first = (await desk.api.ingest(pushed)).json()["callId"]
    head = await desk.api.head()
    for _ in range(2):
        assert call_id(await desk.deliver(payload("transcription_inbound_sip"))) == first
    (call,), (note,) = await rows(desk.api, Call), await rows(desk.api, ContactNote)

    assert (call.source, call.summary) == ("ingest", "Crown.")
    assert (note.note, note.call_id) == (SUMMARY, first)
    assert await names(desk.api, head) == ["note_created"]


@pytest.mark.each_engine
async def test_a_call_that_is_pushed_in_at_the_same_moment_gets_its_note_too(desk: Desk) -> None:
    """Whichever of the two is faster, the summary is noted once."""
    for number in range(10):
        conversation = f"conv_race_{number}"
        pushed = {
            "direction": "inbound",
            "fromNumber": "+14165550142",
            "toNumber": OURS,
            "duration": 0,
            "status": "no-answer",
            "externalCallId": f"vendor-race-{number}",
            "metadata": {"conversation_id": conversation},
        }
        document = payload("transcription_inbound_sip", conversation_id=conversation)
        first, second = await asyncio.gather(desk.api.ingest(pushed), desk.deliver(document))
        assert first.status_code in (200, 201)
        assert first.json()["callId"] == call_id(second)
    noted = [note.elevenlabs_conversation_id for note in await rows(desk.api, ContactNote)]

    assert sorted(noted) == sorted(f"conv_race_{number}" for number in range(10))


async def test_a_summary_that_is_blank_is_no_note_and_no_news(desk: Desk) -> None:
    """Neither the first time nor when the call is reported again."""
    blank = payload("transcription_inbound_sip", analysis={"transcript_summary": "  "})
    for _ in range(2):
        call_id(await desk.deliver(blank))

    assert await rows(desk.api, ContactNote) == []
    assert await names(desk.api) == ["call_initiated", "call_ended", "fetch_messages"]


@pytest.mark.each_engine
async def test_nothing_of_an_erased_person_comes_back(desk: Desk) -> None:
    """Late audio and a repeated transcription are acknowledged and let go."""
    recorded = call_id(await desk.deliver(payload("transcription_inbound_sip")))
    (call,) = await rows(desk.api, Call)
    await erase_contact(desk.api.relay, desk.api.organization_id, call.contact_id, Actor())
    head = await desk.api.head()
    late = [await desk.deliver(payload(name)) for name in ("audio", "transcription_inbound_sip")]

    assert [call_id(response) for response in late] == [recorded, recorded]
    assert [await rows(desk.api, model) for model in (ContactNote, Recording, HeldRecording)] == [[], [], []]
    assert (desk.api.objects(), await names(desk.api, head)) == ([], [])


# Who is believed


def signed(secret: str, body: bytes, at: float) -> str:
    """Sign as ElevenLabs' page says, written here once more."""
    digest = hmac.new(secret.encode(), f"{int(at)}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={int(at)},v0={digest}"


BODY = json.dumps({"type": "something.new"}).encode()


async def test_every_way_to_write_a_good_signature_is_believed(desk: Desk) -> None:
    """In any order, with spaces, beside others: any matching `v0` will do."""
    good = signed(desk.secret, BODY, time.time())
    moment, _, digest = good.removeprefix("t=").partition(",v0=")
    forms = [
        good,
        f"v0={digest},t={moment}",
        f"t={moment} , v0={digest}",
        f"t={moment},v0={'0' * 64},v0={digest}",
        f"t={moment},v0={digest},v0={'0' * 64}",
        f"t={moment},v0={digest},v1=later",
    ]
    answers = {form: (await desk.send(BODY, **{"elevenlabs-signature": form})).status_code for form in forms}

    assert set(answers.values()) == {200}, answers


async def test_a_signature_is_believed_within_the_tolerance_and_refused_beyond_it(desk: Desk) -> None:
    """Clocks differ and a retry may come late; both the past and the future end somewhere."""
    minutes = (-29, 29, -31, 31, -60 * 24, 60 * 24)
    answers = [await desk.deliver({"type": "new"}, at=time.time() + each * MINUTE) for each in minutes]

    assert [answer.status_code for answer in answers] == [200, 200, 401, 401, 401, 401]


async def test_the_tolerance_is_a_setting(tmp_path: Path, elevenlabs: FakeElevenLabs) -> None:
    """With one of an hour, three quarters of an hour are fine."""
    async with running_api(tmp_path, elevenlabs_url=elevenlabs.url, webhook_tolerance_minutes=60) as api:
        await api.configure({"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key})
        desk = Desk(api, elevenlabs, elevenlabs.settings["webhooks"]["post_call_webhook_id"])

        assert (await desk.deliver({"type": "new"}, at=time.time() - 45 * MINUTE)).status_code == 200


async def test_a_bad_signature_leaves_nothing_but_a_count(desk: Desk) -> None:
    """401 each time, nothing stored, one more in the metrics."""
    body = json.dumps(payload("transcription_inbound_sip")).encode()
    moment, _, digest = signed(desk.secret, body, time.time()).removeprefix("t=").partition(",v0=")
    headers = [
        f"t={moment}",
        f"v0={digest}",
        f"t=soon,v0={digest}",
        f"t={moment},t={moment},v0={digest}",
        f"t=1e9,v0={digest}",
        f"t={moment},v0={digest.upper()}",
        f"t={moment},v0={'0' * 64}",
        f"t={moment},v0=",
        f"t={moment},v1={digest}",
        "x" * 20_000,
    ]
    answers = {header: await desk.send(body, **{"ElevenLabs-Signature": header}) for header in headers}
    metrics = (await desk.api.http.get("/metrics")).text

    assert {header: answer.status_code for header, answer in answers.items()} == dict.fromkeys(headers, 401)
    assert all(set(answer.json()) == {"success", "error"} for answer in answers.values())
    assert f'relay_signatures_refused_total{{vendor="elevenlabs"}} {len(headers)}.0' in metrics
    assert await nothing_is_stored(desk.api)


async def test_a_body_changed_on_its_way_is_refused(desk: Desk) -> None:
    """One byte is enough."""
    callback = desk.workspace.delivery(desk.webhook_id, payload("transcription_inbound_sip"))
    response = await desk.send(callback.body.replace(b"Perfect.", b"Horrid!."), **callback.headers)

    assert response.status_code == 401
    assert await nothing_is_stored(desk.api)


async def test_nobody_is_told_what_is_wrong_with_a_body_before_they_are_believed(desk: Desk) -> None:
    """Rubbish without a signature or a token is 401, with one 400."""
    good = {"ElevenLabs-Signature": signed(desk.secret, b"{", time.time())}

    assert [(await desk.send(b"{")).status_code, (await desk.send(b"{", **good)).status_code] == [401, 400]


async def test_the_bearer_tool_secret_is_believed_as_well(desk: Desk) -> None:
    """For workspaces that were set up by hand."""
    secret = desk.api.demo.tool_secret.get_secret_value()
    # A webhook made by hand is signed as well, with a secret that nobody here knows, and names no organization.
    signed = {"ElevenLabs-Signature": f"t={int(time.time())},v0={'0' * 64}"}
    response = await desk.api.post(POST_CALL, payload("transcription_inbound_sip"), secret, headers=signed)
    refused = await desk.api.post(POST_CALL, payload("transcription_older_form"), "0" * 64)

    assert call_id(response) == (await rows(desk.api, Call))[0].id
    assert refused.status_code == 401


async def another(desk: Desk, name: str = "Other") -> tuple[Desk, str]:
    """Have one more organization with a workspace and a webhook of its own; return its id too."""
    api = desk.api
    other = await administer.create_organization(api.relay, name, "CA")
    await administer.add_phone_number(api.relay, other.id, "+14165550000")
    desk.workspace.settings["webhooks"]["post_call_webhook_id"] = None
    for webhook in desk.workspace.webhooks.values():
        webhook["webhook_url"] = "https://elsewhere.example/"
    changes = VoiceAiChanges(
        columns={"ai_voice_provider": "elevenlabs"}, elevenlabs_api_key=SecretStr(desk.workspace.api_key)
    )
    await configure_voice_ai(api.relay, other.id, changes, Actor())
    return replace(desk, webhook_id=desk.workspace.settings["webhooks"]["post_call_webhook_id"]), other.id


@pytest.mark.parametrize("hint", ["own", "none", "the other's", "rubbish"])
async def test_the_secret_alone_tells_whose_call_it_is(desk: Desk, hint: str) -> None:
    """The header that names the organization only says what to try; a wrong one finds nobody."""
    theirs, other_id = await another(desk)
    document = payload("transcription_inbound_sip")
    callback = theirs.workspace.delivery(theirs.webhook_id, document)
    hints = {"own": other_id, "the other's": desk.api.organization_id, "rubbish": "x" * 24}
    headers = {name: value for name, value in callback.headers.items() if name != "X-Relay-Organization"}
    headers |= {"X-Relay-Organization": hints[hint]} if hint in hints else {}
    response = await desk.send(callback.body, **headers)
    owners = [call.organization_id for call in await rows(desk.api, Call)]

    if hint == "the other's":
        assert (response.status_code, owners) == (401, [])
    else:
        assert (response.status_code, owners) == (200, [other_id])


async def unnamed(desk: Desk) -> httpx.Response:
    """Deliver, signed, without the header that names the organization."""
    callback = desk.workspace.delivery(desk.webhook_id, {"type": "something.new"})
    return await desk.send(
        callback.body, **{name: value for name, value in callback.headers.items() if name != ORGANIZATION_HEADER}
    )


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_few_secrets_are_tried_on_a_delivery_without_its_organization(
    tmp_path: Path, elevenlabs: FakeElevenLabs, on_engine: None
) -> None:
    """It is believed while few organizations have a webhook, and refused once there are more; the header is enough."""
    async with running_api(tmp_path, elevenlabs_url=elevenlabs.url, webhook_organizations_tried=2) as api:
        await api.configure({"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key})
        desks = [Desk(api, elevenlabs, elevenlabs.settings["webhooks"]["post_call_webhook_id"])]
        outcomes = []
        for number in range(3):
            outcomes.append([(await unnamed(desk)).status_code for desk in desks])
            desks.append((await another(desks[0], f"Other {number}"))[0])
        refused = await unnamed(desks[0])
        named = [(await desk.deliver({"type": "something.new"})).status_code for desk in desks]

    assert outcomes == [[200], [200, 200], [401, 401, 401]]
    assert ORGANIZATION_HEADER in refused.json()["error"]
    assert named == [200] * 4


@pytest.mark.parametrize("counters", ["memory", "database"])
async def test_deliveries_without_their_organization_are_few_a_minute(
    tmp_path: Path, elevenlabs: FakeElevenLabs, counters: str
) -> None:
    """More of them get 429 before a secret is tried, genuine or forged; those with the header are not counted."""
    limits = {"unnamed_deliveries_per_minute_per_address": 3, "request_counters": counters}
    async with running_api(tmp_path, elevenlabs_url=elevenlabs.url, **limits) as api:
        await api.configure({"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key})
        desk = Desk(api, elevenlabs, elevenlabs.settings["webhooks"]["post_call_webhook_id"])
        forged = {"ElevenLabs-Signature": signed("0" * 64, BODY, time.time())}
        first = [(await desk.send(BODY, **forged)).status_code, (await unnamed(desk)).status_code]
        malformed = await desk.send(BODY, **{"ElevenLabs-Signature": "t=soon"})
        last = [await unnamed(desk), await unnamed(desk), await desk.send(BODY, **forged)]
        named = [(await desk.deliver({"type": "something.new"})).status_code for _ in range(5)]

    assert first == [401, 200]
    assert malformed.status_code == 401
    assert [answer.status_code for answer in last] == [200, 429, 429]
    assert int(last[1].headers["Retry-After"]) in range(1, 61)
    assert last[1].json() == {"success": False, "error": "Too many requests, please try again later"}
    assert named == [200] * 5


async def test_a_secret_nobody_can_open_stops_no_other_organization(desk: Desk) -> None:
    """Its key was lost; the deliveries of all others are tried and believed."""
    _, other_id = await another(desk)
    lost = Vault(SecretStr(Fernet.generate_key().decode())).seal("a secret of theirs")
    await desk.api.relay.database.write(lambda: voice_ai_configs.update(other_id, {"webhook_secret_sealed": lost}))
    callback = desk.workspace.delivery(desk.webhook_id, payload("transcription_inbound_sip"))
    headers = {name: value for name, value in callback.headers.items() if name != "X-Relay-Organization"}

    call_id(await desk.send(callback.body, **headers))


async def test_a_body_that_does_not_say_whose_it_is_is_hashed_up_to_a_limit(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may send one, and each organization's secret is tried on it."""
    monkeypatch.setattr("actions.receive_post_call._MOST_HASHED_BYTES", len(BODY))
    callback = desk.workspace.delivery(desk.webhook_id, payload("transcription_inbound_sip"))
    headers = {name: value for name, value in callback.headers.items() if name != "X-Relay-Organization"}
    refused = await desk.send(callback.body, **headers)

    assert refused.status_code == 401
    assert await nothing_is_stored(desk.api)


# Bad input


async def test_whatever_cannot_be_read_is_400_and_stores_nothing(desk: Desk) -> None:
    """In the operation's own envelope."""
    for body in UNREADABLE:
        response = await desk.send(body, **{"ElevenLabs-Signature": signed(desk.secret, body, time.time())})

        assert response.status_code == 400, body[:200]
        assert (response.json()["success"], set(response.json())) == (False, {"success", "error"}), body[:200]
    assert await nothing_is_stored(desk.api)


UNREADABLE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b'{"type": null}',
    b'{"type": 7}',
    b'{"type": "post_call_transcription"}',
    b'{"type": "post_call_transcription", "data": {"conversation_id": ""}}',
    b'{"type": "post_call_transcription", "data": {"conversation_id": 7}}',
    b'{"type": "post_call_audio", "data": {"conversation_id": "' + b"c" * 201 + b'"}}',
    b'{"type": "post_call_audio", "data": {"conversation_id": "conv_1"}}',
    b'{"type": "post_call_audio", "data": {"conversation_id": "conv_1", "full_audio": null}}',
    b'{"type": "post_call_audio", "data": {"conversation_id": "conv_1", "full_audio": ""}}',
    b'{"type": "post_call_audio", "data": {"conversation_id": "conv_1", "full_audio": "?"}}',
    b'{"type": "post_call_audio", "data": {"conversation_id": "conv_1", "full_audio": "QUJDREVGR0hJSktM"}}',
    b'{"type": "post_call_audio", "data": {"conversation_id": "conv_1", "full_audio": "SUQzBAAAAAAAAA="}}',
    b'{"type": "post_call_audio", "data": {"conversation_id": "conv_1", "full_audio": "SUQz',
    b'{"type": "\xff"}',
    b'{"type": "x", "n": NaN}',
    b'{"type": "x", "deep": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
]


OTHER_TYPES: list[dict[str, str]] = [{"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}]


async def test_another_type_of_body_is_415(desk: Desk, subtests: pytest.Subtests) -> None:
    """Signed or not, it is not read."""
    for headers in OTHER_TYPES:
        with subtests.test(headers=repr(headers)[:60]):
            assert (await desk.deliver(payload("audio"), headers=headers)).status_code == 415
            assert await nothing_is_stored(desk.api)


async def test_a_recording_beyond_the_limit_is_refused_whole(tmp_path: Path, elevenlabs: FakeElevenLabs) -> None:
    """400 with the limit in it, and nothing of it stays."""
    async with running_api(tmp_path, elevenlabs_url=elevenlabs.url, max_recording_bytes=2048) as api:
        await api.configure({"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key})
        desk = Desk(api, elevenlabs, elevenlabs.settings["webhooks"]["post_call_webhook_id"])
        response = await desk.deliver(payload("audio", full_audio=mp3_base64(100)))

        assert (response.status_code, "2048" in response.json()["error"]) == (400, True)
        assert await nothing_is_stored(api)


async def test_a_store_that_is_down_is_500_and_the_next_delivery_is_stored(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half: no row without its object."""

    async def broken(*_: Any) -> Any:
        raise StorageUnavailable("The store is down")

    with monkeypatch.context() as patch:
        patch.setattr(desk.api.relay.store, "store", broken)
        refused = await desk.deliver(payload("audio"))
    empty = await nothing_is_stored(desk.api)

    assert (refused.status_code, empty) == (500, True)
    assert (await desk.deliver(payload("audio"))).status_code == 200
    assert len(await rows(desk.api, HeldRecording)) == len(desk.api.objects()) == 1


# Read back


async def test_the_call_is_read_back_with_its_recording(desk: Desk) -> None:
    """By the conversation's id in the history, and the bytes behind the link."""
    recorded = call_id(await desk.deliver(payload("transcription_inbound_sip")))
    await desk.deliver(payload("audio"))
    token = desk.api.superadmin_token
    history = (await get(desk.api, "/api/calls/history", token, externalCallId=CONVERSATION)).json()
    recording = (await get(desk.api, f"/api/calls/{recorded}/recording", token)).json()
    audio = await desk.api.http.get(recording["audioUrl"].removeprefix("https://relay.example"))

    assert [call["callId"] for call in history["calls"]] == [recorded]
    assert (audio.status_code, audio.content) == (200, AUDIO)


# Bodies that come in pieces


async def in_pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_a_body_may_come_in_pieces_of_any_size(desk: Desk, size: int) -> None:
    """Chunked, without a length, as ElevenLabs sends audio."""
    document = payload("audio", full_audio=mp3_base64(3))
    callback = desk.workspace.delivery(desk.webhook_id, document)
    response = await desk.send(in_pieces(callback.body, size), **callback.headers)

    assert response.status_code == 200
    assert [path.read_bytes() for path in desk.api.objects()] == [mp3(3)]


@pytest.mark.parametrize("frames", [400, 4000])
@pytest.mark.parametrize("escape", ["none", "slashes", "every letter"])
async def test_large_audio_is_decoded_to_the_byte(desk: Desk, frames: int, escape: str) -> None:
    """Across every boundary of the pieces it is read in, however its text is escaped."""
    document = {"type": "post_call_audio", "data": {"full_audio": "@", "conversation_id": "conv_large", "z": "\\"}}
    text = {
        "none": mp3_base64(frames),
        "slashes": mp3_base64(frames).replace("/", "\\/"),
        "every letter": r"\u00" + mp3_base64(frames).encode().hex(" ").replace(" ", r"\u00"),
    }[escape]
    body = json.dumps(document).replace('"@"', f'"{text}"').encode()
    response = await desk.send(body, **{"ElevenLabs-Signature": signed(desk.secret, body, time.time())})

    assert response.status_code == 200, response.text
    assert [path.read_bytes() for path in desk.api.objects()] == [mp3(frames)]
