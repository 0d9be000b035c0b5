import asyncio
import base64
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from actions import administer
from domain.documents import load
from domain.principals import Role
from domain.times import from_wire
from persistence import phone_numbers, recordings, tool_secrets, voice_ai_configs
from persistence.models import Call, Contact, Conversation, Event, Recording, TransferRequest
from tests.support.api import Api, running_api
from tests.support.audio import mp3, mp3_base64
from tests.support.faulty_http import FakeVendor, Fault, Received, Reply
from tests.support.vendors import FakeElevenLabs
from tests.support.waiting import until

pytestmark = pytest.mark.any_engine

THEIRS, OURS = "+14165550123", "+12362320246"
TURNS = [
    {"role": "agent", "message": "Hi, this is Alex.", "timestamp": 0.5},
    {"role": "user", "message": "Hey Alex.", "timestamp": 2.8},
    {"role": "agent", "message": "Bye."},
]


def completed(**changes: Any) -> dict[str, Any]:
    """Return a finished call; a change to None leaves the field out."""
    body = {
        "direction": "inbound",
        "fromNumber": THEIRS,
        "toNumber": OURS,
        "duration": 154,
        "status": "completed",
        "transcript": TURNS,
        "summary": "Confirmed Friday at 2pm.",
        "recording": mp3_base64(),
        "externalCallId": "vendor-1",
        "agentName": "Alex",
        "callStartTime": "2026-05-15T09:10:00.000Z",
    } | changes
    return {name: value for name, value in body.items() if value is not None}


def missed(**changes: Any) -> dict[str, Any]:
    """Return a call nobody took."""
    unheard = {"transcript": None, "summary": None, "recording": None, "agentName": None}
    return completed(**{"status": "no-answer", "duration": 0} | unheard | changes)


class RecordingHost(FakeVendor):
    """A place that serves one recording."""

    def __init__(self, audio: bytes) -> None:
        super().__init__()
        self.audio = audio

    def answer(self, request: Received) -> Reply:
        return Reply(200, body=self.audio, headers={"Content-Type": "application/octet-stream"})


@pytest.fixture
async def host() -> AsyncIterator[RecordingHost]:
    async with RecordingHost(mp3(200)) as host:
        yield host


async def rows(api: Api, model: Any) -> list[Any]:
    return list(await api.read(lambda: list(model.select().order_by(model.id))))


async def nothing_was_stored(api: Api) -> bool:
    stored = [await rows(api, model) for model in (Call, Conversation, Recording)]
    contacts = [contact for contact in await rows(api, Contact) if contact.phone_number == THEIRS]
    return not any(stored) and not contacts and not await api.events() and not api.objects()


# What a finished call becomes


@pytest.mark.each_engine
async def test_a_finished_call_becomes_contact_conversation_call_recording_and_events(api: Api) -> None:
    """Everything the page names is there, and can be read back."""
    response = await api.ingest(completed(metadata={"vendor": {"id": 12345678901234567890123, "x": [1.5, None]}}))
    (call,) = await rows(api, Call)
    contact = next(contact for contact in await rows(api, Contact) if contact.phone_number == THEIRS)
    (conversation,) = await rows(api, Conversation)
    recording = await api.read(lambda: recordings.of_call(api.organization_id, call.id))
    body = response.json()

    assert response.status_code == 201
    assert body == {
        "success": True,
        "callId": call.id,
        "contactId": contact.id,
        "conversationId": conversation.id,
    }
    assert (call.direction, call.from_number, call.to_number) == ("inbound", THEIRS, OURS)
    assert (call.status, call.duration, call.summary, call.agent_name) == (
        "completed",
        154,
        "Confirmed Friday at 2pm.",
        "Alex",
    )
    assert load(call.transcript) == TURNS
    assert (call.started_at, call.ended_at) == ("2026-05-15T09:10:00.000Z", "2026-05-15T09:12:34.000Z")
    assert load(call.provider_metadata) == {"metadata": {"vendor": {"id": 12345678901234567890123, "x": [1.5, None]}}}
    assert (contact.name, contact.name_is_placeholder) == ("Unknown Caller", True)
    assert (conversation.channel_type, conversation.channel_identifier) == ("voice", OURS)
    assert recording is not None
    assert recording.key == f"org/{api.organization_id}/calls/{call.id}/recording.mp3"
    assert (recording.size, recording.sha256) == (len(mp3()), hashlib.sha256(mp3()).hexdigest())
    assert [path.read_bytes() for path in api.objects()] == [mp3()]


