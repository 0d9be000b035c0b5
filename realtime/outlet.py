"""How frames leave: past the library to asyncio's transport, and live ones straight to the socket.

That is sound because a session never sends fragmented messages, because nothing is written once the closing handshake
has begun (RFC 6455 §5.5.1 forbids data after a close frame), and because nothing goes to the socket while the transport
holds something back.
"""

import asyncio
import enum
import fcntl
import socket
import sys
import termios
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from websockets.protocol import OPEN
from websockets.protocol import Protocol as WebSocketProtocol

from realtime.broadcaster import Send

NO_ROOM = -1  # what a `send` returns if too much is unsent already


class Route(enum.Enum):
    """Where live frames go."""

    STRAIGHT = "to the socket: the transport holds nothing"
    QUEUED = "to the transport, after what it holds"
    NOWHERE = "the connection is closing or over"


class Outlet:
    """The way out to one peer; at most `room` bytes of live frames wait for the peer to read.

    `send` takes live frames by the current route and returns how many bytes it took, or NO_ROOM. `rerouted` is given
    every new `send`. Whatever writes to the transport or learns of the connection's end calls `settle` afterwards, in
    the same step: then no route is ever out of date when a row is written.
    """

    __slots__ = ("_protocol", "_rerouted", "_straight", "_transport", "room", "route", "send")

    def __init__(
        self,
        protocol: WebSocketProtocol,
        transport: asyncio.Transport,
        room: int,
        rerouted: Callable[[Send], None],
    ) -> None:
        self._protocol = protocol
        self._transport = transport
        self._straight = _send_of(transport)
        self._rerouted = rerouted
        self.room = room
        self._take(Route.NOWHERE)
        self.settle()

    @property
    def is_open(self) -> bool:
        """Whether frames may still be written."""
        return self._protocol.state is OPEN

    @property
    def unsent(self) -> int:
        """Bytes that the transport holds."""
        return self._transport.get_write_buffer_size()

    @property
    def untaken(self) -> int:
        """Bytes that the peer's kernel has yet to take: unsent here, or in this machine's kernel (Linux tells)."""
        return self.unsent + _held_by_kernel(self._transport)

    def write(self, data: bytes) -> None:
        """Write ready frames, unless the connection is closing; they are never refused."""
        if data and self.is_open:
            self._transport.write(data)
            self.settle()

    def finish(self, data: bytes, sent: int) -> None:
        """Write the rest of frames of which `send` took only the first `sent` bytes."""
        self._transport.write(data[sent:])
        self.settle()

    def settle(self) -> None:
        """Choose the route of live frames."""
        if not self.is_open:
            route = Route.NOWHERE
        elif self._straight is None or self.unsent:
            route = Route.QUEUED
        else:
            route = Route.STRAIGHT
        if route is not self.route:
            self._take(route)

    def release(self) -> None:
        """Drop the reference to the listener, which refers to this outlet; call it after the connection's end."""
        self._rerouted = _ignore
        self._take(Route.NOWHERE)

    def _take(self, route: Route) -> None:
        self.route = route
        if route is Route.STRAIGHT and self._straight is not None:
            self.send = self._straight
        else:
            self.send = self._queue if route is Route.QUEUED else len
        self._rerouted(self.send)

    def _queue(self, data: bytes) -> int:
        if self.unsent + len(data) > self.room:
            return NO_ROOM
        self.write(data)
        return len(data)


def _ignore(_: Send) -> None:
    """Tell nobody."""


class _HasOutlet(Protocol):
    @property
    def outlet(self) -> Outlet: ...


S = TypeVar("S", bound=_HasOutlet)


def write_row(row: Mapping[S, Send], data: bytes, room: int) -> list[S]:
    """Write live frames to everybody in a row, each by its `send`; return those that have no room."""
    size = len(data)
    if size > room:
        return [one for one in row if one.outlet.route is not Route.NOWHERE]
    unfinished: dict[int, int] = {}
    # Everything else waits for this loop. It touches nothing of a listener but what it writes to: what belongs to a
    # thousand of them is in no cache, and looking at it took a fifth of the time.
    for send in row.values():
        try:
            sent = send(data)
        except OSError:
            sent = 0
        if sent != size:
            unfinished[id(send)] = sent
    return _finish(row, data, unfinished) if unfinished else []


def _finish(row: Mapping[S, Send], data: bytes, unfinished: dict[int, int]) -> list[S]:
    full = []
    for one, send in row.items():
        sent = unfinished.get(id(send))
        if sent == NO_ROOM:
            full.append(one)
        elif sent is not None:
            one.outlet.finish(data, sent)
    return full


def _held_by_kernel(transport: asyncio.Transport) -> int:
    """Return how many bytes the kernel has not got rid of (`SIOCOUTQ`), 0 where it does not say."""
    if not sys.platform.startswith("linux"):
        return 0
    held = bytearray(4)
    try:
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held)
    except (OSError, ValueError):  # the connection is over
        return 0
    return int.from_bytes(held, sys.byteorder)


def _send_of(transport: asyncio.Transport) -> Send | None:
    """Return the `send` of the socket itself, if it has one.

    asyncio (3.11 to 3.13) hands out a wrapper without it, so that nobody writes between two of its own writes. The
    public ways around that are worse: `dup` doubles the open files, and `os.write` to the number of a socket that was
    closed meanwhile reaches whoever has that number now.
    """
    inner: socket.socket | None = getattr(transport.get_extra_info("socket"), "_sock", None)
    return inner.send if inner else None
