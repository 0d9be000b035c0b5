"""What holds when an action is interrupted: by a lost commit, by another process, or by a server that stops."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from actions import administer
from actions.attach_recording import attach_recording
from actions.configure_voice_ai import VoiceAiChanges, configure_voice_ai
from actions.erase_contact import erase_contact
from actions.record_call import FinishedCall, record_call
from actions.relay import Relay
from actions.text_caller import TextToSend, text_caller
from app import create_app
from domain.audit import Actor
from domain.errors import CommitUnknown, Speakable
from domain.messages import OutboundText, SentText
from persistence import voice_ai_configs
from persistence.models import Call, ContactNote, HeldRecording, Message, Recording
from tests.support.api import INGEST, Api, running_api
from tests.support.audio import mp3, mp3_base64
from tests.support.interrupting import Interrupted, elsewhere
from tests.support.reading import OURS, THEIRS, contact_of, get
from tests.support.vendors import FakeElevenLabs
from tests.support.waiting import patience

CONVERSATION = "conv_1"
CALL = {
    "direction": "inbound",
    "fromNumber": THEIRS,
    "toNumber": OURS,
    "duration": 5,
    "status": "completed",
    "transcript": [{"role": "user", "message": "Hi."}],
    "summary": "Greeted.",
    "recording": mp3_base64(),
    "externalCallId": "vendor-1",
}


def finished(**changes: Any) -> FinishedCall:
    """Return a call as the action takes it."""
    call = FinishedCall("inbound", THEIRS, OURS, 5, "completed", recording=mp3_base64(), external_call_id="vendor-1")
    return dataclasses.replace(call, **changes)


async def audio() -> AsyncIterator[bytes]:
    yield mp3()


@contextlib.asynccontextmanager
async def serving(relay: Relay, api: Api) -> AsyncIterator[Callable[[Any], Coroutine[Any, Any, httpx.Response]]]:
    """Serve `relay` beside the API; yield what pushes a call into it."""
    headers = {"Authorization": f"Bearer {api.demo.api_key.get_secret_value()}"}
    transport = httpx.ASGITransport(create_app(relay))
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as http:

        async def ingest(call: Any) -> httpx.Response:
            return await http.post(INGEST, json=call)

        yield ingest


async def count(api: Api, model: Any) -> int:
    return await api.read(lambda: int(model.select().count()))


async def lose_the_answer() -> None:
    raise CommitUnknown


# A commit whose outcome nobody knows


async def test_a_recording_stays_when_the_outcome_of_its_commit_is_unknown(api: Api) -> None:
    """The caller is asked to come back, and finds the call with its audio."""
    relay = elsewhere(api.relay, Interrupted(api.relay.database, after=lose_the_answer))
    async with serving(relay, api) as ingest:
        unknown = await ingest(CALL)
    again = (await api.ingest(CALL)).json()
    linked = (await get(api, f"/api/calls/{again['callId']}/recording")).json()
    played = await api.http.get(f"/api/recordings/{linked['recordingId']}/audio?{linked['audioUrl'].partition('?')[2]}")

    assert (unknown.status_code, "retry-after" in unknown.headers) == (503, True)
    assert (again["deduplicated"], again["payloadMatches"]) == (True, True)
    assert (played.status_code, played.content) == (200, mp3())


async def test_late_audio_stays_when_the_outcome_of_its_commit_is_unknown(api: Api) -> None:
    """It waits for its call all the same, and the call takes it over."""
    relay = elsewhere(api.relay, Interrupted(api.relay.database, after=lose_the_answer))
    with pytest.raises(CommitUnknown):
        await attach_recording(relay, api.organization_id, CONVERSATION, audio())
    call = {name: value for name, value in CALL.items() if name != "recording"} | {"status": "busy"}
    await api.ingest(call | {"metadata": {"conversation_id": CONVERSATION}})
    kept = await api.read(lambda: [recording.key for recording in Recording.select()])

    assert len(kept) == 1
    assert [str(path).endswith(kept[0]) for path in api.objects()] == [True]


# Another process with the same


async def test_the_loser_of_a_race_keeps_no_audio(api: Api) -> None:
    """It has stored a recording when it learns that the call is there; the answer is that of a repeat."""

    async def be_faster() -> None:
        assert (await api.ingest(CALL)).status_code == 201

    relay = elsewhere(api.relay, Interrupted(api.relay.database, before=be_faster))
    async with serving(relay, api) as ingest:
        late = await ingest(CALL)

    assert (late.status_code, late.json()["payloadMatches"]) == (200, True)
    assert (await count(api, Call), await count(api, Recording), len(api.objects())) == (1, 1, 1)


@pytest.mark.parametrize("comes_with", ["its call", "itself"])
async def test_audio_that_is_there_already_is_not_kept_again(api: Api, comes_with: str) -> None:
    """Another process stored it between the look and the write."""

    async def be_faster() -> None:
        if comes_with == "itself":
            await attach_recording(api.relay, api.organization_id, CONVERSATION, audio())
        else:
            await record_call(api.relay, api.organization_id, finished(elevenlabs_conversation_id=CONVERSATION))

    relay = elsewhere(api.relay, Interrupted(api.relay.database, before=be_faster))
    await attach_recording(relay, api.organization_id, CONVERSATION, audio())

    assert await count(api, Recording) + await count(api, HeldRecording) == len(api.objects()) == 1


async def test_audio_that_waited_goes_when_its_call_brings_its_own(api: Api) -> None:
    """A call has one recording, and no object without a row stays behind."""
    await attach_recording(api.relay, api.organization_id, CONVERSATION, audio())
    await record_call(api.relay, api.organization_id, finished(elevenlabs_conversation_id=CONVERSATION))

    assert (await count(api, Recording), await count(api, HeldRecording), len(api.objects())) == (1, 0, 1)


@pytest.mark.parametrize("what", ["a call", "audio"])
async def test_organizations_do_not_wait_for_each_other(api: Api, what: str) -> None:
    """Their ids may be the same; one that is held up holds up nobody else."""
    other = await administer.create_organization(api.relay, "Other", "CA")
    stopped = Interrupted(api.relay.database, pauses=True)
    slow = dataclasses.replace(api.relay, database=stopped)

    async def act(relay: Relay, organization_id: str) -> object:
        if what == "audio":
            return await attach_recording(relay, organization_id, CONVERSATION, audio())
        return await record_call(relay, organization_id, finished())

    waiting = asyncio.create_task(act(slow, api.organization_id))
    await stopped.is_reached.wait()
    async with patience():
        await act(api.relay, other.id)
    stopped.go_on.set()
    await waiting

    assert len(api.objects()) == 2


# A server that stops


async def cancelled(stopped: Interrupted, action: Coroutine[Any, Any, object], writes: int) -> None:
    """Cancel the action at the write it stops at, and wait until so many are over."""
    task = asyncio.create_task(action)
    await stopped.is_reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stopped.go_on.set()
    await stopped.until_written(writes)


@pytest.mark.parametrize("what", ["a call", "audio"])
async def test_stored_audio_gets_its_row_though_the_request_is_cancelled(api: Api, what: str) -> None:
    """Otherwise the voice of a person would stay behind under a key that no erasure finds."""
    stopped = Interrupted(api.relay.database, pauses=True)
    relay = elsewhere(api.relay, stopped)
    if what == "audio":
        action: Any = attach_recording(relay, api.organization_id, CONVERSATION, audio())
    else:
        action = record_call(relay, api.organization_id, finished())
    await cancelled(stopped, action, 1)

    assert await count(api, Recording) + await count(api, HeldRecording) == len(api.objects()) == 1


class Vendor:
    """Sends texts; stops while one is on its way, or fails like a fault of ours."""

    name = "console"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.is_reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def send(self, message: OutboundText) -> SentText:
        if self.error is not None:
            raise self.error
        self.is_reached.set()
        await self.go_on.wait()
        return SentText(f"sent {message.reference}")


TEXT = TextToSend("+14165550100", "Here is the link.")


async def test_a_text_on_its_way_gets_its_outcome_though_the_request_is_cancelled(api: Api) -> None:
    """It may have left; whoever looks later must not find it queued."""
    vendor, door = Vendor(), Interrupted(api.relay.database)
    relay = dataclasses.replace(elsewhere(api.relay, door), text_provider=lambda *_: vendor)
    task = asyncio.create_task(text_caller(relay, api.organization_id, TEXT))
    await vendor.is_reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    vendor.go_on.set()
    await door.until_written(2)
    (message,) = await api.read(lambda: list(Message.select()))

    assert (message.status, message.provider_message_id) == ("sent", f"sent {message.id}")


async def test_a_text_that_meets_a_fault_of_ours_is_unknown(api: Api) -> None:
    """Nobody can say whether it left; the agent hears that, and it is never sent again."""
    vendor = Vendor(RuntimeError("a fault"))
    relay = dataclasses.replace(api.relay, text_provider=lambda *_: vendor)
    for _ in range(2):
        with pytest.raises(Speakable, match="may not have gone through"):
            await text_caller(relay, api.organization_id, TEXT)
    (message,) = await api.read(lambda: list(Message.select()))

    assert (message.status, message.error) == ("unknown", "RuntimeError")


async def test_the_time_limit_of_a_text_includes_its_storing(api: Api) -> None:
    """A caller waits for both: when the database took it all, the vendor gets none."""
    rules = dataclasses.replace(api.relay.rules, sms_timeout=0.3)

    async def take_all_of_it() -> None:
        await asyncio.sleep(rules.sms_timeout)

    class Quick(Vendor):
        async def send(self, message: OutboundText) -> SentText:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return SentText(message.reference)

    door = Interrupted(api.relay.database, after=take_all_of_it)
    relay = dataclasses.replace(elsewhere(api.relay, door), rules=rules, text_provider=lambda *_: Quick())

    with pytest.raises(Speakable, match="may not have gone through"):
        await text_caller(relay, api.organization_id, TEXT)


async def test_a_webhook_is_set_up_to_its_end_though_the_request_is_cancelled(tmp_path: Any) -> None:
    """Otherwise one would stay at ElevenLabs whose secret nobody kept."""
    async with FakeElevenLabs() as workspace, running_api(tmp_path, elevenlabs_url=workspace.url) as api:
        stopped = Interrupted(api.relay.database, at=2, pauses=True)
        changes = VoiceAiChanges({"ai_voice_provider": "elevenlabs"}, SecretStr(workspace.api_key))
        action = configure_voice_ai(elsewhere(api.relay, stopped), api.organization_id, changes, Actor())
        await cancelled(stopped, action, 4)
        config = await api.read(lambda: voice_ai_configs.get(api.organization_id))

    assert config is not None
    assert (config.webhook_status, len(workspace.webhooks)) == ("configured", 1)
    assert config.webhook_id in workspace.webhooks


async def test_audio_that_arrives_between_two_steps_of_an_erasure_goes_too(api: Api) -> None:
    """It is found by the note of its conversation, which the next step deletes."""
    contact_id = await contact_of(api, "+14165550199")
    note = {"phone_number": "+14165550199", "note": "Crown.", "conversation_id": CONVERSATION}
    assert (await api.tool("create-note", note)).json()["success"] is True

    async def deliver() -> None:
        await attach_recording(api.relay, api.organization_id, CONVERSATION, audio())

    relay = elsewhere(api.relay, Interrupted(api.relay.database, at=2, before=deliver))
    await erase_contact(relay, api.organization_id, contact_id, Actor())

    assert (await count(api, ContactNote), await count(api, HeldRecording), api.objects()) == (0, 0, [])
