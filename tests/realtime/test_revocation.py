import asyncio
import contextlib
from collections.abc import Collection

import pytest

from domain.errors import Overloaded
from domain.principals import Principal, TokenKind
from tests.realtime.conftest import World, make_event, unhurried
from tests.support.waiting import patience

QUICK = unhurried(revocation_seconds=0.02)


class Register:
    """Says which credentials were revoked, and remembers what it was asked."""

    def __init__(self) -> None:
        self.void: set[str] = set()
        self.questions: list[list[str]] = []
        self.is_down = False
        self._asked = asyncio.Event()

    async def revoked(self, principals: Collection[Principal]) -> list[Principal]:
        self.questions.append([one.credential for one in principals])
        self._asked.set()
        if self.is_down:
            raise Overloaded
        return [one for one in principals if one.credential in self.void]

    async def asked(self, times: int) -> None:
        """Wait until the question was asked that often from now on."""
        wanted = len(self.questions) + times
        async with patience():
            while len(self.questions) < wanted:
                self._asked.clear()
                await self._asked.wait()


def token(world: World, credential: str) -> Principal:
    return Principal(TokenKind.API_KEY, world.ours, "u" * 24, credential=credential)


async def test_who_shares_a_revoked_token_is_closed_with_4497(world: World) -> None:
    """Every connection of that token ends with its own code; connections of other tokens go on."""
    register = Register()
    world.tokens |= {name: token(world, name) for name in ("old", "good")}
    async with (
        world.broadcaster(revoked=register.revoked, limits=QUICK) as station,
        station.listener("old") as first,
        station.listener(None) as second,
        station.listener("good") as neighbour,
    ):
        await second.send(type="auth", token="old")
        for radio in (first, second, neighbour):
            assert (await radio.next())["type"] == "hello"
        register.void.add("old")
        assert [await first.closed(), await second.closed()] == [4497, 4497]
        await world.commit(make_event())
        assert await neighbour.until(1) == [1]


async def test_one_question_is_asked_however_many_share_a_token(world: World) -> None:
    """The cost grows with the tokens in use, not with the sockets, and nobody is asked about before the hello."""
    register = Register()
    world.tokens["shared"] = token(world, "shared")
    async with (
        world.broadcaster(revoked=register.revoked, limits=QUICK) as station,
        station.listener("shared") as one,
        station.listener("shared") as two,
        station.listener(None),
    ):
        await one.next()
        await two.next()
        await register.asked(2)

    assert {tuple(question) for question in register.questions} <= {(), ("shared",)}
    assert ["shared"] in register.questions


async def test_a_connection_renewed_with_a_good_token_stays(world: World) -> None:
    """What counts is the token a connection has now, not the one it came with."""
    register = Register()
    world.tokens |= {name: token(world, name) for name in ("old", "new")}
    async with world.broadcaster(revoked=register.revoked, limits=QUICK) as station, station.listener("old") as radio:
        await radio.next()
        assert (await radio.ask(type="auth", token="new"))["type"] == "hello"
        register.void.add("old")
        await register.asked(2)
        await world.commit(make_event())
        assert await radio.until(1) == [1]


async def test_a_register_out_of_order_closes_nobody(world: World) -> None:
    """While tokens cannot be checked connections stay, and the check goes on once they can."""
    register = Register()
    register.is_down = True
    world.tokens["key"] = token(world, "key")
    async with world.broadcaster(revoked=register.revoked, limits=QUICK) as station, station.listener("key") as radio:
        await radio.next()
        register.void.add("key")
        await register.asked(2)
        await world.commit(make_event())
        assert await radio.until(1) == [1]
        register.is_down = False
        assert await radio.closed() == 4497


async def test_two_users_whose_tokens_have_the_same_version_are_told_apart(world: World) -> None:
    """One who signs out closes no connection of the other."""
    one, two = [Principal(TokenKind.JWT, world.ours, digit * 24, credential="0") for digit in "12"]
    world.tokens |= {"one": one, "two": two}
    gone: list[Principal] = []
    rounds = asyncio.Event()

    async def revoked(principals: Collection[Principal]) -> list[Principal]:
        rounds.set()
        return [each for each in principals if each in gone]

    async with (
        world.broadcaster(revoked=revoked, limits=QUICK) as station,
        station.listener("one") as first,
        station.listener("two") as second,
    ):
        assert [(await each.next())["type"] for each in (first, second)] == ["hello"] * 2
        gone.append(one)
        assert await first.closed() == 4497
        rounds.clear()
        await asyncio.wait_for(rounds.wait(), 10)
        await world.commit(make_event())
        assert await second.until(1) == [1]


async def test_more_tokens_are_asked_about_than_fit_into_one_question(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, each is looked at again."""
    monkeypatch.setattr("realtime.revocation._BATCH", 2)
    register = Register()
    names = [str(number) for number in range(5)]
    world.tokens |= {name: token(world, name) for name in names}
    async with (
        world.broadcaster(revoked=register.revoked, limits=QUICK) as station,
        contextlib.AsyncExitStack() as stack,
    ):
        radios = [await stack.enter_async_context(station.listener(name)) for name in names]
        for radio in radios:
            await radio.next()
        register.void.add(names[-1])
        assert await radios[-1].closed() == 4497
        await world.commit(make_event())
        assert [await radio.until(1) for radio in radios[:-1]] == [[1]] * 4
