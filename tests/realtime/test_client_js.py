import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.events import EventName
from domain.principals import Principal, TokenKind
from tests.realtime.conftest import World, make_event, unhurried
from tests.realtime.scripted import Said, event, hello, scripted
from tests.support.waiting import SLOWNESS, patience

pytestmark = pytest.mark.processes

LISTEN = Path(__file__).with_name("listen.mjs")
QUICK = unhurried(jitter_seconds=0.1)


class Node:
    """`client.js` in a Node process, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdout
        self._lines = process.stdout
        self.heard: list[int] = []

    async def next(self, *kinds: str) -> dict[str, Any]:
        """Return the next thing said that is one of `kinds` (anything, if none are given)."""
        async with patience():
            while line := await self._lines.readline():
                said: dict[str, Any] = json.loads(line)
                if said["kind"] == "event":
                    self.heard.append(said["seq"])
                if not kinds or said["kind"] in kinds:
                    return said
        raise AssertionError("the listener is gone")

    async def until(self, sequence: int) -> list[int]:
        got: list[int] = []
        while not got or got[-1] < sequence:
            got.append((await self.next("event"))["seq"])
        return got

    async def stop(self) -> int:
        assert self._process.stdin
        self._process.stdin.write(b"stop\n")
        async with patience():
            return await self._process.wait()


@contextlib.asynccontextmanager
async def node(**options: Any) -> AsyncIterator[Node]:
    process = await asyncio.create_subprocess_exec(
        *("node", "--experimental-websocket", "--no-warnings", str(LISTEN), json.dumps(options)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Node(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_it_follows_and_stops(world: World) -> None:
    """It authenticates by message, reports the hello and the events, and a stop ends the process cleanly."""
    async with world.broadcaster() as station, node(url=station.url, token="ours") as client:
        states = [(await client.next())["kind"] for _ in range(2)]
        await world.commit_many(3)
        assert await client.until(3) == [1, 2, 3]
        assert await client.stop() == 0

    assert states == ["connecting", "live"]


async def test_it_survives_a_restart_without_loss_or_double(world: World) -> None:
    """It comes back after a random time and resumes where it was."""
    async with contextlib.AsyncExitStack() as stack:
        async with world.broadcaster(limits=QUICK) as station:
            client = await stack.enter_async_context(node(url=station.url, token="ours", since=0))
            await client.next("live")
            await world.commit_many(3)
            assert await client.until(3) == [1, 2, 3]
        await world.commit_many(3)
        async with world.server(limits=QUICK).running("127.0.0.1", station.port):
            waiting = await client.next("waiting")
            assert await client.until(6) == [4, 5, 6]

    assert waiting["detail"]["code"] == 1012
    assert waiting["detail"]["seconds"] <= 0.1


async def test_filters_apply_and_a_gap_is_passed_on(world: World) -> None:
    """Filters go with the token; what is gone is said."""
    await world.commit_many(2)
    async with (
        world.broadcaster() as station,
        node(url=station.url, token="ours", since=9, events=["note_created"]) as client,
    ):
        gap = await client.next("gap")
        await world.commit(make_event(), make_event(EventName.NOTE_CREATED))
        assert await client.until(4) == [4]

    assert gap["oldest"] == 3


async def test_a_wrong_token_stops_it(world: World) -> None:
    """A token that is not valid is not tried again."""
    async with world.broadcaster() as station, node(url=station.url, token="nobody") as client:
        stopped = await client.next("stopped")

    assert stopped["detail"]["code"] == 4401


async def test_an_expired_token_is_replaced(world: World) -> None:
    """Where the token comes from a function, a fresh one is asked for, and nothing is missed."""
    world.tokens["brief"] = Principal(TokenKind.JWT, world.ours, expires_at=time.time() + 2)
    async with world.broadcaster() as station, node(url=station.url, tokens=["brief", "ours"], since=0) as client:
        await client.next("live")
        await world.commit(make_event())
        waiting = await client.next("waiting")
        await world.commit(make_event())
        await client.until(2)

    assert client.heard == [1, 2]
    assert waiting["detail"]["code"] == 4498


async def test_a_dead_line_is_noticed(world: World) -> None:
    """A line that goes dead without a goodbye is given up after a few heartbeats, and nothing is missed."""
    limits = unhurried(heartbeat_seconds=0.5 * SLOWNESS)
    async with (
        world.broadcaster(limits=limits) as station,
        station.behind_a_line() as line,
        node(url=line.url, token="ours", since=0) as client,
    ):
        await client.next("live")
        line.cut()
        waiting = await client.next("waiting")
        await world.commit(make_event())
        line.mend()
        assert await client.until(1) == [1]

    assert waiting["detail"]["code"] == 1006


@pytest.mark.parametrize("url", ["http://[", "nonsense"])
async def test_an_address_that_is_none_does_not_crash_it(url: str) -> None:
    """What cannot be connected to is reported as any other failure."""
    async with node(url=url, token="ours") as client:
        assert (await client.next("waiting"))["detail"]["code"] is None


# A broadcaster that says what is written down.


async def test_a_repeated_event_is_given_once() -> None:
    """Whether it comes on the same connection or on the next."""
    scripts: list[list[Said]] = [[hello(), event(1), event(1), event(2), 1012], [hello(2), event(2), event(3)]]
    async with scripted(*scripts) as playing, node(url=playing.url, token="ours") as client:
        assert await client.until(3) == [1, 2, 3]

    assert playing.since == [None, 2]


async def test_it_comes_back_to_where_the_hello_said() -> None:
    """What is committed after the hello and before the first event is not lost."""
    async with (
        scripted([hello(4), 1012], [hello(4), event(5)]) as playing,
        node(url=playing.url, token="ours") as client,
    ):
        await client.until(5)

    assert playing.since == [None, 4]


async def test_it_comes_back_behind_a_gap() -> None:
    """It was told once of what is gone, and does not ask for it again."""
    gap = {"type": "gap", "since": 1, "oldest": 9}
    async with (
        scripted([hello(1), gap, 1012], [hello(8), event(9)]) as playing,
        node(url=playing.url, token="ours", since=1) as client,
    ):
        await client.until(9)

    assert playing.since == [1, 8]


async def test_a_pong_keeps_its_place_and_proves_that_the_line_stands() -> None:
    """A quiet line that answers is kept, and after an interruption it goes on from where the last pong said."""
    async with (
        scripted([hello(1, heartbeat=0.05)], [hello(7)]) as playing,
        node(url=playing.url, token="ours") as client,
    ):
        await client.next("live")
        await playing.until_asked(5)
        assert len(playing.since) == 1
        playing.break_off()
        await playing.until(2)

    assert playing.since == [None, 7]


async def test_pauses_grow_up_to_a_limit_and_begin_anew_after_a_hello() -> None:
    """A server that lets nobody in is asked less and less, one that does is trusted again."""
    out: list[Said] = [None]
    greeting = hello(base=0.01, longest=0.03)
    scripts: list[list[Said]] = [[greeting, None], out, out, out, [greeting, None], [greeting]]
    async with scripted(*scripts) as playing, node(url=playing.url, token="ours", chance=1) as client:
        pauses = [(await client.next("waiting"))["detail"]["seconds"] for _ in range(5)]

    assert pauses == [0.01, 0.02, 0.03, 0.03, 0.01]


@pytest.mark.parametrize("code", [4401, 4497, 4498, 1002, 1003, 1007, 1009])
async def test_what_cannot_get_better_is_not_tried_again(code: int) -> None:
    """A token that is worth nothing, and a mistake of its own, end it."""
    async with scripted([hello(), code]) as playing, node(url=playing.url, token="ours") as client:
        ended = await client.next("stopped", "waiting")

    assert (ended["kind"], ended["detail"]["code"]) == ("stopped", code)
    assert len(playing.since) == 1


async def test_a_token_is_asked_for_again_once() -> None:
    """Where the fresh one is refused as well there is no other."""
    async with scripted([4401]) as playing, node(url=playing.url, tokens=["one", "two", "three"]) as client:
        await client.next("stopped")

    assert playing.tokens == ["one", "two"]


async def test_whoever_is_stopped_while_a_token_is_fetched_does_not_connect() -> None:
    """Nor does whoever is stopped while waiting to come back."""
    async with scripted([hello(), 1012], [hello()]) as playing:
        async with node(url=playing.url, tokens=["ours"], stops_at="connecting") as client:
            await client.next("stopped")
            await client.next("token")
            assert await client.stop() == 0
        assert playing.since == []
        async with node(url=playing.url, token="ours", stops_at="waiting") as client:
            await client.next("stopped")
            assert await client.stop() == 0

    assert len(playing.since) == 1


async def test_a_connection_that_fails_and_ends_is_one_connection() -> None:
    """However often its end is told, the next one is made once."""
    async with scripted([None], [hello()]) as playing, node(url=playing.url, token="ours", ends_twice=True) as client:
        kinds = [(await client.next())["kind"] for _ in range(4)]
        assert await client.stop() == 0

    assert kinds == ["connecting", "waiting", "connecting", "live"]
    assert len(playing.since) == 2
