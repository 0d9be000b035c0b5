"""Many who come back at the same moment, to a broadcaster in a process of its own: one that hangs fails the test."""

import asyncio
import json

from websockets.asyncio.client import connect

from tests.realtime.conftest import World
from tests.realtime.stations import Stations
from tests.support.waiting import patience

EVENTS = 60
MEMORY = 5


async def test_a_crowd_that_missed_more_than_memory_holds_is_brought_up_to_date(
    world: World, database_url: str
) -> None:
    """The first asks for memory to be filled; whoever comes while that is done is served all the same."""
    await world.commit_many(EVENTS)
    async with Stations(database_url, MEMORY, world.ours, 1).running() as stations:
        (port,) = stations.ports
        for _ in range(4):
            async with patience():
                heard = await asyncio.gather(*(_missed(port) for _ in range(100)))
            assert heard == [list(range(1, EVENTS + 1))] * 100
            await stations.kill(port)
            await stations.start(port)


async def _missed(port: int) -> list[int]:
    heard: list[int] = []
    async with connect(
        f"ws://127.0.0.1:{port}/v1?since=0",
        proxy=None,
        additional_headers={"Authorization": "Bearer any"},
    ) as connection:
        while len(heard) < EVENTS:
            frame = json.loads(await connection.recv())
            if frame["type"] == "event":
                heard.append(frame["seq"])
    return heard
