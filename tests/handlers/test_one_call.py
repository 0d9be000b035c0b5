"""One conversation is one call: a report and a push of it meet, in either order, whichever id each goes by."""

import asyncio
import contextlib
from typing import Any

import pytest

from actions import record_call
from actions.apply_retention import apply_retention, due, set_retention
from actions.attach_recording import attach_recording
from actions.erase_contact import erase_contact
from actions.turns import Turns
from domain.audit import Actor
from persistence.models import Call, Contact, ContactNote, HeldRecording, Recording
from persistence.retention import Retention
from tests.handlers.test_erasure_races import audio
from tests.handlers.test_post_call import CONVERSATION, OURS, SUMMARY, Desk, call_id, desk, names, payload, rows
from tests.support.audio import mp3, mp3_base64
from tests.support.reading import get

__all__ = ["desk"]


def pushed(**changes: Any) -> dict[str, Any]:
    body = {
        "direction": "inbound",
        "fromNumber": "+14165550142",
        "toNumber": OURS,
        "duration": 47,
        "status": "completed",
        "transcript": [{"role": "user", "message": "My crown came loose."}],
        "summary": "Crown.",
        "recording": mp3_base64(),
        "callerName": "Robin Crown",
        "externalCallId": "vendor-7",
        "metadata": {"conversation_id": CONVERSATION, "ticket": 7},
    } | changes
    return {name: value for name, value in body.items() if value is not None}


@pytest.mark.parametrize("external_call_id", ["vendor-7", CONVERSATION, None])
async def test_push_after_the_report_adds_what_the_report_lacked(desk: Desk, external_call_id: str | None) -> None:
    """Its id, name, metadata and recording are kept; what was reported stays; the answer names the differences."""
    recorded = call_id(await desk.deliver(payload("transcription_inbound_sip")))
    head = await desk.api.head()
    body = pushed(externalCallId=external_call_id)
    answer = await desk.api.ingest(body)
    (call,) = await rows(desk.api, Call)
    contact = await desk.api.read(lambda: Contact.get(Contact.id == call.contact_id))

    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "deduplicated": True,
        "callId": recorded,
        "payloadMatches": False,
        "differingFields": ["summary", "transcript"],
    }
    assert (call.summary, call.caller_name) == (SUMMARY, "Robin Crown")
    assert call.external_call_id == (external_call_id or CONVERSATION)
    assert contact.name == "Robin Crown"
    shown = (await get(desk.api, f"/api/calls/{recorded}")).json()["call"]
    assert shown["providerMetadata"]["metadata"] == body["metadata"]
    assert shown["hasRecording"] is True
    assert await names(desk.api, head) == ["call_recording_ready"]
    assert [path.read_bytes() for path in desk.api.objects()] == [mp3()]


@pytest.mark.parametrize("external_call_id", ["vendor-7", CONVERSATION, None])
async def test_repeat_of_a_push_that_met_its_report_gets_the_same_answer(
    desk: Desk, external_call_id: str | None
) -> None:
    """It stores and announces nothing more, and neither does another delivery of the report."""
    body = pushed(externalCallId=external_call_id)
    call_id(await desk.deliver(payload("transcription_inbound_sip")))
    first = (await desk.api.ingest(body)).json()
    head, before = await desk.api.head(), await rows(desk.api, Call)
    again = (await desk.api.ingest(body)).json()
    call_id(await desk.deliver(payload("transcription_inbound_sip")))

    assert again == first
    assert await desk.api.head() == head
    assert [row.__data__ for row in await rows(desk.api, Call)] == [row.__data__ for row in before]


async def test_push_that_agrees_with_the_report_is_told_so(desk: Desk) -> None:
    """A number in another spelling and an id of its own are no differences."""
    call_id(await desk.deliver(payload("transcription_inbound_sip")))
    (call,) = await rows(desk.api, Call)
    body = {
        "direction": call.direction,
        "fromNumber": call.from_number,
        "toNumber": call.to_number,
        "duration": call.duration,
        "status": "no-answer",
        "externalCallId": "vendor-7",
        "metadata": {"conversation_id": CONVERSATION},
    }
    answer = (await desk.api.ingest(body)).json()

    assert answer["differingFields"] == ["status"]


async def test_second_push_of_another_id_is_a_call_of_its_own(desk: Desk) -> None:
    """Two legs of one conversation, pushed under two ids, are two calls."""
    call_id(await desk.deliver(payload("transcription_inbound_sip")))
    answers = [await desk.api.ingest(pushed(externalCallId=name)) for name in ("vendor-7", "vendor-8")]

    assert [answer.status_code for answer in answers] == [200, 201]
    assert len(await rows(desk.api, Call)) == 2


