import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from domain.errors import ConfigurationError, InvalidRequest, Unauthenticated
from domain.events import EventName
from domain.principals import Principal, TokenKind
from realtime.client import Frame, listen
from realtime.limits import Limits
from tests.realtime.conftest import World, make_event, unhurried
from tests.realtime.scripted import Said, event, hello, scripted
from tests.support.waiting import SLOWNESS, patience


async def take(frames: AsyncIterator[Frame], count: int) -> list[Frame]:
    """Take the next `count` frames."""
    async with patience():
        return [await anext(frames) for _ in range(count)]


async def test_it_survives_a_restart_without_loss_or_double(world: World) -> None:
    """A broadcaster that stops and comes back at the same address costs the listener nothing."""
    limits = unhurried(jitter_seconds=0.1)
    retries: list[str] = []
    async with world.broadcaster(limits=limits) as station:
        port = station.port
        frames = listen(station.url, "ours", on_retry=lambda _, reason: retries.append(reason))
        before = await take(frames, 1)
        await world.commit_many(3)
        before += await take(frames, 3)
    await world.commit_many(3)
    following = asyncio.create_task(take(frames, 5))
    async with world.server(limits=limits).running("127.0.0.1", port):
        await world.commit(make_event())
        after = await following
        await frames.aclose()

    assert [frame.get("seq") for frame in before] == [None, 1, 2, 3]
    assert (after[0]["type"], [frame["seq"] for frame in after[1:]]) == ("hello", [4, 5, 6, 7])
    assert retries[0] == "restarting; come back and resume"


async def test_filters_and_since_are_asked_for(world: World) -> None:
    """What the caller wants to see is what comes, replayed and live."""
    await world.commit(make_event(), make_event(EventName.NOTE_CREATED), make_event(contact_id="e" * 24))
    async with world.broadcaster() as station:
        url = station.url
        async with contextlib.aclosing(listen(url, "ours", since=0, events=["note_created"])) as notes:
            assert [frame.get("seq") for frame in await take(notes, 2)] == [None, 2]
        async with contextlib.aclosing(listen(url, "ours", since=1, contact_id="e" * 24)) as contact:
            assert [frame.get("seq") for frame in await take(contact, 2)] == [None, 3]
        async with contextlib.aclosing(listen(url, "ours", since=0, conversation_id="d" * 24)) as conversation:
            assert [frame.get("seq") for frame in await take(conversation, 3)] == [None, 1, 3]


async def test_a_gap_is_passed_on(world: World) -> None:
    """The caller hears of what is gone, and the client goes on after it."""
    await world.commit_many(2)
    async with world.broadcaster() as station, contextlib.aclosing(listen(station.url, "ours", since=9)) as frames:
        hello, gap = await take(frames, 2)
        await world.commit(make_event())
        (event,) = await take(frames, 1)

    assert (hello["since"], gap["oldest"], event["seq"]) == (2, 3, 3)


async def test_a_quiet_listener_keeps_its_place(world: World) -> None:
    """A pong moves a filtered listener forward, so that a reconnect does not go back to where it last saw something."""
    limits = unhurried(heartbeat_seconds=0.5 * SLOWNESS, jitter_seconds=0.05)
    async with world.broadcaster(limits=limits) as station:
        port = station.port
        frames = listen(station.url, "ours", events=["note_created"])
        await take(frames, 1)
        await world.commit_many(4)
        waiting = asyncio.create_task(take(frames, 1))
        async with patience():
            while b"realtime_pongs_total 0.0" in (await station.get("/metrics"))[2]:
                pass
    async with world.server(limits=limits).running("127.0.0.1", port):
        (hello,) = await waiting
        await frames.aclose()

    assert hello["since"] == 4


@pytest.mark.parametrize(
    ("token", "options", "error"),
    [
        ("nobody", {}, Unauthenticated),
        ("ours", {"events": ["nothing"]}, InvalidRequest),
        ("ours", {"contact_id": "7"}, InvalidRequest),
    ],
)
async def test_what_cannot_get_better_is_not_tried_again(
    world: World, token: str, options: dict[str, Any], error: type[Exception]
) -> None:
    """A wrong token or a refused filter ends the iteration at once."""
    async with world.broadcaster() as station:
        with pytest.raises(error):
            await take(listen(station.url, token, **options), 1)


async def test_an_expired_token_ends_it(world: World) -> None:
    """When the token ends there is nothing to come back with."""
    world.tokens["brief"] = Principal(TokenKind.JWT, world.ours, expires_at=time.time() + 0.2)
    async with world.broadcaster() as station:
        with pytest.raises(Unauthenticated):
            await take(listen(station.url, "brief"), 2)


