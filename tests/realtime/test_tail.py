import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from domain.errors import Overloaded
from persistence import organizations, outbox, units
from persistence.database import Database, open_database
from realtime.broadcaster import Broadcaster, Delivery, Listener
from realtime.metrics import Metrics
from realtime.tail import Tail
from tests.realtime.conftest import BOTH_ENGINES, World, make_event
from tests.realtime.model import decode
from tests.support.waiting import patience

WRITERS = 8
EVENTS_EACH = 150


class Scribe:
    """Follows organizations at the tail itself, and writes down the frames of each."""

    def __init__(self, database: Database, organization_ids: Sequence[str], batch: int = 250) -> None:
        self.database = database
        self.broadcaster: Broadcaster[Listener] = Broadcaster()
        metrics = Metrics(listeners=lambda: 0, unauthenticated=lambda: 0, behind=lambda: 0, tail_idle=lambda: 0)
        self.tail = Tail(database, self.broadcaster, self._deliver, metrics, batch=batch)
        self.heard: dict[str, list[Any]] = {organization_id: [] for organization_id in organization_ids}
        self._new = asyncio.Event()

    async def until(self, count: int) -> None:
        """Wait until every organization was heard `count` times."""
        async with patience():
            while any(len(heard) < count for heard in self.heard.values()):
                self._new.clear()
                await self._new.wait()

    async def start(self) -> None:
        await self.tail.start()
        for organization_id in self.heard:
            self.add(organization_id)

    def add(self, organization_id: str) -> None:
        """Add one who listens."""
        listener = Listener()
        self.broadcaster.join(listener, organization_id)
        assert self.broadcaster.advance(listener) is None

    async def read(self) -> int:
        """Read one batch, and write all that is due."""
        async with self.database.follow() as follower:
            count = await self.tail.deliver_once(follower)
        while self.tail.write_some():
            pass
        return count

    def _deliver(self, delivery: Delivery[Listener]) -> int:
        told = [frame.get("seq", "gap") for frame in decode(delivery.data)]
        for listener in delivery.listeners:
            assert listener.feed
            self.heard[listener.feed.organization_id] += told
        self._new.set()
        return delivery.frames * len(delivery.listeners)


async def hold_transactions_open(world: World, organization_ids: Sequence[str]) -> None:
    """Let every organization's writer commit its events, holding each transaction open for up to 4 ms."""

    async def write(organization_id: str) -> None:
        chance = random.Random(organization_id)

        def unit() -> None:
            outbox.append(organization_id, [make_event()])
            time.sleep(chance.uniform(0, 0.004))

        for _ in range(EVENTS_EACH):
            await world.database.write(unit)

    await asyncio.gather(*(write(organization_id) for organization_id in organization_ids))


async def add_organizations(world: World, count: int) -> list[str]:
    rows = [await world.database.write(lambda: organizations.add("one of many", None)) for _ in range(count)]
    return [row.id for row in rows]


@BOTH_ENGINES
async def test_transactions_held_open_hide_nothing(world: World) -> None:
    """Eight writers whose commits overlap and become visible out of order: every event comes, in order, once."""
    organization_ids = await add_organizations(world, WRITERS)
    scribe = Scribe(world.database, organization_ids)
    await scribe.start()
    running = asyncio.create_task(scribe.tail.run())
    await hold_transactions_open(world, organization_ids)
    await scribe.until(EVENTS_EACH)
    running.cancel()

    assert all(heard == list(range(1, EVENTS_EACH + 1)) for heard in scribe.heard.values())


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_a_tail_that_follows_row_ids_is_caught(world: World) -> None:
    """The planted fault `id > last` loses events on PostgreSQL, and the scenario above sees it."""
    organization_ids = await add_organizations(world, WRITERS)
    scribe = Scribe(world.database, organization_ids)
    await scribe.start()
    scribe.tail._cursor = 0
    running = asyncio.create_task(scribe.tail.run())
    await hold_transactions_open(world, organization_ids)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    while await scribe.read():
        pass

    assert any(heard != list(range(1, EVENTS_EACH + 1)) for heard in scribe.heard.values())


@BOTH_ENGINES
async def test_a_pass_is_bounded_and_nothing_is_left_behind(world: World) -> None:
    """Passes hold about a batch each, and the last one is empty."""
    quiet = await add_organizations(world, 5)
    scribe = Scribe(world.database, [world.ours, *quiet], batch=10)
    await scribe.start()
    await world.commit(*(make_event() for _ in range(40)))
    for organization_id in quiet:
        await world.commit(make_event(), organization_id=organization_id)

    passes = [await scribe.read()]
    while passes[-1]:
        passes.append(await scribe.read())

    assert max(passes) <= 10
    assert scribe.heard == {world.ours: list(range(1, 41))} | {organization_id: [1] for organization_id in quiet}


