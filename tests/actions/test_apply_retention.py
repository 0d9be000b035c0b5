"""Forgetting in time, on both engines."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actions.apply_retention import apply_retention, due, read_retention, set_retention
from actions.attach_recording import attach_recording
from domain.errors import InvalidRequest, StorageUnavailable
from domain.times import later
from persistence import erasure, outbox
from persistence.models import (
    Call,
    Contact,
    ContactNote,
    Event,
    HeldRecording,
    Organization,
    Recording,
    ToolInvocation,
)
from persistence.retention import Retention
from tests.support.api import Api, running_api
from tests.support.audio import mp3, mp3_base64
from tests.support.reading import OURS, THEIRS

pytestmark = pytest.mark.usefixtures("on_engine")

_DAY = 86_400
MONTH = Retention(recordings=30, transcripts=30, events=30)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(tmp_path / "var") as api:
        yield api


async def stored(api: Api, count: int, days: int, prefix: str = "old") -> list[str]:
    """Have calls with recording and transcript that were stored that many days ago; return their ids."""
    ids = []
    for number in range(count):
        call = {
            "direction": "inbound",
            "fromNumber": THEIRS,
            "toNumber": OURS,
            "duration": 5,
            "status": "completed",
            "transcript": [{"role": "agent", "message": "Hi."}],
            "summary": "Greeted.",
            "recording": mp3_base64(),
            "externalCallId": f"{prefix}-{number}",
        }
        head = await api.head()
        ids.append((await api.ingest(call)).json()["callId"])
        await aged(api, ids[-1], head, later(-days * _DAY))
    return ids


async def aged(api: Api, call_id: str, after: int, moment: str) -> None:
    def unit() -> None:
        Call.update(created_at=moment).where(Call.id == call_id).execute()
        Recording.update(created_at=moment).where(Recording.call == call_id).execute()
        Event.update(at=moment).where(Event.sequence > after).execute()

    await api.relay.database.write(unit)


async def run(api: Api) -> list[int]:
    return [removed for one in await due(api.relay) async for removed in apply_retention(api.relay, one)]


async def left(api: Api) -> tuple[int, int, int, int]:
    """Count recordings, their objects, transcripts and events."""

    def unit() -> tuple[int, int, int]:
        spoken = Call.select().where(Call.transcript.is_null(False)).count()
        return Recording.select().count(), spoken, Event.select().count()

    recordings, spoken, events = await api.read(unit)
    return recordings, len(api.objects()), spoken, events


async def test_only_what_is_past_its_time_goes(api: Api) -> None:
    """Recordings with their objects, transcripts and events of 31 days; those of 29 days stay."""
    old, young = await stored(api, 2, 31), await stored(api, 1, 29, "young")
    await set_retention(api.relay, api.organization_id, MONTH)
    (found,) = await due(api.relay)
    removed = await run(api)
    calls = await api.read(lambda: {call.id: call for call in Call.select()})

    assert (found.recordings, found.transcripts, found.events) == (2, 2, 8)
    assert sum(removed) == found.total == 12
    assert await left(api) == (1, 1, 1, 4)
    assert [calls[call_id].transcript for call_id in old] == [None, None]
    assert calls[young[0]].transcript is not None
    assert {call.summary for call in calls.values()} == {"Greeted."}


async def test_asking_what_is_due_removes_nothing(api: Api) -> None:
    """Counting is counting."""
    await stored(api, 1, 31)
    await set_retention(api.relay, api.organization_id, MONTH)
    before = await left(api)
    await due(api.relay)

    assert await left(api) == before == (1, 1, 1, 4)


async def test_without_a_setting_everything_is_kept(api: Api) -> None:
    """However old it is."""
    await stored(api, 1, 9999)
    before = await left(api)

    assert await run(api) == []
    assert await left(api) == before


@pytest.mark.parametrize("kind", ["recordings", "transcripts", "events"])
async def test_each_kind_has_a_time_of_its_own(api: Api, kind: str) -> None:
    """What has no number of days is kept."""
    await stored(api, 1, 31)
    await stored(api, 1, 1, "young")
    await set_retention(api.relay, api.organization_id, Retention(**{kind: 30}))
    await run(api)
    expected = {"recordings": (1, 1, 2, 8), "transcripts": (2, 2, 1, 8), "events": (2, 2, 2, 4)}

    assert await left(api) == expected[kind]


async def test_events_go_from_the_oldest_and_the_newest_stays(api: Api) -> None:
    """The sequence has no hole, and the head is where it was."""
    await stored(api, 2, 31)
    await set_retention(api.relay, api.organization_id, MONTH)
    head = await api.head()
    await run(api)
    sequences = [event["seq"] for event in await api.events()]

    assert (sequences, await api.head()) == ([head], head)


async def test_an_organization_with_a_time_of_its_own_is_not_pruned_with_the_rest(api: Api) -> None:
    """The broadcaster's rule is for those who have none."""
    await stored(api, 1, 31)
    forever = "9999-01-01T00:00:00.000Z"
    await set_retention(api.relay, api.organization_id, Retention(events=90))
    own = await api.relay.database.write(lambda: outbox.prune(forever, 100))
    await set_retention(api.relay, api.organization_id, Retention())
    everybodys = await api.relay.database.write(lambda: outbox.prune(forever, 100))

    assert (own, everybodys) == (0, 3)