@pytest.mark.parametrize("second", ["vendor-7", "vendor-8"])
async def test_pushes_of_a_reported_call_at_once_keep_their_audio_apart(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """Both have stored their audio before either commits, as in two processes: what the first stored stays."""
    call_id(await desk.deliver(payload("transcription_inbound_sip")))
    both, commit = asyncio.Barrier(2), record_call._commit_push

    async def together(*arguments: Any) -> bool:
        await both.wait()
        return await commit(*arguments)

    monkeypatch.setattr(record_call, "_commit_push", together)
    monkeypatch.setattr(Turns, "of", lambda *_: contextlib.nullcontext())
    bodies = [pushed(externalCallId=name) for name in ("vendor-7", second)]
    answers = await asyncio.gather(*map(desk.api.ingest, bodies))
    again = [await desk.api.ingest(body) for body in bodies]
    keys = [recording.key for recording in await rows(desk.api, Recording)]
    objects = [str(path.relative_to(desk.api.data_dir / "recordings")) for path in desk.api.objects()]

    assert sorted(answer.status_code for answer in answers) == [200, 200 if second == "vendor-7" else 503]
    assert {answer.status_code for answer in again} <= {200, 201}
    assert sorted(keys) == objects
    assert {call.external_call_id for call in await rows(desk.api, Call)} == {"vendor-7", second}


async def test_call_that_met_its_push_is_found_by_either_id(desk: Desk) -> None:
    """The list by `externalCallId` knows the conversation, too, which the push's own id replaced."""
    recorded = call_id(await desk.deliver(payload("transcription_inbound_sip")))
    await desk.api.ingest(pushed())
    for name in (CONVERSATION, "vendor-7"):
        found = (await get(desk.api, f"/api/calls/history?externalCallId={name}")).json()
        assert ([call["_id"] for call in found["calls"]], found["total"]) == ([recorded], 1)


async def test_bad_recording_in_the_push_is_refused_and_adds_nothing(desk: Desk) -> None:
    """400, and the next try is the first."""
    call_id(await desk.deliver(payload("transcription_inbound_sip")))
    bad = await desk.api.ingest(pushed(recording="bm90IGF1ZGlv"))
    (call,) = await rows(desk.api, Call)

    assert bad.status_code == 400
    assert (call.external_call_id, call.caller_name, desk.api.objects()) == (CONVERSATION, None, [])
    assert (await desk.api.ingest(pushed())).status_code == 200


async def test_push_for_a_reported_call_of_an_erased_person_adds_nothing(desk: Desk) -> None:
    """It is known by its conversation, and nothing of the person comes back."""
    recorded = call_id(await desk.deliver(payload("transcription_inbound_sip")))
    (call,) = await rows(desk.api, Call)
    await erase_contact(desk.api.relay, desk.api.organization_id, call.contact_id, Actor())
    answer = await desk.api.ingest(pushed())

    assert answer.json() == {"success": True, "deduplicated": True, "callId": recorded}
    assert (desk.api.objects(), await rows(desk.api, Recording)) == ([], [])


async def test_report_and_push_at_once_are_one_call(desk: Desk) -> None:
    """Whichever is faster: one call with the push's id, one recording, one note."""
    for number in range(8):
        conversation = f"conv_both_{number}"
        body = pushed(externalCallId=f"vendor-{number}", metadata={"conversation_id": conversation})
        document = payload("transcription_inbound_sip", conversation_id=conversation)
        first, second = await asyncio.gather(desk.api.ingest(body), desk.deliver(document))
        assert first.status_code in (200, 201)
        assert first.json()["callId"] == call_id(second)

    assert {call.external_call_id for call in await rows(desk.api, Call)} == {f"vendor-{n}" for n in range(8)}
    assert [len(await rows(desk.api, model)) for model in (Call, Recording, ContactNote)] == [8, 8, 8]
    assert len(desk.api.objects()) == 8


@pytest.mark.parametrize("audio_first", [True, False])
async def test_audio_finds_the_call_by_its_external_id_too(desk: Desk, audio_first: bool) -> None:
    """A push named one conversation as its id and another in its metadata; audio of either is attached."""
    body = pushed(externalCallId="conv_x", metadata={"conversation_id": "conv_y"}, status="busy", recording=None)
    if audio_first:
        await attach_recording(desk.api.relay, desk.api.organization_id, "conv_x", audio())
    recorded = (await desk.api.ingest(body)).json()["callId"]
    if not audio_first:
        await attach_recording(desk.api.relay, desk.api.organization_id, "conv_x", audio())
    (recording,) = await rows(desk.api, Recording)

    assert recorded == recording.call_id
    assert await rows(desk.api, HeldRecording) == []


async def test_audio_held_under_either_id_of_a_call_is_erased_with_its_person(desk: Desk) -> None:
    """Held by an earlier version, which looked at one of the two ids."""
    body = pushed(externalCallId="conv_x", metadata={"conversation_id": "conv_y"}, status="busy", recording=None)
    await attach_recording(desk.api.relay, desk.api.organization_id, "conv_other", audio())
    contact_id = (await desk.api.ingest(body)).json()["contactId"]
    await desk.api.relay.database.write(lambda: HeldRecording.update(elevenlabs_conversation_id="conv_x").execute())
    await erase_contact(desk.api.relay, desk.api.organization_id, contact_id, Actor())

    assert (await rows(desk.api, HeldRecording), desk.api.objects()) == ([], [])


async def test_audio_that_retention_removed_does_not_come_back(desk: Desk) -> None:
    """Neither by another delivery of the audio nor by a push."""
    api = desk.api
    call_id(await desk.deliver(payload("transcription_inbound_sip")))
    call_id(await desk.deliver(payload("audio")))
    await set_retention(api.relay, api.organization_id, Retention(recordings=1))
    long_ago = "2026-01-01T00:00:00.000Z"
    await api.relay.database.write(lambda: Recording.update(created_at=long_ago).execute())
    (found,) = await due(api.relay)
    removed = [count async for count in apply_retention(api.relay, found)]
    call_id(await desk.deliver(payload("audio")))
    await api.ingest(pushed())

    assert sum(removed) == 1
    assert (await rows(api, Recording), await rows(api, HeldRecording), api.objects()) == ([], [], [])
