"""What a broadcaster does beside delivering: pruning, forgetting, ending, and saying how it is."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from domain.errors import Overloaded
from domain.times import later
from persistence import outbox, retention
from persistence.database import Database
from persistence.models import Event
from realtime.limits import Limits
from tests.realtime.conftest import Station, World, make_event
from tests.support.waiting import patience


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep house all the time, two rows at once."""
    monkeypatch.setattr("realtime.server._HOUSEKEEPING_SECONDS", 0.01)
    monkeypatch.setattr("realtime.server._PRUNE_ROWS", 2)


class Recording:
    """A database that records what each write returns, if it returns something."""

    def __init__(self, database: Database, results: list[Any]) -> None:
        self._database = database
        self._results = results
        self.read, self.follow, self.place = database.read, database.follow, database.place

    async def write(self, unit: Callable[[], Any]) -> Any:
        result = await self._database.write(unit)
        self._results += [result] if result is not None else []
        return result


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it is so."""
    async with patience():
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.01)


async def oldest(world: World, sequence: int) -> None:
    """Wait until that is the oldest event there is."""

    async def is_it() -> bool:
        return await world.database.read(lambda: outbox.oldest(world.ours)) == sequence

    await until(is_it)


async def age(world: World, hours: dict[int, float]) -> None:
    """Make events that old."""
    for sequence, old in hours.items():
        at = later(-3600 * old)
        await world.database.write(
            lambda sequence=sequence, at=at: Event.update(at=at).where(Event.sequence == sequence).execute()  # type: ignore[misc]
        )


async def test_events_past_their_time_are_pruned_however_many_they_are(world: World) -> None:
    """Those older than the retention go, a few rows at a time until none is left; younger ones stay."""
    await world.commit_many(9)
    await age(world, dict.fromkeys(range(1, 8), 25.0) | {8: 23})
    async with world.broadcaster(retention_hours=24):
        await oldest(world, 8)

    assert await world.database.read(lambda: Event.select().count()) == 2


async def test_one_round_prunes_all_there_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day's events do not wait for as many minutes as they are thousands."""
    steps: list[str | int] = []
    monkeypatch.setattr("realtime.keeping.Keeping.forget", lambda _: steps.append("a round begins"))
    await world.commit_many(9)
    await age(world, dict.fromkeys(range(1, 9), 25.0))
    recording = cast("Database", Recording(world.database, steps))
    async with world.server(recording, retention_hours=24).running("127.0.0.1", 0):
        await oldest(world, 9)

    assert steps[:5] == ["a round begins", 2, 2, 2, 2]


async def test_a_failure_does_not_end_the_housekeeping(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that cannot be pruned in one round are pruned in a later one."""
    failures, prune = [Overloaded(), Overloaded()], outbox.prune

    def prune_late(*given: Any) -> int:
        if failures:
            raise failures.pop()
        return prune(*given)

    monkeypatch.setattr("persistence.outbox.prune", prune_late)
    await world.commit_many(3)
    await age(world, {1: 25})
    async with world.broadcaster(retention_hours=24):
        await oldest(world, 2)

    assert not failures


async def test_a_retention_that_was_changed_is_told_from_then_on(world: World) -> None:
    """A broadcaster need not be started again for it."""
    limits = Limits(drain_seconds=0.1, messages_per_second=1e9, message_burst=1e9)
    async with world.broadcaster(retention_hours=36, limits=limits) as station, station.listener() as radio:
        assert (await radio.next())["retentionHours"] == 36
        await world.database.write(lambda: retention.put(world.ours, retention.Retention(events=3)))

        async def is_told() -> bool:
            return bool((await radio.ask(type="resume", since=0))["retentionHours"] == 72)

        await until(is_told)


async def test_the_frames_of_an_organization_nobody_follows_are_let_go(world: World) -> None:
    """One that has listeners keeps them."""
    async with world.broadcaster() as station, station.listener("theirs") as other:
        await other.next()
        async with station.listener() as radio:
            await radio.next()
            await world.commit(make_event())
            await world.commit(make_event(), organization_id=world.theirs)
            await radio.until(1)
            await other.until(1)
        feeds = station.server._broadcaster._feeds

        async def is_let_go() -> bool:
            return not feeds[world.ours].ring

        await until(is_let_go)

        assert len(feeds[world.theirs].ring) == 1


# How it is.


async def test_a_broadcaster_that_cannot_read_says_so_by_its_status(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches the status alone knows that it is to be started again."""
    async with world.broadcaster(deaf=True) as station:
        well = await health(station)
        monkeypatch.setattr("realtime.server._STALE_SECONDS", -1.0)
        stale = await health(station)

    assert (well, stale) == ((200, "ok"), (503, "stale"))


async def health(station: Station) -> tuple[int, str]:
    status, headers, body = await station.get("/healthz")
    assert headers["cache-control"] == "no-store"
    return status, json.loads(body)["status"]


async def test_who_has_yet_to_say_hello_does_not_hold_up_the_end(world: World) -> None:
    """A handshake that is half done is cut off at once."""
    limits = Limits(drain_seconds=0.1, auth_seconds=1000)
    async with patience(), contextlib.AsyncExitStack() as stack:
        async with world.broadcaster(limits=limits) as station, station.listener() as radio:
            await radio.next()
            reader, writer = await asyncio.open_connection("127.0.0.1", station.port)
            stack.callback(writer.close)
            writer.write(b"GET /v1 HTTP/1.1\r\n")
            await station.get("/healthz")  # whoever came before has been taken in
        async with patience():
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