async def test_batches_are_bounded_and_add_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two rows a batch, five calls take several, and nothing is left out."""
    monkeypatch.setattr("actions.apply_retention._ROWS", 2)
    await stored(api, 5, 31)
    await set_retention(api.relay, api.organization_id, MONTH)
    removed = await run(api)

    assert max(removed) <= 2
    assert sum(removed) == 5 + 5 + 19
    assert await left(api) == (0, 0, 0, 1)


async def test_a_run_that_is_killed_is_made_good_by_the_next(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stopped: an object whose row is left is removed twice without harm."""
    monkeypatch.setattr("actions.apply_retention._ROWS", 1)
    await stored(api, 2, 31)
    await set_retention(api.relay, api.organization_id, MONTH)
    write = api.relay.database.write
    for allowed in range(1, 5):
        done = 0

        async def dying(unit: Any, *, of: str | None = None, allowed: int = allowed) -> Any:
            nonlocal done
            done += 1
            if done >= allowed:
                raise StorageUnavailable("killed")
            return await write(unit, of=of)

        monkeypatch.setattr(api.relay.database, "write", dying)
        with pytest.raises(StorageUnavailable):
            await run(api)
        monkeypatch.setattr(api.relay.database, "write", write)
    await run(api)

    assert await left(api) == (0, 0, 0, 1)


async def test_an_interrupted_erasure_is_finished(api: Api) -> None:
    """Also for an organization that keeps everything."""
    await stored(api, 1, 1)
    contact_id = await api.read(lambda: Contact.get(Contact.phone_number == THEIRS).id)
    await api.relay.database.write(lambda: erasure.begin(api.organization_id, contact_id))
    (found,) = await due(api.relay)
    await run(api)

    assert found.erasures == 1
    assert api.objects() == []
    assert await api.read(lambda: Contact.select().where(Contact.id == contact_id).count()) == 0


@pytest.mark.parametrize("days", [0, -1, 36_501])
async def test_days_that_make_no_sense_are_refused(api: Api, days: int) -> None:
    """And change nothing."""
    with pytest.raises(InvalidRequest):
        await set_retention(api.relay, api.organization_id, Retention(recordings=days))

    assert await read_retention(api.relay, api.organization_id) == Retention()
    assert await api.read(lambda: Organization.select().count()) == 1


async def test_a_recording_whose_call_never_comes_goes_after_a_month(api: Api) -> None:
    """Nobody could find it to erase it; one that came yesterday still waits."""
    for name, days in (("conv_old", 31), ("conv_young", 1)):
        await attach_recording(api.relay, api.organization_id, name, _audio())
        await held_since(api, name, later(-days * _DAY))
    (found,) = await due(api.relay)
    removed = await run(api)
    waiting = await api.read(lambda: list(HeldRecording.select()))

    assert (found.recordings, removed) == (1, [1])
    assert [held.elevenlabs_conversation_id for held in waiting] == ["conv_young"]
    assert [path.name for path in api.objects()] == [Path(waiting[0].key).name]
    assert await run(api) == []


async def test_a_shorter_time_for_recordings_holds_for_those_that_wait(api: Api) -> None:
    """An organization that keeps them for a day keeps none for a month."""
    await set_retention(api.relay, api.organization_id, Retention(recordings=1))
    await attach_recording(api.relay, api.organization_id, "conv_1", _audio())
    await held_since(api, "conv_1", later(-2 * _DAY))

    assert await run(api) == [1]
    assert api.objects() == []


async def test_tool_calls_are_forgotten_once_nobody_repeats_them(api: Api) -> None:
    """What came of them stays."""
    for note in ("First.", "Second."):
        await api.tool("create-note", {"phone_number": api.demo.contact_phone, "note": note})

    def age_first() -> None:
        first = ToolInvocation.select().order_by(ToolInvocation.id).get()
        ToolInvocation.update(invoked_at=later(-2 * _DAY)).where(ToolInvocation.id == first.id).execute()

    await api.relay.database.write(age_first)
    (found,) = await due(api.relay)

    assert (found.tool_calls, await run(api)) == (1, [1])
    assert await api.read(lambda: (ToolInvocation.select().count(), ContactNote.select().count())) == (1, 2)


async def _audio() -> AsyncIterator[bytes]:
    yield mp3()


async def held_since(api: Api, conversation_id: str, moment: str) -> None:
    mine = HeldRecording.elevenlabs_conversation_id == conversation_id
    await api.relay.database.write(lambda: HeldRecording.update(created_at=moment).where(mine).execute())
