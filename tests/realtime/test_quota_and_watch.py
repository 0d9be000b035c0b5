"""The broadcaster keeps to an organization's quota of sockets, and has it written down who listens."""

import asyncio

import pytest
from websockets.exceptions import InvalidStatus

from domain.errors import Overloaded
from domain.principals import Principal, TokenKind
from realtime.limits import Limits
from tests.realtime.conftest import World, make_event
from tests.support.waiting import patience

QUICK = Limits(drain_seconds=0.1)


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
        async with patience():
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
        async with patience():
            while station.server.health()["listeners"] > 1:  # noqa: ASYNC110 - there is nothing to wait on
                await asyncio.sleep(0.01)
        async with station.listener() as third:
            assert (await third.next())["type"] == "hello"


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