@pytest.mark.each_engine
async def test_the_four_events_follow_in_order(api: Api) -> None:
    """Initiated, ended, recording ready, fetch messages: with the ids and what a live view shows."""
    body = (await api.ingest(completed())).json()
    events = await api.events()
    ids = {name: body[name] for name in ("callId", "contactId", "conversationId")}

    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert {event["name"]: event["data"] for event in events} == {
        "call_initiated": ids
        | {
            "direction": "inbound",
            "from": THEIRS,
            "to": OURS,
            "externalCallId": "vendor-1",
            "startedAt": "2026-05-15T09:10:00.000Z",
            "agentName": "Alex",
        },
        "call_ended": ids
        | {
            "direction": "inbound",
            "status": "completed",
            "duration": 154.0,
            "endedAt": "2026-05-15T09:12:34.000Z",
            "summary": "Confirmed Friday at 2pm.",
        },
        "call_recording_ready": ids | {"duration": 154.0, "contentType": "audio/mpeg", "size": len(mp3())},
        "fetch_messages": ids | {"channelType": "voice"},
    }
    assert [event["name"] for event in events] == [
        "call_initiated",
        "call_ended",
        "call_recording_ready",
        "fetch_messages",
    ]


async def test_a_call_nobody_took_needs_no_recording_and_tells_of_none(api: Api) -> None:
    """Transcript, summary and recording are required of completed calls only."""
    response = await api.ingest(missed())

    assert response.status_code == 201
    assert [event["name"] for event in await api.events()] == ["call_initiated", "call_ended", "fetch_messages"]


@pytest.mark.parametrize(("direction", "far", "ours"), [("inbound", THEIRS, OURS), ("outbound", OURS, THEIRS)])
async def test_the_contact_is_the_far_side(api: Api, direction: str, far: str, ours: str) -> None:
    """Who called us, or whom we called."""
    response = await api.ingest(missed(direction=direction))
    contact = next(c for c in await rows(api, Contact) if c.id == response.json()["contactId"])
    (conversation,) = await rows(api, Conversation)

    assert (contact.phone_number, conversation.channel_identifier) == (far, ours)


@pytest.mark.each_engine
async def test_calls_with_one_contact_over_one_number_share_a_conversation(api: Api) -> None:
    """The contact and the thread are found again, whatever the direction."""
    first = (await api.ingest(missed(externalCallId="a"))).json()
    second = (
        await api.ingest(missed(externalCallId="b", direction="outbound", fromNumber=OURS, toNumber=THEIRS))
    ).json()
    third = (await api.ingest(missed(externalCallId="c", toNumber="+14165550199"))).json()

    assert first["conversationId"] == second["conversationId"] != third["conversationId"]
    assert first["contactId"] == second["contactId"] == third["contactId"]


@pytest.mark.each_engine
async def test_a_name_replaces_the_placeholder_and_nothing_else(api: Api) -> None:
    """The first name that comes is kept; later ones, and blank ones, change nothing."""
    names = []
    for number, name in enumerate([None, "  ", "Sam Caller", "Somebody Else"]):
        await api.ingest(missed(externalCallId=str(number)) | ({"callerName": name} if name else {}))
        contact = next(contact for contact in await rows(api, Contact) if contact.phone_number == THEIRS)
        names.append(contact.name)

    assert names == ["Unknown Caller", "Unknown Caller", "Sam Caller", "Sam Caller"]


async def test_placeholder_sent_as_a_name_stays_the_placeholder(api: Api) -> None:
    """A system that read the name here may send it back; a real name still replaces it."""
    names = []
    for number, name in enumerate(["Unknown Caller", "Sam Caller"]):
        await api.ingest(missed(externalCallId=str(number), callerName=name))
        contact = next(contact for contact in await rows(api, Contact) if contact.phone_number == THEIRS)
        names.append((contact.name, contact.name_is_placeholder))

    assert names == [("Unknown Caller", True), ("Sam Caller", False)]


async def test_last_activity_of_a_conversation_never_goes_back(api: Api) -> None:
    """An old call that is imported afterwards changes nothing."""
    for number, start in enumerate(["2026-05-15T09:00:00.000Z", "2025-01-01T09:00:00.000Z"]):
        await api.ingest(missed(externalCallId=str(number), callStartTime=start))
    (conversation,) = await rows(api, Conversation)

    assert conversation.last_message_at == "2026-05-15T09:00:00.000Z"


