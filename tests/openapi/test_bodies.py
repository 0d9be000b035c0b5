import asyncio

import pytest

from domain.errors import Overloaded
from openapi.bodies import BodyRoom

MB = 1024 * 1024


def test_large_bodies_share_a_room_and_are_refused_when_it_is_full() -> None:
    """What one request frees, another may take."""
    room = BodyRoom(10 * MB)
    first, second = room.share(), room.share()
    first.grow_to(6 * MB)

    with pytest.raises(Overloaded):
        second.grow_to(5 * MB)
    first.free()
    second.grow_to(5 * MB)


def test_a_body_that_grows_does_not_stand_in_its_own_way() -> None:
    """It counts once, however many pieces it came in."""
    room = BodyRoom(10 * MB)
    growing, other = room.share(), room.share()
    for size in range(2, 10):
        growing.grow_to(size * MB)

    with pytest.raises(Overloaded):
        other.grow_to(2 * MB)
    growing.free()
    other.grow_to(10 * MB)


def test_one_body_always_fits() -> None:
    """A limit set too low must not refuse everything."""
    room = BodyRoom(MB)
    share = room.share()

    share.grow_to(48 * MB)
    share.free()
    room.share().grow_to(48 * MB)


def test_small_bodies_hold_nothing() -> None:
    """Tool calls are served however full the room is."""
    room = BodyRoom(2 * MB)
    room.share().grow_to(48 * MB)

    room.share().grow_to(MB)


async def test_large_bodies_are_read_in_turns() -> None:
    """However many there are, everybody else is served after each piece of any of them."""
    room, rounds, read = BodyRoom(100 * MB), 0, [0] * 10

    async def receive_one(number: int) -> None:
        share = room.share()
        share.grow_to(2 * MB)
        while rounds < 100:
            await share.turn()
            read[number] += 1

    async with asyncio.TaskGroup() as everybody:
        for number in range(len(read)):
            everybody.create_task(receive_one(number))
        while rounds < 100:
            await asyncio.sleep(0)
            rounds += 1

    assert sum(read) <= 100 + len(read)
    assert min(read) >= 100 // len(read) // 3
    assert max(read) - min(read) <= 1


async def test_small_bodies_wait_for_no_turn() -> None:
    """A tool call is read at once, whoever else is reading."""
    room = BodyRoom(100 * MB)
    large, small = room.share(), room.share()
    large.grow_to(2 * MB)
    small.grow_to(1024)
    waiting = asyncio.create_task(large.turn())
    await asyncio.sleep(0)

    turn = small.turn()
    with pytest.raises(StopIteration):
        turn.send(None)
    await waiting
