"""Writes about a person that arrive while the person is being erased: erased with the rest, or refused."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from actions import record_call
from actions.apply_retention import apply_retention, due
from actions.attach_recording import attach_recording
from actions.erase_contact import erase_contact
from actions.record_call import FinishedCall, RecordedCall
from actions.relay import Relay
from actions.sweep_recordings import sweep_recordings
from domain.audit import Actor
from domain.errors import StorageUnavailable
from domain.messages import OutboundText, SentText
from domain.statuses import MessageStatus
from persistence import quotas
from persistence.models import Call, Contact, ContactNote, HeldRecording, Message, Recording, TransferRequest
from tests.handlers.test_erasure import NUMBER, call, delete, live, traces
from tests.support.api import Api
from tests.support.audio import mp3
from tests.support.pauses import pause_after
from tests.support.reading import contact_of


async def audio() -> AsyncIterator[bytes]:
    yield mp3()


async def count(api: Api, model: Any) -> int:
    return int(await api.read(lambda: model.select().count()))


async def test_audio_that_arrives_during_a_step_is_erased_with_the_rest(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step has seen that the call has no recording; the audio must not be kept on a call without a contact."""
    contact_id = await contact_of(api, NUMBER)
    pushed = call("inbound", 1, status="no-answer")
    assert (await api.ingest({name: value for name, value in pushed.items() if name != "recording"})).status_code == 201

    async def deliver() -> None:
        await attach_recording(api.relay, api.organization_id, "conv_1", audio())

    pause = pause_after(monkeypatch, "persistence.calls.with_recording", api.relay.database, deliver)
    response = await delete(api, contact_id)
    assert pause.task is not None
    await pause.task

    assert response.status_code == 200
    assert (await count(api, Recording), await count(api, HeldRecording), api.objects()) == (0, 0, [])


