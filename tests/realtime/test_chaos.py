import asyncio
import random
from functools import partial

import pytest

from domain.events import EventName
from persistence import outbox
from tests.realtime.conftest import BOTH_ENGINES, World, make_event
from tests.realtime.crowd import Listener, Told, Transcript
from tests.realtime.stations import Stations
from tests.realtime.test_epoch import Backup, epoch_of, head_of
from tests.support.waiting import PATIENCE_SECONDS, until


async def commit_in_bursts(world: World, count: int, chance: random.Random) -> None:
    """Commit `count` events in transactions of one to twenty."""
    while count:
        size = min(count, chance.randint(1, 20))
        kinds = [chance.choice([EventName.CALL_ENDED, EventName.NOTE_CREATED]) for _ in range(size)]
        await world.commit(*(make_event(kind, padding=chance.choice([0, 0, 200])) for kind in kinds))
        count -= size
        await asyncio.sleep(chance.uniform(0, 0.02))


@pytest.mark.parametrize(
    ("engine", "listeners", "events", "ring", "stations"),
    [("sqlite", 100, 2500, 5, 1), ("sqlite", 40, 1500, 1500, 2), ("postgresql", 40, 1500, 50, 2)],
    ids=["memory smaller than every gap", "two broadcasters", "two broadcasters on PostgreSQL"],
)
async def test_everyone_gets_everything_whatever_happens(
    world: World, database_url: str, listeners: int, events: int, ring: int, stations: int
) -> None:
    """Dropped, frozen, killed five times under way: each listener ends with every event, in order, once."""
    chance = random.Random(20260515)
    transcript = Transcript()
    async with Stations(database_url, ring, world.ours, stations).running() as broadcasters:
        crowd = [Listener(broadcasters.ports, events, transcript, random.Random(n)) for n in range(listeners)]
        async with asyncio.timeout(4 * PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
            for listener in crowd:
                tasks.create_task(listener.follow())
            for _ in range(5):
                await commit_in_bursts(world, events // 5 - 50, chance)
                port = chance.choice(broadcasters.ports)
                await broadcasters.kill(port)
                await commit_in_bursts(world, 50, chance)
                await broadcasters.start(port)

    assert [listener.position for listener in crowd] == [events] * listeners
    assert sum(listener.connections for listener in crowd) > 3 * listeners


async def _has_another_epoch(world: World, before: str) -> bool:
    return await epoch_of(world) != before


def _have_read(readers: list[Told], epoch: str, head: int) -> bool:
    return all(reader.epoch == epoch and reader.position >= head for reader in readers)


@BOTH_ENGINES
async def test_everyone_ends_with_the_list_of_the_database_or_was_told_when_it_goes_back(
    world: World, database_url: str
) -> None:
    """Four times, while broadcasters run or are killed, and while events of the log that is left go on.

    The log goes back only after each broadcaster has read beyond the backup: otherwise nothing that it read is gone.
    """
    chance = random.Random(20260516)
    async with Stations(database_url, 50, world.ours, 2).running() as broadcasters:
        crowd = [Told(broadcasters.ports, random.Random(n)) for n in range(30)]
        readers = [Told([port], random.Random(port)) for port in broadcasters.ports]
        crowd += readers
        async with asyncio.timeout(4 * PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
            for listener in crowd:
                tasks.create_task(listener.follow())
            await commit_in_bursts(world, 100, chance)
            for kills in (True, False, True, False):
                backup, before = await Backup.of(world), await epoch_of(world)
                await commit_in_bursts(world, 60, chance)
                await until(partial(_have_read, readers, before, await head_of(world)), "each broadcaster has read all")
                port = chance.choice(broadcasters.ports)
                if kills:
                    await broadcasters.kill(port)
                # Half the time the log is longer afterwards than it was, before anybody can have looked.
                more = [make_event(EventName.NOTE_CREATED) for _ in range(chance.choice([0, 80]))]
                await backup.restore(world, lambda more=more: outbox.append(world.ours, more))  # type: ignore[misc]
                await commit_in_bursts(world, 100, chance)
                await until(partial(_has_another_epoch, world, before), "a broadcaster notices")
                if kills:
                    await broadcasters.start(port)
            epoch = await epoch_of(world)
            await until(lambda: {listener.epoch for listener in crowd} == {epoch}, "every listener was told")
            head = await world.commit(make_event())
            for listener in crowd:
                listener.stop_at(head)

    there = [(one.sequence, one.at) for one in await world.database.read(lambda: outbox.after(world.ours, 0, 10_000))]
    assert [listener.held for listener in crowd] == [there[listener.base :] for listener in crowd]
    assert epoch == await epoch_of(world)
    assert all("epoch" in listener.reasons for listener in crowd)