@pytest.mark.parametrize("blank", ["", "  "])
async def test_blank_recording_of_a_call_nobody_took_is_absent(api: Api, blank: str) -> None:
    """It is accepted, and leaving it out the next time is no difference."""
    first = await api.ingest(missed(recording=blank))
    again = await api.ingest(missed())

    assert (first.status_code, again.json()["payloadMatches"]) == (201, True), first.text
    assert await rows(api, Recording) == []


async def test_blank_recording_of_a_completed_call_is_refused(api: Api) -> None:
    """It is required there, and a blank one holds nothing."""
    response = await api.ingest(completed(recording=" "))

    assert response.status_code == 400
    assert "Recording is empty" in response.text
    assert await nothing_was_stored(api)


async def test_negative_zero_is_zero(api: Api) -> None:
    """A duration of -0.0 is stored as 0 on both engines, and 0 repeats it."""
    body = json.dumps(missed()).replace('"duration": 0', '"duration": -0.0').encode()
    first = await api.ingest(body)
    again = await api.ingest(missed())
    (call,) = await rows(api, Call)

    assert (first.status_code, again.json()["payloadMatches"]) == (201, True)
    assert str(call.duration) == "0.0"


async def test_number_in_another_spelling_is_no_difference(api: Api) -> None:
    """Numbers are compared as numbers; another number differs."""
    await api.ingest(missed())
    same, other = await api.ingest(missed(fromNumber=THEIRS)), await api.ingest(missed(fromNumber="+14165550124"))

    assert same.json()["payloadMatches"] is True
    assert other.json()["differingFields"] == ["fromNumber"]


async def test_the_start_defaults_to_now(api: Api) -> None:
    """A call without a start time has just ended by our clock."""
    await api.ingest(missed(callStartTime=None))
    (call,) = await rows(api, Call)

    assert abs((from_wire(call.started_at) - from_wire(call.created_at)).total_seconds()) < 5


@pytest.mark.each_engine
async def test_fields_the_contract_does_not_name_are_kept(api: Api) -> None:
    """They are accepted and can be found again."""
    response = await api.ingest(missed(vendorRegion="eu-1", cost={"cents": 12}))
    (call,) = await rows(api, Call)

    assert response.status_code == 201
    assert load(call.provider_metadata) == {"additional": {"vendorRegion": "eu-1", "cost": {"cents": 12}}}


async def test_a_transfer_asked_for_in_the_call_is_tied_to_it(api: Api) -> None:
    """The conversation id of the agent says which call it became."""
    await api.tool("transfer", {"reason": "Supervisor", "conversation_id": "conv_1"})
    body = (await api.ingest(missed(metadata={"conversation_id": "conv_1"}))).json()
    (request,) = await rows(api, TransferRequest)

    assert (request.call_id, request.contact_id) == (body["callId"], body["contactId"])


# Recordings


async def test_base64_and_data_uris_are_decoded(api: Api, subtests: pytest.Subtests) -> None:
    """What is stored is the audio itself, byte for byte."""
    prefixes = ["", "data:audio/mpeg;base64,", "data:audio/mp3;base64,", "DATA:AUDIO/MPEG;BASE64,"]
    for number, prefix in enumerate(prefixes, 1):
        with subtests.test(prefix=prefix):
            call = completed(externalCallId=prefix or None, recording=prefix + mp3_base64())

            assert (await api.ingest(call)).status_code == 201
            assert [path.read_bytes() for path in api.objects()] == [mp3()] * number


@pytest.mark.parametrize("prefix", ["", "data:audio/mpeg;base64,"])
@pytest.mark.parametrize("slash", ["/", "\\/"])
async def test_a_large_recording_is_stored_byte_for_byte_however_its_slashes_are_written(
    api: Api, prefix: str, slash: str
) -> None:
    """It is decoded piece by piece, and a repeat of the call knows it again or says that it is another."""
    one, other = mp3(2_000), mp3(1_999) + bytes(417)
    call = [completed(recording=prefix + base64.b64encode(audio).decode()) for audio in (one, other)]
    body = json.dumps(call[0]).replace("/", slash).encode()
    first = await api.ingest(body)
    again = (await api.ingest(call[0])).json()
    differing = (await api.ingest(call[1])).json()

    assert first.status_code == 201
    assert [path.read_bytes() for path in api.objects()] == [one]
    assert again["payloadMatches"] is True
    assert differing["differingFields"] == ["recording"]