async def test_no_more_is_read_than_can_be_handed_over(world: World) -> None:
    """What listeners have yet to get stays in the outbox, but for two batches."""
    scribe = Scribe(world.database, [world.ours], batch=10)
    outstanding: list[int] = []
    deliver = scribe.tail._deliver

    def noting(delivery: Delivery[Listener]) -> int:
        outstanding.append(scribe.broadcaster.outstanding)
        return deliver(delivery)

    scribe.tail._deliver = noting
    await scribe.start()
    for _ in range(1999):
        scribe.add(world.ours)
    await world.commit_many(100)
    running = asyncio.create_task(scribe.tail.run())
    await scribe.until(100 * 2000)
    running.cancel()

    assert max(outstanding) <= 20
    assert Counter(scribe.heard[world.ours]) == dict.fromkeys(range(1, 101), 2000)


async def test_what_is_committed_during_a_round_goes_along_with_all_that_is_left(
    world: World, database_url: str
) -> None:
    """Nobody is written to twice who could have had both at once."""
    scribe = Scribe(world.database, [world.ours])
    told: list[int] = []

    def commit_elsewhere() -> None:
        database = open_database(database_url)
        asyncio.run(database.write(lambda: outbox.append(world.ours, [make_event()])))
        database.close()

    def deliver(delivery: Delivery[Listener]) -> int:
        told.append(delivery.frames)
        if len(told) == 5:  # ten rows are a turn
            with ThreadPoolExecutor() as thread:
                thread.submit(commit_elsewhere).result()
        return scribe._deliver(delivery)

    scribe.tail._deliver = deliver
    await scribe.start()
    for _ in range(499):
        scribe.add(world.ours)
    await world.commit(make_event())
    running = asyncio.create_task(scribe.tail.run())
    await scribe.until(2 * 500)
    running.cancel()

    assert told == [1] * 10 + [2] * 10 + [1] * 10


@BOTH_ENGINES
async def test_an_organization_nobody_names_is_found_beside_one_that_is_named_all_the_time(
    world: World,
) -> None:
    """Hints are not the truth: an event whose wake-up was lost comes although others ring without end."""
    (busy,) = await add_organizations(world, 1)
    scribe = Scribe(world.database, [world.ours, busy])
    await scribe.start()
    running = asyncio.create_task(scribe.tail.run())

    def unheard() -> None:
        outbox.append(world.ours, [make_event()])
        units.take_announcements()

    await world.database.write(unheard)
    async with patience():
        while not scribe.heard[world.ours]:
            await world.commit(make_event(), organization_id=busy)
    running.cancel()

    assert scribe.heard[world.ours] == [1]


async def test_what_came_before_the_start_is_not_delivered(world: World) -> None:
    """A tail begins at the end of the outbox; what came before is a matter of replay."""
    await world.commit_many(3)
    scribe = Scribe(world.database, [world.ours])
    await scribe.start()
    await world.commit(make_event())
    await scribe.read()

    assert scribe.heard == {world.ours: [4]}
    assert scribe.broadcaster.head(world.theirs) == 0


async def test_a_database_in_trouble_is_tried_again(world: World) -> None:
    """When a pass fails the loop waits a little and goes on where it was."""
    scribe = Scribe(world.database, [world.ours])
    await scribe.start()
    await world.commit(make_event())
    failures = [Overloaded("locked"), OSError("gone")]
    real = scribe.tail.deliver_once

    async def deliver_once(*given: Any) -> int:
        if failures:
            raise failures.pop()
        return await real(*given)

    scribe.tail.deliver_once = deliver_once  # type: ignore[assignment,method-assign]
    running = asyncio.create_task(scribe.tail.run())
    await scribe.until(1)
    running.cancel()

    assert scribe.heard == {world.ours: [1]}


async def test_an_event_comes_by_polling_when_its_wake_up_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a datagram the database's own counter tells of every event, one by one."""
    monkeypatch.setattr("persistence.wake_ups.Waker.wake", lambda _: None)
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        for sequence in range(1, 6):
            await world.commit(make_event())
            assert await radio.until(sequence) == [sequence]


async def test_what_is_committed_while_the_tail_starts_is_delivered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two looks it takes at the start an event may come; it is neither lost nor a hole."""
    scribe = Scribe(world.database, [world.ours])
    reads: list[object] = []
    read = world.database.read

    async def between(unit: Any) -> Any:
        result = await read(unit)
        if unit in (outbox.tail_position, outbox.standings):
            reads.append(unit)
        if reads == [unit]:
            await world.commit(make_event())
        return result

    monkeypatch.setattr(world.database, "read", between)
    await scribe.start()
    await world.commit(make_event())
    while await scribe.read():
        pass

    assert scribe.heard[world.ours][-1] == 2
    assert "gap" not in scribe.heard[world.ours]


async def test_a_tail_that_is_behind_reads_on_without_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst that was announced once comes to its end."""
    monkeypatch.setattr("realtime.tail._WAIT_SECONDS", 1000.0)
    scribe = Scribe(world.database, [world.ours], batch=10)
    await scribe.start()
    running = asyncio.create_task(scribe.tail.run())
    await world.commit(*(make_event() for _ in range(95)))
    await scribe.until(95)
    running.cancel()

    assert scribe.heard[world.ours] == list(range(1, 96))
