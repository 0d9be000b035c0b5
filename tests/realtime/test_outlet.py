"""The three routes of live frames, on a real pair of sockets."""

import asyncio
import gc
import socket
import weakref
from collections.abc import AsyncIterator

import pytest
from websockets.protocol import CLOSING, OPEN
from websockets.server import ServerProtocol

from realtime.broadcaster import Send
from realtime.outlet import NO_ROOM, Outlet, Route, write_row

ROOM = 100_000
MUCH = b"x" * (8 << 20)  # more than a pair of sockets takes at once


class Ears:
    """A peer's end, and the outlet to it."""

    def __init__(self, outlet: Outlet, protocol: ServerProtocol, socket_: socket.socket, sends: list[Send]) -> None:
        self.outlet = outlet
        self.protocol = protocol
        self.socket = socket_
        self.sends = sends

    async def hear(self, size: int) -> bytes:
        heard = bytearray()
        while len(heard) < size:
            heard += await asyncio.get_running_loop().sock_recv(self.socket, 1 << 20)
        return bytes(heard)


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
    protocol = ServerProtocol()
    protocol.state = OPEN
    sends: list[Send] = []
    yield Ears(Outlet(protocol, transport, ROOM, sends.append), protocol, theirs, sends)
    transport.abort()
    theirs.close()


async def test_live_frames_go_straight_while_the_transport_holds_nothing(ears: Ears) -> None:
    """The socket takes them, and the transport sees nothing of it."""
    sent = ears.outlet.send(b"frame")

    assert (ears.outlet.route, sent, ears.outlet.unsent) == (Route.STRAIGHT, 5, 0)
    assert await ears.hear(5) == b"frame"


async def test_live_frames_are_queued_after_what_the_transport_holds(ears: Ears) -> None:
    """Order is kept, up to the room there is; once all was read they go straight again."""
    ears.outlet.write(MUCH)
    held = ears.outlet.route
    ears.outlet.room = ears.outlet.unsent + 5
    first, second = ears.outlet.send(b"first"), ears.outlet.send(b"second")
    heard = await ears.hear(len(MUCH) + 5)
    ears.outlet.settle()

    assert (held, first, second) == (Route.QUEUED, 5, NO_ROOM)
    assert heard[-6:] == b"xfirst"
    assert ears.outlet.route is Route.STRAIGHT


async def test_live_frames_go_nowhere_once_the_connection_is_closing(ears: Ears) -> None:
    """Data after a close frame would break the protocol, whatever is still queued."""
    ears.protocol.state = CLOSING
    ears.outlet.settle()
    sent = ears.outlet.send(b"frame")
    ears.outlet.write(b"frame")

    assert (ears.outlet.route, sent) == (Route.NOWHERE, 5)
    with pytest.raises(BlockingIOError):
        ears.socket.recv(1)


async def test_a_row_is_written_whole_although_one_socket_took_a_part(ears: Ears) -> None:
    """The rest follows by the transport, and live frames queue behind it."""
    full = write_row({ears: ears.outlet.send}, MUCH, len(MUCH))

    assert (full, ears.outlet.route, ears.sends[-1]) == ([], Route.QUEUED, ears.outlet.send)
    assert await ears.hear(len(MUCH)) == MUCH


async def test_a_row_says_who_has_no_room(ears: Ears) -> None:
    """By what waits already, or because the frames alone are too long for anybody who still listens."""
    ears.outlet.write(MUCH)
    by_what_waits = write_row({ears: ears.outlet.send}, b"x", ROOM)
    by_length = write_row({ears: ears.outlet.send}, MUCH, ROOM)
    ears.protocol.state = CLOSING
    ears.outlet.settle()
    over = write_row({ears: ears.outlet.send}, MUCH, ROOM)

    assert (by_what_waits, by_length, over) == ([ears], [ears], [])


async def test_a_released_outlet_keeps_no_listener(ears: Ears) -> None:
    """A listener and its outlet refer to each other, and the collector rarely comes."""

    class Listener:
        def reach_by(self, send: Send) -> None:
            self.send = send

    listener = Listener()
    gone = weakref.ref(listener)
    outlet = Outlet(ears.protocol, ears.outlet._transport, ROOM, listener.reach_by)
    gc.disable()
    try:
        outlet.release()
        del listener
        assert gone() is None
    finally:
        gc.enable()