async def test_a_large_recording_that_is_none_is_refused_and_nothing_is_stored(
    api: Api, subtests: pytest.Subtests
) -> None:
    """Wherever it goes wrong: what was stored until then is gone again, and the same ids can be used."""
    audio = mp3_base64(2_000)
    damages = list(itertools.product(["!", "=", "\n", "\udc00", "\0", "A"], [0, 700_000, -1]))
    for number, (damage, place) in enumerate(damages):
        with subtests.test(damage=repr(damage), place=place):
            recording = audio[:place] + damage + audio[place:]
            response = await api.ingest(completed(externalCallId=f"vendor-{number}", recording=recording))

            assert response.status_code == 400
            assert await nothing_was_stored(api)

    for number in range(len(damages)):
        assert (await api.ingest(completed(externalCallId=f"vendor-{number}"))).status_code == 201


async def test_a_url_is_downloaded(api: Api, host: RecordingHost) -> None:
    """The recording behind a public address is fetched once and stored."""
    response = await api.ingest(completed(recording=f"{host.url}/recordings/1.mp3"))

    assert response.status_code == 201
    assert [path.read_bytes() for path in api.objects()] == [host.audio]
    assert len(host.requests) == 1


NO_RECORDINGS: list[str] = [
    "",
    "not base64!",
    base64.b64encode(b"this is text, not audio").decode(),
    mp3_base64()[:-1],
    mp3_base64() + "\n",
    "data:text/plain;base64," + mp3_base64(),
    "data:audio/mpeg," + mp3_base64(),
    "ftp://vendor.example/recording.mp3",
    "file:///etc/passwd",
    "http://10.0.0.1/recording.mp3",
    "http://169.254.169.254/latest/meta-data",
    "https://user:secret@vendor.example/recording.mp3",
    "http://vendor.invalid/recording.mp3",
]


async def test_a_recording_that_is_none_is_refused_and_nothing_is_stored(api: Api, subtests: pytest.Subtests) -> None:
    """One sentence says why, and the same id can be used again."""
    for number, recording in enumerate(NO_RECORDINGS):
        with subtests.test(recording=repr(recording)[:60]):
            response = await api.ingest(completed(externalCallId=f"vendor-{number}", recording=recording))
            body = response.json()

            assert response.status_code == 400
            assert body["success"] is False
            assert 0 < len(body["error"]) < 300
            assert recording[:12] not in body["error"] or len(recording) < 12
            assert await nothing_was_stored(api)

    for number in range(len(NO_RECORDINGS)):
        assert (await api.ingest(completed(externalCallId=f"vendor-{number}"))).status_code == 201


async def test_an_address_that_does_not_deliver_is_refused_and_nothing_is_stored(
    api: Api, host: RecordingHost, subtests: pytest.Subtests
) -> None:
    """A download that fails half-way leaves no half of anything, and the same ids can be used."""
    behaviours: list[Fault | Reply] = [
        Reply(404, body=b"gone"),
        Reply(200, body=b"<html>Please log in</html>"),
        Reply(200, body=b""),
        Reply(500),
        Fault.RESET_AFTER_READING,
        Fault.RESET_INSIDE_BODY,
    ]
    for number, behaviour in enumerate(behaviours):
        with subtests.test(behaviour=repr(behaviour)):
            host.behave(behaviour)
            response = await api.ingest(completed(externalCallId=f"vendor-{number}", recording=host.url))

            assert response.status_code == 400
            assert "ecording" in response.json()["error"]
            assert await nothing_was_stored(api)

    for number in range(len(behaviours)):
        call = completed(externalCallId=f"vendor-{number}", recording=host.url)
        assert (await api.ingest(call)).status_code == 201


async def test_a_recording_over_the_limit_is_refused(tmp_path: Path, host: RecordingHost) -> None:
    """The limit holds for what is decoded and for what is downloaded."""
    async with running_api(tmp_path, max_recording_bytes=20_000) as api:
        inline = await api.ingest(completed(recording=mp3_base64(100)))
        linked = await api.ingest(completed(recording=host.url))

        assert (inline.status_code, linked.status_code) == (400, 400)
        assert await nothing_was_stored(api)


