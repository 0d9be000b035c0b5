"""The clients and the broadcaster, as they are."""

import asyncio
import contextlib
import time

import pytest

from domain.events import EventName
from domain.principals import Principal, TokenKind
from realtime.limits import Limits
from tests.clients.drivers import Start
from tests.realtime.conftest import World, make_event, unhurried
from tests.support.waiting import SLOWNESS, patience, until

pytestmark = pytest.mark.processes

QUICK = unhurried(jitter_seconds=0.1)


async def test_it_follows_and_stops(world: World, start: Start) -> None:
    """It authenticates, reports the hello and the events, and a stop ends it cleanly."""
    async with world.broadcaster() as station, start(url=station.url, token="ours") as client:
        states = [(await client.next())["kind"] for _ in range(2)]
        await world.commit_many(3)
        assert await client.until(3) == [1, 2, 3]
        assert await client.stop() == 0

    assert states == ["connecting", "live"]


async def test_it_survives_a_restart_without_loss_or_double(world: World, start: Start) -> None:
    """It comes back after a random time and resumes where it was."""
    async with contextlib.AsyncExitStack() as stack:
        async with world.broadcaster(limits=QUICK) as station:
            client = await stack.enter_async_context(start(url=station.url, token="ours", since=0))
            await client.next("live")
            await world.commit_many(3)
            assert await client.until(3) == [1, 2, 3]
        await world.commit_many(3)
        async with world.server(limits=QUICK).running("127.0.0.1", station.port):
            waiting = await client.next("waiting")
            assert await client.until(6) == [4, 5, 6]

    assert waiting["detail"]["code"] == 1012
    assert waiting["detail"]["seconds"] <= 0.1


async def test_filters_and_the_place_are_asked_for(world: World, start: Start) -> None:
    """What the caller wants to see is what comes, replayed and live."""
    await world.commit(make_event(), make_event(EventName.NOTE_CREATED), make_event(contact_id="e" * 24))
    async with world.broadcaster() as station:
        for options, sequences in (
            ({"since": 0, "events": ["note_created"]}, [2]),
            ({"since": 1, "contactId": "e" * 24}, [3]),
            ({"since": 0, "conversationId": "d" * 24}, [1, 3]),
        ):
            async with start(url=station.url, token="ours", **options) as client:
                assert await client.until(sequences[-1]) == sequences


async def test_a_gap_is_passed_on(world: World, start: Start) -> None:
    """The caller hears of what is not there, and the client goes on after it."""
    await world.commit_many(2)
    async with world.broadcaster() as station, start(url=station.url, token="ours", since=9) as client:
        gap = await client.next("gap")
        await world.commit(make_event())
        assert await client.until(3) == [3]

    assert gap["oldest"] == 3


async def test_a_quiet_listener_keeps_its_place(world: World, start: Start) -> None:
    """A pong moves a filtered listener forward, so that a reconnect does not go back to where it last saw something."""
    limits = unhurried(heartbeat_seconds=0.2 * SLOWNESS, jitter_seconds=0.05)
    async with (
        world.broadcaster(limits=limits) as station,
        start(url=station.url, token="ours", events=["note_created"], pongSeconds=60) as client,
    ):
        await client.next("live")
        await world.commit_many(4)

        async def has_moved() -> bool:
            return (await client.place())[0] == 4

        await until(has_moved)


@pytest.mark.parametrize("tokens", [["nobody"], ["nobody", "nobody"]])
async def test_a_wrong_token_stops_it(world: World, start: Start, tokens: list[str]) -> None:
    """It is told in words, once, and not tried again."""
    given = {"token": tokens[0]} if len(tokens) == 1 else {"tokens": tokens}
    async with world.broadcaster() as station, start(url=station.url, **given) as client:
        told = await client.next("error")
        stopped = await client.next("stopped")

    assert (told["code"], told["message"]) == ("unauthenticated", "Invalid token")
    assert stopped["detail"]["code"] == 4401


async def test_an_expired_token_is_replaced(world: World, start: Start) -> None:
    """Where the token comes from a function, a fresh one is asked for, and nothing is missed."""
    world.tokens["brief"] = Principal(TokenKind.JWT, world.ours, expires_at=time.time() + 2)
    async with world.broadcaster() as station, start(url=station.url, tokens=["brief", "ours"], since=0) as client:
        await client.next("live")
        await world.commit(make_event())
        waiting = await client.next("waiting")
        await world.commit(make_event())
        await client.until(2)

    assert client.heard == [1, 2]
    assert waiting["detail"]["code"] == 4498


async def test_a_dead_line_is_noticed(world: World, start: Start) -> None:
    """A line that goes dead without a goodbye is given up after a heartbeat and a ping, and nothing is missed."""
    limits = unhurried(heartbeat_seconds=0.5 * SLOWNESS)
    async with (
        world.broadcaster(limits=limits) as station,
        station.behind_a_line() as line,
        start(url=line.url, token="ours", since=0, pongSeconds=SLOWNESS) as client,
    ):
        await client.next("live")
        line.cut()
        waiting = await client.next("waiting")
        await world.commit(make_event())
        line.mend()
        assert await client.until(1) == [1]

    assert waiting["detail"]["code"] == 1006


async def test_a_server_without_room_is_tried_again(world: World, start: Start) -> None:
    """503 and 429 mean later, not never."""
    async with world.broadcaster(limits=Limits(per_organization=1)) as station, contextlib.AsyncExitStack() as stack:
        async with station.listener() as first:
            await first.next()
            client = await stack.enter_async_context(start(url=station.url, token="ours", chance=0.01))
            waiting = await client.next("waiting")
        await client.next("live")

    assert waiting["detail"]["code"] == 4429


async def test_a_slow_handler_gets_every_event_once(world: World, start: Start) -> None:
    """More events wait than are kept for it: the connection is given up meanwhile, and resumed."""
    await world.commit(*(make_event(padding=200) for _ in range(2500)))
    async with world.broadcaster() as station, start(url=station.url, token="ours", since=0, pause=0.001) as client:
        assert await client.until(2500) == list(range(1, 2501))


async def test_an_unreachable_broadcaster_is_tried_again_and_again(start: Start, unused_tcp_port: int) -> None:
    """Refused connections are retried, after a random time below a growing limit."""
    async with start(url=f"ws://127.0.0.1:{unused_tcp_port}", token="ours") as client:
        pauses = [(await client.next("waiting"))["detail"]["seconds"] for _ in range(3)]
        assert await client.stop() == 0

    assert all(0 <= pause <= 0.5 * 2**n for n, pause in enumerate(pauses))


async def test_many_are_followed_beside_each_other(world: World, start: Start) -> None:
    """Nothing of one follow is shared with another."""
    async with (
        world.broadcaster() as station,
        start(url=station.url, token="ours", since=0) as ours,
        start(url=station.url, token="theirs", since=0) as theirs,
    ):
        await world.commit(make_event())
        await world.commit(make_event(), make_event(), organization_id=world.theirs)
        async with patience():
            got = list(await asyncio.gather(ours.until(1), theirs.until(2)))

    assert got == [[1], [1, 2]]
