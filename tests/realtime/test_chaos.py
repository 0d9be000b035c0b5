import asyncio
import random

import pytest

from domain.events import EventName
from tests.realtime.conftest import World, make_event
from tests.realtime.crowd import Listener, Transcript
from tests.realtime.stations import Stations
from tests.support.waiting import PATIENCE_SECONDS


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