async def test_a_store_that_cannot_be_written_fails_the_call_and_serves_again_afterwards(api: Api) -> None:
    """Nothing is stored, nothing is announced, and the id is free."""
    folder = api.data_dir / "recordings"
    moved = folder.rename(api.data_dir / "elsewhere") if folder.exists() else None
    folder.write_text("a file where the folder should be")
    response = await api.ingest(completed())
    folder.unlink()
    if moved:
        moved.rename(folder)

    assert response.status_code in (500, 503)
    assert response.json()["success"] is False
    assert await nothing_was_stored(api)
    assert (await api.ingest(completed())).status_code == 201


@pytest.mark.each_engine
async def test_a_transaction_that_fails_takes_its_recording_with_it(api: Api) -> None:
    """The object was stored before the commit; when the commit fails it goes again."""
    taken = {"organization": api.organization_id, "sequence": 3, "name": "x", "at": "", "data": "{}"}
    await api.relay.database.write(lambda: Event.create(**taken))
    response = await api.ingest(completed())
    await api.relay.database.write(lambda: Event.delete().execute())

    assert response.status_code == 500
    assert response.json() == {"success": False, "error": "Internal server error"}
    assert await nothing_was_stored(api)
    assert (await api.ingest(completed())).status_code == 201


# Bad calls


NEEDED_WHEN_COMPLETED: list[str] = ["transcript", "summary", "recording"]


async def test_a_completed_call_needs_its_transcript_summary_and_recording(api: Api, subtests: pytest.Subtests) -> None:
    """The first missing field is named in the page's words."""
    for field in NEEDED_WHEN_COMPLETED:
        with subtests.test(field=repr(field)[:60]):
            response = await api.ingest(completed(**{field: None}))

            assert response.status_code == 400
            assert response.json() == {"success": False, "error": f"Missing required field: {field}"}


REQUIRED: list[str] = ["direction", "fromNumber", "toNumber", "duration", "status"]


async def test_every_call_needs_the_required_fields(api: Api, subtests: pytest.Subtests) -> None:
    """The first missing field is named in the page's words."""
    for field in REQUIRED:
        with subtests.test(field=repr(field)[:60]):
            response = await api.ingest(
                missed(**{field: None}) if field != "direction" else {**missed(), "direction": None}
            )
            body = {name: value for name, value in missed().items() if name != field}
            response = await api.ingest(body)

            assert response.json() == {"success": False, "error": f"Missing required field: {field}"}


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"duration": -1}, "duration"),
    ({"duration": "154"}, "duration"),
    ({"duration": 1e300}, "duration"),
    ({"fromNumber": "4165550123"}, "fromNumber"),
    ({"toNumber": "+0123"}, "toNumber"),
    ({"fromNumber": "sip:alex@example.com"}, "fromNumber"),
    ({"status": "ringing"}, "status"),
    ({"direction": "sideways"}, "direction"),
    ({"transcript": "Agent: hi"}, "transcript"),
    ({"transcript": [{"role": "robot", "message": "x"}]}, "transcript"),
    ({"transcript": [{"role": "agent"}]}, "transcript"),
    ({"transcript": [{"role": "agent", "message": "x", "mood": "calm"}]}, "transcript"),
    ({"metadata": []}, "metadata"),
    ({"callStartTime": "yesterday"}, "callStartTime"),
    ({"callStartTime": "2026-05-15"}, "callStartTime"),
    ({"callStartTime": "0001-01-01T00:00:00+23:00"}, "callStartTime"),
    ({"externalCallId": 7}, "externalCallId"),
    ({"summary": ["x"]}, "summary"),
]


async def test_a_field_that_makes_no_sense_is_named_and_nothing_is_stored(api: Api, subtests: pytest.Subtests) -> None:
    """One problem, the first, in one sentence."""
    for changes, named in BAD_FIELDS:
        with subtests.test(changes=repr(changes)[:60]):
            response = await api.ingest(completed(**changes))
            body = response.json()

            assert response.status_code == 400, body
            assert body["success"] is False
            assert named in body["error"]
            assert await nothing_was_stored(api)


# Repeats


async def test_a_repeat_returns_the_first_call_and_touches_nothing(api: Api, host: RecordingHost) -> None:
    """Nothing is downloaded, stored or announced a second time."""
    body = completed(recording=host.url)
    first = await api.ingest(body)
    head, objects = await api.head(), api.objects()
    again = await api.ingest(body)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {
        "success": True,
        "deduplicated": True,
        "callId": first.json()["callId"],
        "payloadMatches": True,
    }
    assert (await api.head(), api.objects(), len(host.requests)) == (head, objects, 1)


