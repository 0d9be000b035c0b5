"""The load: raw sockets, kept alive, requests prepared beforehand; so little work that a server is the limit, not this.

Two ways of asking. `saturate` keeps every connection busy and counts answers. `pace` asks at fixed moments whatever
the server does, and counts its delay from those moments: a slow answer does not slow the asking down.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Ask = Callable[[], bytes]

_MAX_SECONDS = 120


@dataclass
class Figures:
    """What one run gave; latencies in seconds, `busy` is the share of a core the load itself took."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    busy: float = 0.0
    server_busy: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class _Connection(asyncio.Protocol):
    """One connection: sends a request, hands on when its answer is whole."""

    def __init__(self, done: Callable[["_Connection", bool], None]) -> None:
        self._done = done
        self._buffer = b""
        self.asked_at = 0.0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def ask(self, request: bytes, at: float) -> None:
        self.asked_at = at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        start = self._buffer.find(b"content-length: ", 0, head)
        length = int(self._buffer[start + 16 : self._buffer.find(b"\r", start)]) if start > 0 else 0
        if len(self._buffer) >= head + 4 + length:
            accepted = self._buffer[9:10] == b"2" and b'"success":false' not in self._buffer
            self._buffer = b""
            self._done(self, accepted)

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True
        self._done(self, False)

    def close(self) -> None:
        self._done = lambda *_: None
        self._transport.close()


async def saturate(port: int, ask: Ask, *, connections: int, seconds: float, count: int | None = None) -> Figures:
    """Keep `connections` busy for `seconds`, or until `count` answers were counted, whichever is first."""
    figures, finished = Figures(), asyncio.get_running_loop().create_future()
    clock = time.perf_counter
    left = count if count is not None else 1 << 60

    def done(connection: _Connection, accepted: bool) -> None:
        nonlocal left
        now = clock()
        if accepted:
            figures.latencies.append(now - connection.asked_at)
        else:
            figures.refused += 1
        left -= 1
        if (now > deadline or left <= 0 or connection.lost) and not finished.done():
            finished.set_result(None)
        elif now <= deadline and left > 0 and not connection.lost:
            connection.ask(ask(), clock())

    opened = await _open(port, connections, done)
    cpu, started = time.process_time(), clock()
    deadline = started + min(seconds, _MAX_SECONDS)
    for connection in opened[: min(connections, left)]:
        connection.ask(ask(), clock())
    await asyncio.wait_for(finished, _MAX_SECONDS * 2)
    figures.seconds = clock() - started
    figures.busy = (time.process_time() - cpu) / figures.seconds
    _close(opened)
    return figures


async def pace(port: int, ask: Ask, *, rate: float, seconds: float, connections: int = 64) -> Figures:
    """Ask `rate` times a second for `seconds`; latencies count from the moment a request was due."""
    figures, clock = Figures(), time.perf_counter
    idle: deque[_Connection] = deque()
    due: deque[float] = deque()

    def done(connection: _Connection, accepted: bool) -> None:
        if accepted:
            figures.latencies.append(clock() - connection.asked_at)
        else:
            figures.refused += 1
        if due and not connection.lost:
            connection.ask(ask(), due.popleft())
        elif not connection.lost:
            idle.append(connection)

    opened = await _open(port, connections, done)
    idle.extend(opened)
    cpu, started = time.process_time(), clock()
    for moment in _moments(started, rate, min(seconds, _MAX_SECONDS)):
        await asyncio.sleep(max(0.0, moment - clock()))
        if idle:
            idle.popleft().ask(ask(), moment)
        else:
            due.append(moment)
    patience = clock() + 10
    while len(idle) < connections and clock() < patience:  # noqa: ASYNC110 - it ends within moments, or is given up
        await asyncio.sleep(0.005)
    figures.seconds = clock() - started
    figures.busy = (time.process_time() - cpu) / figures.seconds
    _close(opened)
    return figures


def _moments(started: float, rate: float, seconds: float) -> Iterator[float]:
    return (started + number / rate for number in range(int(rate * seconds)))


async def _open(port: int, connections: int, done: Callable[[_Connection, bool], None]) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: _Connection(done), "127.0.0.1", port) for _ in range(connections)]
    return [connection for _, connection in opened]


def _close(opened: list[_Connection]) -> None:
    for connection in opened:
        connection.close()
