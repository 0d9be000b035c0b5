import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from domain.errors import Overloaded
from openapi.exchange import Request, Response
from openapi.serving.bodies import BodyRoom
from tests.support.contracts import BODIES, Answered, Lab, bindings_of, build, contract_of
from tests.support.waiting import patience

MB = 1024 * 1024


def test_large_bodies_share_a_room_and_are_refused_when_it_is_full() -> None:
    """What one request frees, another may take."""
    room = BodyRoom(9 * MB, MB)
    for owner in range(3):
        room.share(owner).grow_to(2 * MB)
    last, another = room.share(3), room.share(4)
    last.grow_to(3 * MB)

    with pytest.raises(Overloaded):
        another.grow_to(MB)
    last.free()
    another.grow_to(3 * MB)


def test_no_owner_holds_more_than_its_share() -> None:
    """However many requests it makes; the others have theirs."""
    room = BodyRoom(9 * MB, MB)
    room.share("one").grow_to(2 * MB)
    more = room.share("one")
    more.grow_to(MB)

    with pytest.raises(Overloaded):
        more.grow_to(2 * MB)
    room.share("another").grow_to(3 * MB)


def test_an_announced_size_takes_no_room() -> None:
    """Whoever announces more than fits is told at once, and whoever only announces stands in nobody's way."""
    room = BodyRoom(9 * MB, MB)
    for _ in range(100):
        room.share("one").insist_on(3 * MB)
    room.share("one").grow_to(3 * MB)

    with pytest.raises(Overloaded):
        room.share("one").insist_on(MB)


def test_a_body_that_grows_does_not_stand_in_its_own_way() -> None:
    """It counts once, however many pieces it came in."""
    room = BodyRoom(30 * MB, MB)
    growing, other = room.share("one"), room.share("one")
    for size in range(2, 10):
        growing.grow_to(size * MB)

    with pytest.raises(Overloaded):
        other.grow_to(2 * MB)
    growing.free()
    other.grow_to(10 * MB)


def test_one_body_always_fits() -> None:
    """A limit set too low must not refuse everything."""
    room = BodyRoom(MB, largest=48 * MB)
    share = room.share("one")

    share.grow_to(48 * MB)
    share.free()
    room.share("one").grow_to(48 * MB)


def test_small_bodies_hold_nothing() -> None:
    """Tool calls are served however full the room is."""
    room = BodyRoom(3 * MB, MB)
    for owner in range(3):
        room.share(owner).grow_to(MB)

    room.share(0).grow_to(64 * 1024)


async def test_large_bodies_are_read_in_turns() -> None:
    """However many there are, everybody else is served after each piece of any of them."""
    room, rounds, read = BodyRoom(100 * MB, MB), 0, [0] * 10

    async def receive_one(number: int) -> None:
        share = room.share(number)
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
    room = BodyRoom(100 * MB, MB)
    large, small = room.share("one"), room.share("one")
    large.grow_to(2 * MB)
    small.grow_to(1024)
    waiting = asyncio.create_task(large.turn())
    await asyncio.sleep(0)

    turn = small.turn()
    with pytest.raises(StopIteration):
        turn.send(None)
    await waiting


# The room behind the operations

JSON = {"content": {"application/json": {"schema": {"type": "object", "required": ["a"]}}}}
LARGE = b'{"a": "' + b"x" * 2 * MB + b'"}'


async def take(request: Request[Lab], **body: Any) -> Response[Any]:
    del body
    if request.relay.error is not None:
        raise request.relay.error
    return Answered({})


@contextlib.asynccontextmanager
async def two_operations(held_body_bytes: int) -> AsyncIterator[tuple[httpx.AsyncClient, Lab]]:
    """Serve two operations that take a body each, in one room."""
    operation = {"x-public": "a test", "requestBody": JSON, "responses": {"200": {"description": "ok"}}}
    contract = contract_of({f"/api/{name}": {"post": operation} for name in ("one", "other")})
    handlers = {one.key: take for one in contract.operations}
    lab = Lab()
    # A share, the third part of a room, holds one of the largest bodies.
    bodies = replace(BODIES, body_bytes=3 * MB, held_bytes=held_body_bytes, held_unverified_bytes=held_body_bytes)
    app: Any = build(contract, lab, handlers, bindings_of(contract), bodies=bodies)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as http:
        yield http, lab


async def test_a_request_that_is_refused_gives_its_room_back() -> None:
    """Whatever is wrong with it: the next one of its size is served."""
    async with two_operations(3 * MB) as (http, lab):
        statuses = [
            (await http.post("/api/one", content=body)).status_code for body in (LARGE[:-1], b"[" + LARGE + b"]")
        ]
        lab.error = RuntimeError("ours")
        statuses.append((await http.post("/api/one", content=LARGE)).status_code)
        lab.error = None
        statuses.append((await http.post("/api/one", content=LARGE)).status_code)

    assert statuses == [400, 400, 500, 200]


async def test_a_body_in_chunks_takes_room_from_every_operation_until_it_is_answered() -> None:
    """No length was announced; what came counts."""
    is_read, go_on = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield LARGE[:-1]
        is_read.set()
        await go_on.wait()
        yield LARGE[-1:]

    async with two_operations(3 * MB) as (http, _), patience():
        first = asyncio.create_task(http.post("/api/one", content=pieces()))
        await is_read.wait()
        refused = await http.post("/api/other", content=LARGE)
        go_on.set()
        accepted = await first
        again = await http.post("/api/other", content=LARGE)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert (accepted.status_code, again.status_code) == (200, 200)