async def test_a_repeat_that_says_something_else_is_told_which_fields_differ(api: Api) -> None:
    """Names only; the first call stays as it was."""
    await api.ingest(completed())
    response = await api.ingest(
        completed(summary="Something else.", duration=155, agentName=None, callerName="New", recording=mp3_base64(41))
    )
    (call,) = await rows(api, Call)

    assert response.status_code == 200
    assert response.json()["payloadMatches"] is False
    assert response.json()["differingFields"] == ["agentName", "callerName", "duration", "recording", "summary"]
    assert call.summary == "Confirmed Friday at 2pm."


async def test_even_a_bad_recording_in_a_repeat_is_only_a_difference(api: Api) -> None:
    """A repeat is recognised before its recording is looked at."""
    await api.ingest(completed())
    response = await api.ingest(completed(recording="http://vendor.invalid/x.mp3"))

    assert (response.status_code, response.json()["differingFields"]) == (200, ["recording"])


@pytest.mark.each_engine
async def test_fifty_at_once_are_one_call(api: Api, host: RecordingHost) -> None:
    """One 201, forty-nine 200, one row, one object, one download, four events."""
    body = completed(recording=host.url)
    responses = await asyncio.gather(*[api.ingest(body) for _ in range(50)])
    statuses = sorted(response.status_code for response in responses)

    assert statuses == [200] * 49 + [201]
    assert len({response.json()["callId"] for response in responses}) == 1
    assert len(await rows(api, Call)) == len(api.objects()) == len(host.requests) == 1
    assert len(await api.events()) == 4


@pytest.mark.each_engine
async def test_a_failed_try_does_not_burn_the_id(api: Api) -> None:
    """Whatever was wrong, the same id is new the next time."""
    for bad in (completed(summary=None), completed(recording="nonsense"), completed(duration=-1)):
        assert (await api.ingest(bad)).status_code == 400
    assert (await api.ingest(completed())).status_code == 201


@pytest.mark.parametrize("blank", [None, "", "   "])
async def test_without_an_id_every_call_is_new(api: Api, blank: str | None) -> None:
    """A blank id is no id; calls are never matched by numbers and time."""
    body = {name: value for name, value in missed().items() if name != "externalCallId"}
    body |= {} if blank is None else {"externalCallId": blank}
    responses = [await api.ingest(body) for _ in range(3)]

    assert [response.status_code for response in responses] == [201, 201, 201]
    assert len(await rows(api, Call)) == 3


@pytest.mark.each_engine
async def test_the_same_id_of_two_organizations_is_two_calls(api: Api) -> None:
    """An id is the outside's, and counts within its organization."""
    other = await administer.create_organization(api.relay, "Other")
    user = await administer.create_user(
        api.relay,
        other.id,
        email="other@example.com",
        full_name="Other",
        password=api.demo.superadmin_password,
        role=Role.ADMIN,
    )
    key = await administer.api_key_of(api.relay, other.id, user.id)
    first = await api.ingest(missed())
    second = await api.post("/api/calls/ingest", missed(), key.get_secret_value())

    assert (first.status_code, second.status_code) == (201, 201)


# Configuration


async def config_of(api: Api) -> Any:
    return await api.read(lambda: voice_ai_configs.get(api.organization_id))


async def seen(api: Api) -> dict[str, Any]:
    response = await api.http.get(
        "/api/calls/voice-ai/config", headers={"Authorization": f"Bearer {api.superadmin_token}"}
    )
    config: dict[str, Any] = response.json()["config"]
    return config


@pytest.mark.each_engine
async def test_only_what_is_supplied_changes(api: Api) -> None:
    """Absent is not null, and null clears the provider."""
    await api.configure({"aiVoiceProvider": "other", "sinchEstKeyId": "key", "sinchEstTrunkId": "trunk"})
    await api.configure({"sinchEstTrunkId": "another"})
    kept = await seen(api)
    await api.configure({"aiVoiceProvider": None})
    cleared = await seen(api)

    assert (kept["aiVoiceProvider"], kept["sinchEstTrunkId"]) == ("other", "another")
    assert (cleared["aiVoiceProvider"], cleared["sinchEstTrunkId"]) == (None, "another")