@pytest.mark.parametrize("tool", ["create-note", "send-sms"])
async def test_tool_call_that_found_the_contact_is_ordered_with_the_erasure(
    api: Api, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    """The agent hears 200 either way, and nothing it wrote outlives the contact."""
    contact_id = await live(api)
    body = {"phone_number": NUMBER, "note": "secret words, late", "message": "secret words, late"}
    pause = pause_after(
        monkeypatch, "persistence.contacts.by_phone", api.relay.database, lambda: delete(api, contact_id)
    )
    answer = await api.tool(tool, body)
    assert pause.task is not None
    erased: httpx.Response = await pause.task

    assert (answer.status_code, erased.status_code) == (200, 200), (answer.text, erased.text)
    assert await traces(api) == []
    assert (await count(api, ContactNote), await count(api, Message)) == (0, 0)


async def test_note_by_a_person_that_found_the_contact_is_ordered_with_the_erasure(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is erased with the rest."""
    contact_id = await live(api)
    pause = pause_after(monkeypatch, "persistence.contacts.get", api.relay.database, lambda: delete(api, contact_id))
    body = {"contactId": contact_id, "note": "secret words, late"}
    answer = await api.post("/api/contact-notes", body, api.superadmin_token)
    assert pause.task is not None
    erased = await pause.task

    assert (answer.status_code, erased.status_code) == (201, 200), (answer.text, erased.text)
    assert await traces(api) == []


@pytest.mark.parametrize("place", ["persistence.erasure.begin", "persistence.erasure.step"])
async def test_call_that_is_pushed_during_an_erasure_is_erased_or_a_new_contacts(
    api: Api, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The erasure succeeds, and no call refers to the contact that is gone."""
    contact_id = await live(api)
    pause = pause_after(monkeypatch, place, api.relay.database, lambda: api.ingest(call("inbound", 5)))
    response = await delete(api, contact_id)
    assert pause.task is not None
    pushed = (await pause.task).json()

    assert response.status_code == 200, response.text
    assert pushed["contactId"] != contact_id
    assert await api.read(lambda: Contact.select().where(Contact.id == contact_id).count()) == 0


async def test_many_writes_during_an_erasure_leave_nothing_behind(api: Api) -> None:
    """Every answer is a documented one, and what was written before the end went with the rest."""
    contact_id = await live(api)
    note = {"phone_number": NUMBER, "note": "secret words, again"}

    async def keep_writing() -> list[int]:
        return [(await api.tool("create-note", note | {"conversation_id": f"conv_{n}"})).status_code for n in range(20)]

    erased, *statuses = await asyncio.gather(delete(api, contact_id), *(keep_writing() for _ in range(4)))

    assert erased.status_code == 200
    assert {status for one in statuses for status in one} == {200}
    assert await traces(api) == []


async def test_recordings_that_an_earlier_version_left_are_found_and_removed(api: Api) -> None:
    """On a call whose contact was erased, and held for its conversation: `sweep` and `retention` count them."""
    contact_id = await contact_of(api, NUMBER)
    assert (await api.ingest(call("inbound", 1))).status_code == 201
    await attach_recording(api.relay, api.organization_id, "conv_9", audio())

    def leave() -> None:
        nothing = {"contact": None, "conversation": None, "from_number": ""}
        Call.update(nothing).execute()
        HeldRecording.update(elevenlabs_conversation_id="conv_1").execute()

    await api.relay.database.write(leave)
    await erase_contact(api.relay, api.organization_id, contact_id, Actor())
    (found,) = await due(api.relay)
    swept = await sweep_recordings(api.relay)
    removed = [count async for count in apply_retention(api.relay, found)]
    (after,) = await due(api.relay)

    assert (found.left, swept.left, sum(removed), after.left) == (2, 2, 2, 0)
    assert (await count(api, Recording), await count(api, HeldRecording), api.objects()) == (0, 0, [])


async def test_request_for_a_person_during_an_erased_conversation_keeps_no_words(api: Api) -> None:
    """The call is known and its person gone: listeners hear that somebody is wanted, and not what was said."""
    contact_id = await contact_of(api, NUMBER)
    assert (await api.ingest(call("inbound", 1))).status_code == 201
    await delete(api, contact_id)
    answer = await api.tool("transfer", {"conversation_id": "conv_1", "reason": "secret words, late"})
    (request,) = await api.read(lambda: list(TransferRequest.select()))

    assert answer.status_code == 200
    assert (request.reason, await traces(api)) == (None, [])


@pytest.mark.parametrize("conversation_id", ["conv_5", None])
async def test_call_that_another_process_recorded_and_erased_leaves_no_contact(
    api: Api, monkeypatch: pytest.MonkeyPatch, conversation_id: str | None
) -> None:
    """It was not known when this process looked; the answer is the repeat of an erased call."""
    new = record_call._record_new

    async def late(relay: Relay, organization_id: str, finished: FinishedCall) -> RecordedCall:
        monkeypatch.setattr(record_call, "_record_new", new)
        recorded = await new(relay, organization_id, finished)
        await erase_contact(relay, organization_id, recorded.contact_id, Actor())
        return await new(relay, organization_id, finished)

    monkeypatch.setattr(record_call, "_record_new", late)
    body = call("inbound", 5)
    metadata = {"conversation_id": conversation_id} if conversation_id else {}
    answer = await api.ingest(body | {"externalCallId": "vendor-5", "metadata": metadata})

    assert (answer.status_code, answer.json()["deduplicated"]) == (200, True)
    assert (await traces(api), api.objects()) == ([], [])


async def test_text_whose_contact_is_erased_while_it_is_sent_is_told_as_it_went(api: Api) -> None:
    """The provider has it, so the agent hears that it was sent; nothing of it is kept."""
    contact_id = await live(api)

    class Slow:
        async def send(self, message: OutboundText) -> SentText:
            assert (await delete(api, contact_id)).status_code == 200
            return SentText(f"sent-{message.reference}", MessageStatus.SENT)

    object.__setattr__(api.relay, "text_provider", lambda *_: Slow())
    answer = await api.tool("send-sms", {"phone_number": NUMBER, "message": "secret words, late"})

    assert (answer.status_code, answer.json()["success"]) == (200, True), answer.text
    assert await traces(api) == []
    assert (await count(api, Message), await count(api, Contact)) == (0, 1)


class Failing:
    """A store that removes nothing for once, or a process that dies instead."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def remove(self, key: str) -> None:
        raise StorageUnavailable(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("finish", ["erasure", "retention", "sweep"])
async def test_held_audio_that_could_not_be_removed_is_found_again(api: Api, finish: str) -> None:
    """Its row stays until the object is gone, and no call takes it over meanwhile."""
    contact_id = await live(api)
    note = {"phone_number": NUMBER, "note": "secret words", "conversation_id": "conv_held"}
    await api.tool("create-note", note)
    await attach_recording(api.relay, api.organization_id, "conv_held", audio())
    working = api.relay.store
    object.__setattr__(api.relay, "store", Failing(working))
    failed = await delete(api, contact_id)
    object.__setattr__(api.relay, "store", working)
    (found,) = await due(api.relay)
    if finish == "retention":
        _ = [count async for count in apply_retention(api.relay, found)]
    if finish == "sweep":
        await sweep_recordings(api.relay, apply=True)
        assert await count(api, HeldRecording) == 0
    again = await delete(api, contact_id)

    assert (failed.status_code, found.left) == (500, 1)
    assert again.status_code == (404 if finish == "retention" else 200)
    assert (await count(api, HeldRecording), api.objects()) == (0, [])
    assert await api.read(lambda: quotas.recording_bytes(api.organization_id)) == 0
