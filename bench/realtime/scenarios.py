"""What is measured, one run at a time."""

import asyncio
import contextlib
import itertools
import re
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.realtime.processes import PAYLOAD, Send, Server, ours, peer, swarm
from bench.realtime.tenants import Tenants

MEGABYTE = 1e6
WARM_UP = 1.0


@dataclass(frozen=True)
class Flow:
    """Deliveries a second, microseconds of the server's processor for each, and the client's share of its core."""

    rate: float
    microseconds: float
    client: float


async def flat_out(name: str, tenants: Tenants, *, listeners: int, batch: int, seconds: float) -> Flow:
    """Send `batch` events, wait until everybody has them, and again."""
    async with (
        _server(name, tenants) as server,
        swarm(server, listeners, _token(name, tenants), batch=batch) as crowd,
    ):
        for _ in range(3):
            await server.send(batch)
            await crowd.done()
        began, busy, sent = time.monotonic(), server.cpu(), 0
        while time.monotonic() < began + seconds:
            await server.send(batch)
            await crowd.done()
            sent += batch
        elapsed, busy = time.monotonic() - began, server.cpu() - busy
        report = await crowd.finish(sent + 3 * batch)
    deliveries = sent * listeners
    return Flow(deliveries / elapsed, 1e6 * busy / deliveries, report.cpu / elapsed)


@dataclass(frozen=True)
class Age:
    """How old events were when they arrived, in milliseconds."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Steady:
    """How old events were: since they were due, and since the writer knew that they were committed."""

    since_due: Age
    since_commit: Age


async def steady(tenants: Tenants, name: str = "ours", *, rate: float, seconds: float, wakes: bool = True) -> Steady:
    """Commit that many events a second, to the organizations in turn; 1,000 listeners are spread over them.

    A peer has one organization and commits nothing: an event is handed to it over a socket. The first second does not
    count, because rounds on new connections take half as long again.
    """
    committed: dict[int, int] = {}
    async with (
        ours(tenants, wakes=wakes) if name == "ours" else peer(name) as server,
        swarm(server, 1000, _token(name, tenants), measured=True) as crowd,
    ):
        first, count = int(rate * WARM_UP), int(rate * (WARM_UP + seconds))
        async for due in _moments(rate, count):
            await server.send(1, due)
            committed[due] = time.monotonic_ns()
        await asyncio.sleep(1)
        report = await crowd.finish(count // len(tenants.organizations))
    counted = set(sorted(committed)[first:])
    arrivals = [(due, arrived) for due, arrived in report.arrivals if due in counted]
    return Steady(_since_due(arrivals), _age([arrived - committed[due] for due, arrived in arrivals]))


def _since_due(arrivals: list[tuple[int, int]]) -> Age:
    return _age([arrived - due for due, arrived in arrivals])


def _age(nanoseconds: list[int]) -> Age:
    nanoseconds.sort()
    p50, p99 = (nanoseconds[int(share * len(nanoseconds))] / 1e6 for share in (0.5, 0.99))
    return Age(p50, p99)


@dataclass(frozen=True)
class Idle:
    """Kilobytes of the process for each listener, its share of a core, and pings answered by each."""

    kilobytes: float
    core: float
    pings: float


async def idle(tenants: Tenants, *, listeners: int, seconds: float) -> Idle:
    """Hold listeners, each with a token of its own, to whom nothing happens but heartbeats."""
    async with ours(tenants) as server:
        before = server.resident()
        async with swarm(server, listeners, f"@{tenants.tokens}") as crowd:
            began, busy = time.monotonic(), server.cpu()
            await asyncio.sleep(seconds)
            core = (server.cpu() - busy) / (time.monotonic() - began)
            kilobytes = (server.resident() - before) / 1000 / listeners
            await server.send(1)
            await crowd.done()
            report = await crowd.finish(1)
    return Idle(kilobytes, core, report.pings / listeners)


@dataclass(frozen=True)
class Storm:
    """Seconds until all were caught up, the server's processor time, and the age of what others got meanwhile."""

    seconds: float
    busy: float
    others: Age