async def test_secrets_are_encrypted_at_rest_and_never_told_again(api: Api, tmp_path: Path) -> None:
    """No file of the database holds them, and reading the configuration says only that they are there."""
    secrets = {"elevenlabsApiKey": "sk_eleven_0123456789", "sinchEstKeySecret": "est-secret-9876", "sinchEstKeyId": "k"}
    await api.configure(secrets)
    told = json.dumps(await seen(api))
    config = await config_of(api)
    files = b"".join(path.read_bytes() for path in api.data_dir.glob("relay.db*"))

    assert api.relay.vault.open(config.elevenlabs_api_key_sealed).get_secret_value() == "sk_eleven_0123456789"
    assert api.relay.vault.open(config.sinch_est_key_secret_sealed).get_secret_value() == "est-secret-9876"
    assert (json.loads(told)["hasElevenlabsApiKey"], json.loads(told)["hasSinchEstCredentials"]) == (True, True)
    for secret in ("sk_eleven_0123456789", "est-secret-9876"):
        assert secret not in told
        assert secret.encode() not in files


async def test_a_tool_secret_is_shown_once_and_kept_as_a_digest(api: Api) -> None:
    """The answer that made it is the only one that has it."""
    response = await api.configure({"generateToolSecret": True})
    secret = response.json()["elevenlabsToolSecret"]
    stored = await api.read(lambda: tool_secrets.current(api.organization_id))
    without = await api.configure({"generateToolSecret": False})

    assert stored is not None
    assert stored.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert response.headers["cache-control"] == "no-store"
    assert "elevenlabsToolSecret" not in without.json()
    assert secret not in json.dumps(await seen(api))


BAD_CONFIGURATIONS: list[tuple[dict[str, Any], str]] = [
    ({"aiVoiceProvider": 5}, "aiVoiceProvider"),
    ({"elevenlabsApiKey": None}, "elevenlabsApiKey"),
    ({"generateToolSecret": "yes"}, "generateToolSecret"),
    ({"sinchEstKeySecret": ""}, "sinchEstKeySecret"),
    ({"elevenlabsApiKey": " "}, "elevenlabsApiKey"),
]


async def test_a_bad_configuration_is_a_structured_400(api: Api, subtests: pytest.Subtests) -> None:
    """`code`, `message` and `details` in the envelope of the calls family, and nothing saved."""
    for body, field in BAD_CONFIGURATIONS:
        with subtests.test(body=repr(body)[:60]):
            response = await api.configure({"sinchEstTrunkId": "not saved", **body})
            error = response.json()["error"]

            assert response.status_code == 400
            assert response.json()["success"] is False
            assert error["code"] == "VALIDATION_ERROR"
            assert field in error["message"]
            assert error["details"][0]["field"] == field
            assert await config_of(api) is None


async def test_an_empty_configuration_changes_nothing_and_succeeds(api: Api) -> None:
    """No field is required."""
    before = await seen(api)
    response = await api.configure({})

    assert response.json() == {"success": True, "message": "Configuration saved"}
    assert await seen(api) == before


async def test_the_configuration_lists_our_numbers(api: Api) -> None:
    """A reader sees which numbers calls can come in on."""
    numbers = [entry["phoneNumber"] for entry in (await seen(api))["phoneNumbers"]]
    stored = await api.read(lambda: [row.number for row in phone_numbers.everyone(api.organization_id)])

    assert numbers == stored == ["+12362320246", "+14165550199"]


# The webhook at ElevenLabs


VENDOR_SECONDS = 10


@pytest.fixture
async def configured(tmp_path: Path, elevenlabs: FakeElevenLabs) -> AsyncIterator[Api]:
    async with running_api(
        tmp_path / "var", elevenlabs_url=elevenlabs.url, elevenlabs_timeout_seconds=VENDOR_SECONDS
    ) as api:
        yield api


