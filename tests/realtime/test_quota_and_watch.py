"""The broadcaster keeps to an organization's quota of sockets, and has it written down who listens."""

import asyncio
import contextlib
import itertools

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from domain.errors import Overloaded
from domain.principals import Principal, TokenKind
from domain.times import later
from persistence import open_sockets
from persistence.models import OpenSockets
from realtime.limits import Limits
from tests.realtime.conftest import BOTH_ENGINES, Station, World, make_event
from tests.realtime.stations import Stations
from tests.support.waiting import patience, until

QUICK = Limits(drain_seconds=0.1)
BEARER = {"Authorization": "Bearer ours"}


class Book:
    """Writes down sockets, unless it is out of order."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, bool]] = []
        self.is_down = False
        self._written = asyncio.Event()

    async def watch(self, principal: Principal, address: str, /, *, is_open: bool) -> None:
        if self.is_down:
            raise Overloaded
        self.lines.append((principal.user_id or "", address, is_open))
        self._written.set()

    async def reached(self, count: int) -> None:
        """Wait until there are so many lines."""
        async with asyncio.timeout(10):
            while len(self.lines) < count:
                self._written.clear()
                await self._written.wait()


def person(world: World, user_id: str) -> Principal:
    return Principal(TokenKind.API_KEY, world.ours, user_id, credential=user_id)


async def test_sockets_beyond_the_quota_are_refused(world: World) -> None:
    """429 before the upgrade, 4429 after it; others are not concerned, and a place that is left is free."""

    async def quota(organization_id: str) -> int:
        return 2 if organization_id == world.ours else 0

    async with world.broadcaster(limits=QUICK, quota=quota) as station, station.listener("theirs") as other:
        async with station.listener() as first, station.listener() as second:
            for radio in (first, second):
                assert (await radio.next())["type"] == "hello"
            with pytest.raises(InvalidStatus) as refused:
                async with station.listener():
                    pass
            async with station.listener(None) as late:
                await late.send(type="auth", token="ours")
                assert (await late.next())["code"] == "too_many"
                assert await late.closed() == 4429
        assert refused.value.response.status_code == 429
        assert b"realtime_quota_refused_total 2.0" in (await station.get("/metrics"))[2]
        assert (await other.next())["type"] == "hello"
        async with asyncio.timeout(10):
            while station.server.health()["listeners"] > 1:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.01)
        async with station.listener() as third:
            assert (await third.next())["type"] == "hello"


@pytest.fixture
def quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.socket_counts.ROUND_SECONDS", 0.01)


async def counted(world: World, count: int) -> None:
    """Wait until so many sockets of ours are counted at all broadcasters."""

    async def reached() -> bool:
        return await world.database.read(lambda: open_sockets.count(world.ours)) == count

    await until(reached)


async def prolonged(world: World, ends_at: str) -> bool:
    return bool(await world.database.read(lambda: OpenSockets.get().ends_at != ends_at))


async def refused_at(station: Station) -> int:
    """Come in as one of ours until a socket is refused; return how many were not."""
    async with contextlib.AsyncExitStack() as stack, patience():
        for before in itertools.count():
            try:
                radio = await stack.enter_async_context(station.listener())
            except InvalidStatus:
                return before
            assert (await radio.next())["type"] == "hello"
    raise AssertionError


@BOTH_ENGINES
@pytest.mark.usefixtures("quick_rounds")
async def test_the_quota_holds_across_broadcasters(world: World) -> None:
    """Sockets at one leave fewer for the other; closed, or with their broadcaster stopped, they count no more."""

    async def quota(_: str) -> int:
        return 3

    async with world.broadcaster(limits=QUICK, quota=quota) as other, contextlib.AsyncExitStack() as stack:
        async with world.broadcaster(limits=QUICK, quota=quota) as one:
            async with one.listener() as first, one.listener() as second, one.listener("theirs") as foreign:
                for radio in (first, second, foreign):
                    assert (await radio.next())["type"] == "hello"
                await counted(world, 2)
                async with patience():
                    while await refused_at(other) != 1:
                        pass
            await counted(world, 0)
            last = await stack.enter_async_context(one.listener())
            await last.next()
            await counted(world, 1)
        await counted(world, 0)
        async with patience():
            while await refused_at(other) != 3:
                pass


@BOTH_ENGINES
async def test_the_count_of_a_killed_broadcaster_ends_within_a_minute(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself; or at once when a broadcaster starts where it was."""
    stations = Stations(database_url, 100, world.ours, 1)
    port = stations.ports[0]
    async with stations.running(), connect(f"ws://127.0.0.1:{port}/v1", additional_headers=BEARER, proxy=None):
        await counted(world, 1)
        await stations.kill(port)
        assert await world.database.read(lambda: open_sockets.count(world.ours)) == 1
        with monkeypatch.context() as a_minute_later:
            a_minute_later.setattr(open_sockets, "now", lambda: later(60))
            assert await world.database.read(lambda: open_sockets.count(world.ours)) == 0
        await stations.start(port)
        await counted(world, 0)


async def test_counts_live_on_while_nothing_changes_and_come_back_when_they_were_removed(
    world: World, monkeypatch: pytest.MonkeyPatch, quick_rounds: None
) -> None:
    """A broadcaster of the same name that starts elsewhere takes rows away that are not its own."""
    async with world.broadcaster(limits=QUICK) as station, station.listener() as radio:
        await radio.next()
        await counted(world, 1)
        first = await world.database.read(lambda: OpenSockets.get())
        monkeypatch.setattr("realtime.socket_counts.PROLONG_SECONDS", 0)
        await until(lambda: prolonged(world, first.ends_at))
        await world.database.write(lambda: open_sockets.leave(first.place))
        await counted(world, 1)


async def test_opening_and_closing_are_written_down_once_each(world: World) -> None:
    """By whom and from where; a socket that never proved who it is leaves nothing."""
    book = Book()
    world.tokens["sam"] = person(world, "s" * 24)
    async with world.broadcaster(limits=QUICK, watch=book.watch) as station:
        async with station.listener("sam") as radio:
            await radio.next()
            assert book.lines == [("s" * 24, "127.0.0.1", True)]
            async with station.listener(None):
                pass
        await book.reached(2)

    assert book.lines == [("s" * 24, "127.0.0.1", True), ("s" * 24, "127.0.0.1", False)]


async def test_a_socket_of_another_user_after_a_renewal_is_written_down(world: World) -> None:
    """The first one has gone then, and the end is the second one's."""
    book = Book()
    world.tokens |= {"sam": person(world, "s" * 24), "kim": person(world, "k" * 24)}
    async with world.broadcaster(limits=QUICK, watch=book.watch) as station:
        async with station.listener("sam") as radio:
            await radio.next()
            assert (await radio.ask(type="auth", token="kim"))["type"] == "hello"
        await book.reached(4)

    assert [(who[0], is_open) for who, _, is_open in book.lines] == [
        ("s", True),
        ("k", True),
        ("s", False),
        ("k", False),
    ]


async def test_a_socket_that_cannot_be_written_down_hears_nothing(world: World) -> None:
    """It is asked to come back later."""
    book = Book()
    book.is_down = True
    async with world.broadcaster(limits=QUICK, watch=book.watch) as station, station.listener() as radio:
        await world.commit(make_event())
        frames = [frame["type"] async for frame in radio.frames()]
        assert frames == ["error"]
        assert await radio.closed() == 1013
