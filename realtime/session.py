"""One listener's connection: a `Listener` of the broadcaster, whose frames leave by its `Outlet`."""

import asyncio
import contextlib
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection
from websockets.protocol import CONNECTING

from domain.addresses import network_of
from domain.principals import Principal
from realtime.broadcaster import Listener
from realtime.handshake import Handshake
from realtime.outlet import Outlet

_CLOSE_SECONDS = 10.0  # long enough for a peer that was busy to read what is unsent, and why it was closed

# What may arrive before the request is answered. The library would take 128 lines of 8 KiB, a megabyte a connection.
MAX_HEAD_BYTES = 32 << 10
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

_LONGEST_REASON = 123  # bytes, RFC 6455 §5.5


class Peer(ServerConnection):
    """A connection that remembers what its handshake asked for, whose token was believed, and whether it is alive."""

    asked: Handshake
    address = ""  # the client's: the peer's own, or what a trusted proxy says
    principal: Principal | None = None
    foreign_origin: str | None = None  # of the page that asked, if its pages may not connect
    session: "Session | None" = None
    is_silent = False
    head_bytes = 0
    unread_answers = 0  # bytes of what the library said since the write buffer was empty
    on_begin: Callable[["Peer"], None] | None = None
    on_end: Callable[["Peer"], None] | None = None
    on_large_head: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the beginning."""
        super().connection_made(transport)
        peer = self.remote_address
        self.address = str(peer[0]) if peer else ""
        if self.on_begin:
            self.on_begin(self)

    def data_received(self, data: bytes) -> None:
        """Take whatever comes as a sign of life; cut off a request whose head is too long."""
        self.is_silent = False
        if self.protocol.state is CONNECTING:
            self._receive_head(data)
        else:
            super().data_received(data)

    def _receive_head(self, data: bytes) -> None:
        self.head_bytes += len(data)
        if self.head_bytes > MAX_HEAD_BYTES and not self.protocol.eof_sent:
            self._refuse_head()
            return
        super().data_received(data)
        if self.protocol.eof_sent and self.request and self.response is None:
            # What follows the request breaks the protocol: the library has hung up, and fails if it answers after that.
            self.protocol.receive_eof()
            self.transport.abort()

    def _refuse_head(self) -> None:
        if self.transport.is_closing():
            return
        if self.on_large_head:
            self.on_large_head()
        self.transport.write(_TOO_LARGE)
        self.transport.close()

    def send_data(self) -> None:
        """Write what the library has to say, which may have been the last; cut off who pings and reads no answer."""
        before = self.transport.get_write_buffer_size()
        super().send_data()
        after = self.transport.get_write_buffer_size()
        self.unread_answers = self.unread_answers + after - before if before else after
        if self.session:
            self.session.outlet.settle()
            if self.unread_answers > self.session.outlet.room:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        super().connection_lost(exc)
        if self.on_end:
            self.on_end(self)
        if self.session:
            self.session.outlet.settle()

    def forget_handshake(self) -> None:
        """Let go of the heads of the request and of its answer, which the library keeps as long as the connection."""
        self.response = None
        if self.request:
            self.request.headers.clear()


class Session(Listener):
    """State of one connection, from its handshake to its end; at most `room` bytes wait for the peer to read."""

    __slots__ = (
        "address",
        "budget",
        "budget_at",
        "connection",
        "outlet",
        "principal",
        "replay",
        "timer",
        "watched",
    )

    def __init__(self, connection: Peer, room: int) -> None:
        super().__init__()
        self.connection = connection
        self.address = network_of(connection.address)
        self.principal: Principal | None = None
        self.watched: Principal | None = None  # whose opening of this socket was written down
        self.replay: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.budget = 0.0
        self.budget_at = 0.0
        self.outlet = Outlet(connection.protocol, connection.transport, room, self.reach_by)
        connection.session = self

    @property
    def is_open(self) -> bool:
        """Whether frames may still be written."""
        return self.outlet.is_open

    def write(self, data: bytes) -> None:
        """Write ready frames, unless the connection is closing."""
        self.outlet.write(data)

    async def drained(self) -> None:
        """Wait until the peer has read most of what was written, or the connection is over, whatever ended it."""
        with contextlib.suppress(OSError):  # ETIMEDOUT and EHOSTUNREACH are no ConnectionError
            await self.connection.drain()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; a peer that does not answer is cut off after a few seconds."""
        if not self.is_open:
            return
        self.connection.protocol.send_close(code, reason.encode()[:_LONGEST_REASON].decode(errors="ignore"))
        self.connection.send_data()
        self.connection.loop.call_later(_CLOSE_SECONDS, self.connection.transport.abort)

    def spend(self, now: float, rate: float, burst: float) -> bool:
        """Take one message from the budget, which refills at `rate` a second; False when it is used up."""
        self.budget = min(burst, self.budget + (now - self.budget_at) * rate) if self.budget_at else burst
        self.budget_at = now
        if self.budget < 1:
            return False
        self.budget -= 1
        return True

    def set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        """Keep at most one timer running: first for authentication, later for the token's end."""
        if self.timer:
            self.timer.cancel()
        self.timer = timer