async def storm(tenants: Tenants, *, listeners: int, missed: int) -> Storm:
    """Let listeners of the first organization come back at once, while a hundred of the second follow live events.

    Each brings a token of its own and resumes before the `missed` events.
    """
    lines = tenants.tokens.read_text().splitlines()
    backs = tenants.folder / "returning"
    backs.write_text("\n".join(lines[0::2]) + "\n")
    async with ours(tenants) as server:
        for _ in range(missed):
            await server.send(1, organization=0)
        async with swarm(server, 100, lines[1], measured=True) as others:
            stop = asyncio.Event()
            live = asyncio.create_task(_until(stop, server.send, rate=100))
            began, busy = time.monotonic(), server.cpu()
            async with swarm(server, listeners, f"@{backs}", batch=missed, query="?since=0") as crowd:
                await crowd.done()
                seconds, busy = time.monotonic() - began, server.cpu() - busy
                stop.set()
                sent = await live
                await crowd.finish(missed)
            await asyncio.sleep(0.5)
            report = await others.finish(sent)
    return Storm(seconds, busy, _since_due(report.arrivals))


@dataclass(frozen=True)
class Sleepers:
    """Megabytes the process and the kernel kept for listeners that stopped reading, and how many resumed complete."""

    process: float
    kernel: float
    resumed: int


async def sleepers(tenants: Tenants, *, listeners: int, megabytes: int) -> Sleepers:
    """Let half of the listeners stop reading while that much is sent to each, then come back and resume."""
    half, batch = listeners // 2, 100
    rounds = megabytes * 1_000_000 // PAYLOAD // batch
    token = tenants.tokens.read_text().splitlines()[0]
    async with ours(tenants) as server:
        # Twice as much first, so that caches are full when the counting begins.
        async with swarm(server, half, token, batch=batch) as warm:
            for _ in range(2 * rounds):
                await server.send(batch, organization=0)
                await warm.done()
        with contextlib.ExitStack() as stack:
            asleep = [stack.enter_context(_Sleeper(server.port, token, 2 * rounds * batch)) for _ in range(half)]
            async with swarm(server, half, token, batch=batch) as awake:
                process, kernel = server.resident(), _kernel_memory()
                for _ in range(rounds):
                    await server.send(batch, organization=0)
                    await awake.done()
                process, kernel = server.resident() - process, _kernel_memory() - kernel
                await awake.finish(rounds * batch)
            resumed = [await asyncio.to_thread(one.come_back, 3 * rounds * batch) for one in asleep]
    return Sleepers(process / MEGABYTE, kernel / MEGABYTE, sum(resumed))


class _Sleeper:
    """A listener that does not read until it comes back."""

    def __init__(self, port: int, token: str, since: int) -> None:
        self._port, self._token, self._position = port, token, since

    def __enter__(self) -> "_Sleeper":
        self._socket = self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def come_back(self, last: int) -> bool:
        """Read what is still there, connect again, resume up to `last`; tell whether every event came, in order."""
        with contextlib.suppress(ConnectionError):
            if not self._follow(last):
                return False
        self._socket.close()
        self._socket = self._connect()
        return self._follow(last) and self._position == last

    def _connect(self) -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        opened.sendall(
            f"GET /v1?since={self._position} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += opened.recv(1)
        return opened

    def _follow(self, last: int) -> bool:
        buffer = b""
        while self._position < last and (data := self._socket.recv(1 << 20)):
            frames, buffer = _take_frames(buffer + data)
            for payload in frames:
                if found := re.match(rb'{"type":"event","seq":(\d+)', payload):
                    if int(found[1]) != self._position + 1:
                        return False
                    self._position += 1
        return True


def _take_frames(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Return the beginning of each complete frame's payload, and what is left over."""
    frames, start = list[bytes](), 0
    while len(buffer) >= start + 4:
        size, body = buffer[start + 1], start + 2
        if size == 126:
            size, body = int.from_bytes(buffer[body : body + 2], "big"), body + 2
        if len(buffer) < body + size:
            break
        start = body + size
        frames.append(buffer[body : body + 60])
    return frames, buffer[start:]


def _kernel_memory() -> int:
    """Return the bytes the kernel holds for all TCP sockets of this machine."""
    (line,) = (line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return 4096 * int(line.split()[-1])


def _server(name: str, tenants: Tenants) -> contextlib.AbstractAsyncContextManager[Server]:
    return ours(tenants) if name == "ours" else peer(name)


def _token(name: str, tenants: Tenants) -> str:
    return f"@{tenants.tokens}" if name == "ours" else ""


async def _until(stop: asyncio.Event, send: Send, rate: float) -> int:
    sent = 0
    async for due in _moments(rate, None):
        if stop.is_set():
            break
        await send(1, due, organization=1)
        sent += 1
    return sent


async def _moments(rate: float, count: int | None) -> AsyncIterator[int]:
    """Yield moments at that rate, each once it has come; whoever is late finds the next ones waiting."""
    began = time.monotonic_ns()
    for number in itertools.count() if count is None else range(count):
        due = began + int(1e9 * number / rate)
        await asyncio.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
        yield due
