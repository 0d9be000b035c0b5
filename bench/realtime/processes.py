"""The processes of a measurement: servers on the first core, the load generator on the last, both asked from there."""

import array
import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.realtime.tenants import SECRET, Tenants
from domain.events import Event, EventName
from persistence import outbox, units
from persistence.database import open_database

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = Path(os.environ.get("NODE_PEERS", HERE))
TOOLS = Path(tempfile.gettempdir()) / f"bench-realtime-{os.getpid()}"
CORES = sorted(os.sched_getaffinity(0))
PAYLOAD = 500
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 60

Send = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class Server:
    """A running server; `send(count, due)` makes that many events, which say they were due at `due` (nanoseconds)."""

    port: int
    pid: int
    send: Send
    prefix: str
    path: str
    greeting: str = ""

    def cpu(self) -> float:
        """Return the processor time it has used, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident(self) -> int:
        """Return its resident memory, in bytes."""
        return 1024 * int(Path(f"/proc/{self.pid}/status").read_text().partition("VmRSS:")[2].split()[0])


@contextlib.asynccontextmanager
async def ours(tenants: Tenants, *, wakes: bool = True) -> AsyncIterator[Server]:
    """Run our broadcaster on a copy of the tenants' database; events are committed to its outbox.

    Events go to the organizations in turn, or to the one that is named. Without `wakes` nobody is told of a commit.
    """
    port = _free_port()
    with tenants.copy() as url:
        database = open_database(url)
        command = [sys.executable, "-m", "bench.realtime.broadcaster", url, str(port), SECRET]
        process = await start(command, CORES[0], cwd=ROOT)
        turn = 0

        async def send(count: int, due: int | None = None, organization: int | None = None) -> None:
            nonlocal turn
            chosen = tenants.organizations[turn % len(tenants.organizations) if organization is None else organization]
            turn += 1
            made = [_event(due) for _ in range(count)]

            def unit() -> None:
                outbox.append(chosen, made)
                if not wakes:
                    units.take_announcements()

            await database.write(unit)

        try:
            yield Server(port, process.pid, send, '{"type":"event"', "/v1")
        finally:
            await _end(process)
            database.close()


@contextlib.asynccontextmanager
async def peer(name: str) -> AsyncIterator[Server]:
    """Run a peer: `ws`, `joined` or `socketio` in Node, or `floor` in C; events reach it over a socket."""
    port, control = _free_port(), _free_port()
    environment = os.environ | {"NODE_PATH": str(PEERS / "node_modules")}
    command = [str(TOOLS / "floor")] if name == "floor" else ["node", str(HERE / "peers.js"), name]
    process = await start([*command, str(port), str(control)], CORES[0], env=environment)
    _, writer = await asyncio.open_connection("127.0.0.1", control)
    sequence = 0

    async def send(count: int, due: int | None = None) -> None:
        nonlocal sequence
        for _ in range(count):
            sequence += 1
            frame = {"type": "event", "seq": sequence, "t": due or time.monotonic_ns(), "pad": "x" * (PAYLOAD - 62)}
            writer.write(json.dumps(frame, separators=(",", ":")).encode() + b"\n")
        await writer.drain()

    try:
        if name == "socketio":
            yield Server(port, process.pid, send, "42", "/socket.io/?EIO=4&transport=websocket", "40")
        else:
            yield Server(port, process.pid, send, "{", "/")
    finally:
        writer.close()
        await _end(process)


@dataclass(frozen=True)
class Report:
    """What a swarm saw: processor seconds, pings answered, and of each event (its mark, its arrival) in nanoseconds."""

    cpu: float
    pings: int
    arrivals: list[tuple[int, int]]


class Swarm:
    """The load generator: many listeners in one process."""

    def __init__(self, process: asyncio.subprocess.Process, arrivals: Path | None) -> None:
        self._process = process
        self._arrivals = arrivals

    async def done(self) -> None:
        """Wait until all listeners have one batch more."""
        assert self._process.stdout
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        assert line.startswith(b"done"), line

    async def finish(self, expected: int) -> Report:
        """End it; every listener must have got `expected` events."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            async for line in self._process.stdout:
                if line.startswith(b"report"):
                    least, most, cpu, pings = (float(number) for number in line.split()[1:])
                    assert least == most == expected, f"between {least:.0f} and {most:.0f} of {expected} events came"
                    return Report(cpu, int(pings), self._read_arrivals())
        raise AssertionError("the load generator is gone")

    def _read_arrivals(self) -> list[tuple[int, int]]:
        numbers = array.array("Q", self._arrivals.read_bytes() if self._arrivals else b"")
        return list(zip(numbers[::2], numbers[1::2], strict=True))


@contextlib.asynccontextmanager
async def swarm(
    server: Server, listeners: int, tokens: str = "", *, batch: int = 1, measured: bool = False, query: str = ""
) -> AsyncIterator[Swarm]:
    """Connect `listeners`; `tokens` is one, or @ and a file with one in each line."""
    arrivals = TOOLS / f"arrivals-{server.port}" if measured else None
    numbers = [str(server.port), str(listeners), server.prefix, str(arrivals or ""), str(batch)]
    words = [server.path + query, tokens, *([server.greeting] if server.greeting else [])]
    process = await start([str(TOOLS / "swarm"), *numbers, *words], CORES[-1], stdin=asyncio.subprocess.PIPE)
    try:
        yield Swarm(process, arrivals)
    finally:
        await _end(process)


async def start(command: list[str], core: int, **options: Any) -> asyncio.subprocess.Process:
    """Start a process on a core, and wait until it says that it is ready."""
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(core), *command, stdout=asyncio.subprocess.PIPE, **options
    )
    assert process.stdout
    async with asyncio.timeout(PATIENCE):
        line = await process.stdout.readline()
    assert line == b"ready\n", f"{command[0]} said {line!r} instead of ready"
    return process


def _event(due: int | None) -> Event:
    return Event(EventName.NOTE_CREATED, {"t": due or time.monotonic_ns(), "pad": "x" * (PAYLOAD - 120)}, "c" * 24)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