def provider(elevenlabs: FakeElevenLabs) -> dict[str, Any]:
    return {"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key}


async def test_saving_makes_the_webhook_and_points_finished_calls_at_it(
    configured: Api, elevenlabs: FakeElevenLabs
) -> None:
    """One webhook at our address that says whose it is, all three events, retries on, its secret kept."""
    response = await configured.configure(provider(elevenlabs))
    ((webhook_id, webhook),) = elevenlabs.webhooks.items()
    config = await config_of(configured)

    assert response.json()["success"] is True
    assert webhook["webhook_url"] == "https://relay.example/api/webhook/elevenlabs"
    assert webhook["retry_enabled"] is True
    assert webhook["request_headers"] == {"X-Relay-Organization": configured.organization_id}
    assert elevenlabs.settings["webhooks"]["post_call_webhook_id"] == webhook_id
    assert set(elevenlabs.settings["webhooks"]["events"]) >= {"transcript", "audio", "call_initiation_failure"}
    assert (
        configured.relay.vault.open(config.webhook_secret_sealed).get_secret_value() == elevenlabs.secrets[webhook_id]
    )
    assert (await seen(configured))["webhook"]["status"] == "configured"


@pytest.mark.each_engine
async def test_saving_again_and_at_once_never_makes_a_second_webhook(
    configured: Api, elevenlabs: FakeElevenLabs
) -> None:
    """Ten simultaneous saves and one more end with one webhook."""
    await asyncio.gather(*[configured.configure(provider(elevenlabs)) for _ in range(10)])
    await configured.configure({"sinchEstTrunkId": "x"})

    assert len(elevenlabs.webhooks) == 1
    assert len([request for request in elevenlabs.requests if request.method == "POST"]) == 1


@pytest.mark.parametrize(
    ("behaviour", "on"),
    [
        (Reply(401, {"detail": {"status": "invalid_api_key", "message": "Invalid API key"}}), ""),
        (Reply(500), "settings"),
        (Fault.RESET_AFTER_READING, "webhooks"),
        (Fault.HANG_AFTER_READING, "settings"),
        (Reply(200, body=b"<html>"), "webhooks"),
    ],
)
async def test_a_set_up_that_fails_does_not_fail_the_save_and_the_next_save_repairs_it(
    configured: Api, elevenlabs: FakeElevenLabs, behaviour: Fault | Reply, on: str, move_on: Callable[[float], None]
) -> None:
    """The failure can be read in the configuration; afterwards there is one webhook, in use."""
    elevenlabs.behave(behaviour, on=on, always=True)
    saving = asyncio.create_task(configured.configure(provider(elevenlabs)))
    if behaviour is Fault.HANG_AFTER_READING:
        await until(lambda: any(on in request.target for request in elevenlabs.requests))
        move_on(VENDOR_SECONDS)
    response = await saving
    # The save may be answered before the set-up has ended.
    await configured.relay.background.settle()
    failed = (await seen(configured))["webhook"]
    elevenlabs.behave()
    await configured.configure({})
    await configured.relay.background.settle()
    repaired = (await seen(configured))["webhook"]

    assert response.json() == {"success": True, "message": "Configuration saved"}
    assert (failed["status"], repaired["status"]) == ("failed", "configured")
    assert failed["lastError"]
    assert elevenlabs.api_key not in failed["lastError"]
    assert repaired["lastError"] is None
    assert len(elevenlabs.webhooks) == 1


async def test_a_create_whose_answer_was_lost_is_replaced_not_doubled(
    configured: Api, elevenlabs: FakeElevenLabs
) -> None:
    """The first webhook's secret is unknown, so it goes before another is made."""
    elevenlabs.behave(Reply(200, {"webhooks": []}), Fault.RESET_AFTER_PROCESSING, on="/v1/workspace/webhooks")
    await configured.configure(provider(elevenlabs))
    (lost,) = elevenlabs.webhooks
    await configured.configure({})
    (kept,) = elevenlabs.webhooks
    config = await config_of(configured)

    assert lost != kept
    assert config.webhook_id == kept == elevenlabs.settings["webhooks"]["post_call_webhook_id"]


async def test_a_webhook_in_use_whose_secret_is_unknown_is_left_alone_and_reported(
    configured: Api, elevenlabs: FakeElevenLabs
) -> None:
    """We never take away what somebody may rely on."""
    webhook_id = elevenlabs.add_webhook("https://relay.example/api/webhook/elevenlabs")
    elevenlabs.settings["webhooks"]["post_call_webhook_id"] = webhook_id
    await configured.configure(provider(elevenlabs))
    webhook = (await seen(configured))["webhook"]

    assert list(elevenlabs.webhooks) == [webhook_id]
    assert webhook["status"] == "failed"
    assert "in use" in webhook["lastError"]


async def test_without_a_public_address_the_failure_says_what_to_set(tmp_path: Path) -> None:
    """ElevenLabs cannot reach what it is not told."""
    async with (
        FakeElevenLabs() as elevenlabs,
        running_api(tmp_path, elevenlabs_url=elevenlabs.url, public_url="") as api,
    ):
        await api.configure(provider(elevenlabs))
        webhook = (await seen(api))["webhook"]

        assert webhook["status"] == "failed"
        assert "PUBLIC_URL" in webhook["lastError"]
        assert elevenlabs.requests == []
