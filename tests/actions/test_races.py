"""Two processes at work on one organization: each finds what the other is just writing. On PostgreSQL.

The other process is a transaction that stops in its middle. What is tested runs into its lock, the transaction goes on
once somebody is seen to wait, and both end. SQLite has one writer and cannot get into any of this.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from actions.attach_recording import attach_recording, let_go
from actions.record_call import FinishedCall, record_call
from actions.save_note import NoteToSave, save_note
from actions.text_caller import TextToSend, advance, text_caller
from domain.statuses import MessageStatus
from persistence import contact_notes, conversations, held_recordings, outbox, recordings
from persistence.models import Call, ContactNote, HeldRecording, Message, Recording
from tests.support.api import Api, engine_of_api, running_api
from tests.support.audio import mp3
from tests.support.reading import OURS, THEIRS, call_row, contact_of
from tests.support.waiting import PATIENCE_SECONDS, patience

pytestmark = pytest.mark.postgresql

CONVERSATION, PHONE = "conv_1", "+14165550100"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    before = engine_of_api.set("postgresql")
    try:
        async with running_api(tmp_path / "var") as api:
            yield api
    finally:
        engine_of_api.reset(before)


async def beside(api: Api, action: Coroutine[Any, Any, Any], first: Callable[[], Any], then: Callable[[], Any]) -> Any:
    """Run `action` while another process is between `first` and `then` of one transaction; return what it returns."""
    is_reached, go_on = threading.Event(), threading.Event()

    def unit() -> None:
        outbox.hold(api.organization_id)
        first()
        is_reached.set()
        assert go_on.wait(PATIENCE_SECONDS)
        then()

    other = asyncio.create_task(api.relay.database.write(unit))
    assert await asyncio.to_thread(is_reached.wait, PATIENCE_SECONDS)
    task = asyncio.create_task(action)
    try:
        async with patience():
            while not task.done():
                if await api.read(_waiting):
                    break
                await asyncio.sleep(0.01)
    finally:
        go_on.set()
    await other
    return await task


def _waiting() -> int:
    return int(Call._meta.database.execute_sql(WAITING).fetchone()[0])


async def rows(api: Api, model: Any) -> list[Any]:
    return list(await api.read(lambda: list(model.select().order_by(model.id))))


async def audio() -> AsyncIterator[bytes]:
    yield mp3()


def nothing() -> None:
    """Only the lock matters."""


def reported(**changes: Any) -> FinishedCall:
    """Return a call as its agent's maker reports it."""
    known = {"external_call_id": CONVERSATION, "elevenlabs_conversation_id": CONVERSATION, "source": "elevenlabs"}
    return FinishedCall("inbound", THEIRS, OURS, 5, "completed", **(known | changes))


# What is tied to a call


@pytest.mark.parametrize("tool", ["a note", "a text"])
async def test_a_tool_call_waits_for_the_call_that_is_being_recorded(api: Api, tool: str) -> None:
    """Otherwise neither would find the other, and what the agent did would never be tied to its call."""
    contact_id = await contact_of(api, PHONE, "Alex")

    def record() -> None:
        call_row(api.organization_id, contact_id, elevenlabs_conversation_id=CONVERSATION)

    if tool == "a note":
        action: Any = save_note(api.relay, api.organization_id, NoteToSave(PHONE, "Crown.", CONVERSATION))
    else:
        action = text_caller(api.relay, api.organization_id, TextToSend(PHONE, "At four.", None, CONVERSATION))
    await beside(api, action, record, nothing)
    (call,) = await rows(api, Call)
    (done,) = await rows(api, ContactNote if tool == "a note" else Message)

    assert done.call_id == call.id


async def test_late_audio_waits_for_the_call_that_is_being_recorded(api: Api) -> None:
    """Otherwise it would wait for a call that is there already."""
    contact_id = await contact_of(api, PHONE, "Alex")

    def record() -> None:
        thread = conversations.find_or_create(api.organization_id, contact_id, "voice", OURS)
        call_row(api.organization_id, contact_id, conversation=thread.id, elevenlabs_conversation_id=CONVERSATION)

    attached = await beside(
        api, attach_recording(api.relay, api.organization_id, CONVERSATION, audio()), record, nothing
    )
    (call,), (recording,) = await rows(api, Call), await rows(api, Recording)

    assert attached == call.id == recording.call_id
    assert await rows(api, HeldRecording) == []


async def test_audio_that_its_call_takes_over_is_not_let_go(api: Api) -> None:
    """Retention comes while the call is being recorded, and must leave the object alone."""
    contact_id = await contact_of(api, PHONE, "Alex")
    await attach_recording(api.relay, api.organization_id, CONVERSATION, audio())
    (held,) = await rows(api, HeldRecording)

    def take_over() -> None:
        assert held_recordings.in_conversation(api.organization_id, CONVERSATION) is not None
        call_row(api.organization_id, contact_id, id=held.id)
        columns = {"key": held.key, "content_type": held.content_type, "size": held.size, "sha256": held.sha256}
        recordings.add(api.organization_id, held.id, **columns)

    await beside(
        api,
        let_go(api.relay, held),
        take_over,
        lambda: held_recordings.remove(api.organization_id, held.id),
    )

    assert [recording.key for recording in await rows(api, Recording)] == [held.key]
    assert len(api.objects()) == 1


# Once


async def test_two_reports_of_one_conversation_are_one_call(api: Api) -> None:
    """One by the vendor's own id, the other by the conversation: the second becomes a repeat."""
    contact_id = await contact_of(api, PHONE, "Alex")

    def record() -> None:
        call_row(api.organization_id, contact_id, elevenlabs_conversation_id=CONVERSATION, external_call_id="vendor-7")

    recorded = await beside(api, record_call(api.relay, api.organization_id, reported()), record, nothing)
    (call,) = await rows(api, Call)

    assert (recorded.is_repeat, recorded.call_id) == (True, call.id)


async def test_a_summary_is_noted_once(api: Api) -> None:
    """Two deliveries of one report find the note missing, and one of them writes it."""
    contact_id = await contact_of(api, PHONE, "Alex")
    call_id = await api.relay.database.write(
        lambda: str(call_row(api.organization_id, contact_id, external_call_id=CONVERSATION, payload_digests="{}").id)
    )

    def note() -> None:
        contact_notes.add_from_tool(
            api.organization_id,
            contact_id,
            "Crown.",
            tool="post-call",
            elevenlabs_conversation_id=CONVERSATION,
            call_id=call_id,
        )

    again = record_call(api.relay, api.organization_id, reported(summary="Crown.", noted_by="post-call"))
    await beside(api, again, note, nothing)

    assert [one.note for one in await rows(api, ContactNote)] == ["Crown."]


# Erasing


async def test_a_status_report_and_an_erasure_do_not_lock_each_other_out(api: Api) -> None:
    """Both take the organization first: neither has to be run again, and no news comes of a message that has gone."""
    await text_caller(api.relay, api.organization_id, TextToSend(PHONE, "At four."))
    (message,) = await rows(api, Message)
    head, runs = await api.head(), list[str]()

    def report() -> bool:
        runs.append("report")
        return advance(message, MessageStatus.DELIVERED)

    moved = await beside(
        api,
        api.relay.database.write(report),
        lambda: runs.append("erasure"),
        lambda: Message.delete().where(Message.id == message.id).execute(),
    )

    assert (moved, await api.head()) == (False, head)
    assert runs == ["erasure", "report"]