async def test_an_address_that_is_none_is_said(world: World) -> None:
    """A mistyped URL is a clear sentence."""
    with pytest.raises(ConfigurationError, match="ws://host:port"):
        await take(listen("127.0.0.1:2213", "ours"), 1)


async def test_an_unreachable_broadcaster_is_tried_again_and_again(world: World, unused_tcp_port: int) -> None:
    """Refused connections are retried, after a random time below a growing limit."""
    delays: list[float] = []
    enough = asyncio.Event()

    def note(delay: float, _: str) -> None:
        delays.append(delay)
        if len(delays) == 3:
            enough.set()

    following = asyncio.create_task(take(listen(f"ws://127.0.0.1:{unused_tcp_port}", "ours", on_retry=note), 1))
    async with patience():
        await enough.wait()
    following.cancel()

    assert all(0 <= delay <= 0.5 * 2**n for n, delay in enumerate(delays))


async def test_a_server_without_room_is_tried_again(world: World) -> None:
    """503 and 429 mean later, not never."""
    async with world.broadcaster(limits=Limits(per_organization=1)) as station:
        retried = asyncio.Event()
        async with station.listener() as first:
            await first.next()
            frames = listen(station.url, "ours", on_retry=lambda *_: retried.set())
            waiting = asyncio.create_task(take(frames, 1))
            await retried.wait()
        (hello,) = await waiting
        await frames.aclose()

    assert hello["type"] == "hello"


# A broadcaster that says what is written down.


@pytest.fixture
def longest_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every pause be as long as it may."""
    monkeypatch.setattr("realtime.client.random.uniform", lambda _, most: most)


async def test_a_repeated_event_is_given_once() -> None:
    """Whether it comes on the same connection or on the next."""
    scripts: list[list[Said]] = [[hello(), event(1), event(1), event(2), 1012], [hello(2), event(2), event(3)]]
    async with scripted(*scripts) as playing, contextlib.aclosing(listen(playing.url, "ours")) as frames:
        seen = [frame.get("seq") for frame in await take(frames, 5)]

    assert seen == [None, 1, 2, None, 3]
    assert playing.since == [None, 2]


async def test_it_comes_back_to_where_the_hello_said() -> None:
    """What is committed after the hello and before the first event is not lost."""
    async with (
        scripted([hello(4), 1012], [hello(4), event(5)]) as playing,
        contextlib.aclosing(listen(playing.url, "ours")) as frames,
    ):
        await take(frames, 3)

    assert playing.since == [None, 4]


async def test_it_comes_back_behind_a_gap() -> None:
    """It was told once of what is gone, and does not ask for it again."""
    gap = {"type": "gap", "since": 1, "oldest": 9}
    async with (
        scripted([hello(1), gap, 1012], [hello(8), event(9)]) as playing,
        contextlib.aclosing(listen(playing.url, "ours", since=1)) as frames,
    ):
        await take(frames, 4)

    assert playing.since == [1, 8]


async def test_a_quiet_line_is_asked_and_moves_its_place() -> None:
    """After a heartbeat's time without a frame it pings, and comes back to where the pong said."""
    async with (
        scripted([hello(1, heartbeat=0.05)], [hello(7)]) as playing,
        contextlib.aclosing(listen(playing.url, "ours")) as frames,
    ):
        await take(frames, 1)
        waiting = asyncio.create_task(take(frames, 1))
        await playing.until_asked(2)
        playing.break_off()
        await waiting

    assert playing.since == [None, 7]


@pytest.mark.usefixtures("longest_pause")
async def test_pauses_grow_up_to_a_limit_and_begin_anew_after_a_hello() -> None:
    """A server that lets nobody in is asked less and less, one that does is trusted again."""
    delays: list[float] = []
    out: list[Said] = [None]
    greeting = hello(base=0.01, longest=0.03)
    scripts: list[list[Said]] = [[greeting, None], out, out, out, [greeting, None], [greeting]]
    async with (
        scripted(*scripts) as playing,
        contextlib.aclosing(listen(playing.url, "ours", on_retry=lambda delay, _: delays.append(delay))) as frames,
    ):
        await take(frames, 3)

    assert delays == [0.01, 0.02, 0.03, 0.03, 0.01]


@pytest.mark.parametrize("code", [4401, 4497, 4498])
async def test_a_token_that_is_worth_nothing_ends_it(code: int) -> None:
    """There is nothing to come back with."""
    async with scripted([hello(), code]) as playing, contextlib.aclosing(listen(playing.url, "ours")) as frames:
        with pytest.raises(Unauthenticated):
            await take(frames, 2)

    assert len(playing.since) == 1
