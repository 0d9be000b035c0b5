"""What fan-out costs, ours and the peers', interleaved: `python -m bench.realtime.run [--rounds 3]`.

The server has core 0 to itself; writer and load generator share core 1. Ours is measured over its whole path: events
are committed to the outbox (durably), noticed, read, framed and written. Peers get the same events over a socket.
In "single events" ours includes a durable commit that the peers do not make, so compare the microseconds of server
time for each delivery as well. Peers come from npm (`npm install` in bench/realtime, or NODE_PEERS naming a folder).
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.events import Event, EventName
from persistence import organizations, outbox
from persistence.database import open_database

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = Path(os.environ.get("NODE_PEERS", HERE))
SWARM = Path(tempfile.gettempdir()) / f"swarm-{os.getpid()}"
PAYLOAD = 500
TICKS = os.sysconf("SC_CLK_TCK")

Send = Callable[[int], Awaitable[None]]


@dataclass(frozen=True)
class Result:
    """One run: deliveries a second, shares of a core, and ages in milliseconds where they were measured."""

    rate: float
    server_cpu: float
    client_cpu: float
    p50: float
    p99: float
    kilobytes: float


@dataclass(frozen=True)
class Variant:
    """A server and how its frames look."""

    name: str
    prefix: str
    path: str = "/"
    greeting: str = ""

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("ours")


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("ours", '{"type":"event"', "/v1"),
        Variant("ours-uvloop", '{"type":"event"', "/v1"),
        Variant("ws", "{"),
        Variant("joined", "{"),
        Variant("socketio", "42", "/socket.io/?EIO=4&transport=websocket", "40"),
    )
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


async def start(command: list[str], core: int, **options: Any) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(core), *command, stdout=asyncio.subprocess.PIPE, **options
    )
    assert process.stdout
    line = await process.stdout.readline()
    assert line == b"ready\n", line
    return process


@contextlib.asynccontextmanager
async def ours(variant: Variant, port: int, folder: Path, organizations_count: int) -> AsyncIterator[Any]:
    url = f"sqlite:///{folder}/relay.db"
    database = open_database(url)
    database.migrate()
    rows = [await database.write(lambda: organizations.add("bench", None)) for _ in range(organizations_count)]
    command = [sys.executable, "-m", "bench.realtime.broadcaster", url, str(port)]
    if variant.name.endswith("uvloop"):
        command.append("uvloop")
    server = await start(command, 0, cwd=ROOT)
    turn = 0

    async def send(count: int) -> None:
        nonlocal turn
        organization_id = rows[turn % len(rows)].id
        turn += 1
        await database.write(lambda: outbox.append(organization_id, [event() for _ in range(count)]))

    try:
        yield server, send, [row.id for row in rows]
    finally:
        server.kill()
        await server.wait()
        database.close()


def event() -> Event:
    stamp = str(time.monotonic_ns())
    return Event(EventName.NOTE_CREATED, {"t": int(stamp), "pad": "x" * (PAYLOAD - 120)}, "c" * 24)


@contextlib.asynccontextmanager
async def peer(variant: Variant, port: int) -> AsyncIterator[Any]:
    control = free_port()
    environment = os.environ | {"NODE_PATH": str(PEERS / "node_modules")}
    server = await start(["node", str(HERE / "peers.js"), variant.name, str(port), str(control)], 0, env=environment)
    _, writer = await asyncio.open_connection("127.0.0.1", control)
    sequence = 0

    async def send(count: int) -> None:
        nonlocal sequence
        for _ in range(count):
            sequence += 1
            frame = {"type": "event", "seq": sequence, "t": time.monotonic_ns(), "pad": "x" * (PAYLOAD - 62)}
            writer.write(json.dumps(frame, separators=(",", ":")).encode() + b"\n")
        await writer.drain()

    try:
        yield server, send, [""]
    finally:
        writer.close()
        server.kill()
        await server.wait()


async def measure(name: str, listeners: int, batch: int, seconds: float, rate: float | None, many: int = 1) -> Result:
    """Run one variant: as fast as it goes with a batch outstanding, or (`rate`) that many events a second."""
    variant, port = VARIANTS[name], free_port()
    async with server_of(variant, port, many) as (server, send, tokens):
        before = resident(server.pid)
        share = listeners // len(tokens)
        measured = int(rate is not None)
        swarms = [await swarm(variant, port, share, token, batch=batch, measured=measured) for token in tokens]
        await asyncio.sleep(0.5)
        kilobytes = (resident(server.pid) - before) / listeners
        began, busy = time.monotonic(), cpu(server.pid)
        sent = await (open_loop(send, rate, seconds) if rate else closed_loop(swarms[0], send, batch, seconds))
        elapsed, busy = time.monotonic() - began, cpu(server.pid) - busy
        reports = [await finish(each, sent // len(tokens)) for each in swarms]
        return Result(
            rate=sent / len(tokens) * listeners / elapsed,
            server_cpu=busy / elapsed,
            client_cpu=sum(report[2] for report in reports) / elapsed,
            p50=max(report[3] for report in reports),
            p99=max(report[4] for report in reports),
            kilobytes=kilobytes,
        )


async def storm(listeners: int, missed: int) -> float:
    """Return the seconds until `listeners` that all come back at once have each got the `missed` events they missed."""
    variant, port = VARIANTS["ours"], free_port()
    async with server_of(variant, port, 1) as (_, send, tokens):
        for _ in range(missed):
            await send(1)
        began = time.monotonic()
        crowd = await swarm(variant, port, listeners, tokens[0], batch=missed, path="/v1?since=0")
        assert crowd.stdout
        assert (await crowd.stdout.readline()).startswith(b"done")
        elapsed = time.monotonic() - began
        await finish(crowd, missed)
        return elapsed


@contextlib.asynccontextmanager
async def server_of(variant: Variant, port: int, many: int) -> AsyncIterator[Any]:
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("BENCH_DIR")))
    try:
        async with ours(variant, port, folder, many) if variant.is_ours else peer(variant, port) as running:
            yield running
    finally:
        shutil.rmtree(folder)


async def swarm(
    variant: Variant, port: int, listeners: int, token: str, *, batch: int, measured: int = 0, path: str = ""
) -> asyncio.subprocess.Process:
    numbers = [str(port), str(listeners), variant.prefix, str(measured), str(batch)]
    words = [path or variant.path, token, *([variant.greeting] if variant.greeting else [])]
    return await start([str(SWARM), *numbers, *words], 1, stdin=asyncio.subprocess.PIPE)


async def closed_loop(swarm: asyncio.subprocess.Process, send: Send, batch: int, seconds: float) -> int:
    assert swarm.stdout
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        await send(batch)
        sent += batch
        line = await swarm.stdout.readline()
        assert line.startswith(b"done"), line
    return sent


async def open_loop(send: Send, rate: float, seconds: float) -> int:
    began, sent = time.monotonic(), 0
    while sent < rate * seconds:
        await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))
        await send(1)
        sent += 1
    await asyncio.sleep(1)
    return sent


async def finish(swarm: asyncio.subprocess.Process, expected: int) -> list[float]:
    assert swarm.stdin
    assert swarm.stdout
    swarm.stdin.close()
    async for line in swarm.stdout:
        if line.startswith(b"report"):
            report = [float(number) for number in line.split()[1:]]
            assert report[0] == report[1] == expected, f"{report[:2]} of {expected}"
            return report
    raise AssertionError("the load generator is gone")


async def compare(title: str, names: list[str], rounds: int, **options: Any) -> None:
    """Run every variant once a round, in turn, and print medians and medians of same-round ratios."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(await measure(name, **options))
    print(f"\n{title}")
    for name in names:
        print(f"  {name:12}", describe(results["ours"], results[name]))


def describe(ours: list[Result], theirs: list[Result]) -> str:
    def middle(value: Callable[[Result], float]) -> float:
        return statistics.median(value(result) for result in theirs)

    ratio = statistics.median(mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True))
    return "  ".join(
        (
            f"{middle(lambda r: r.rate):>10,.0f}/s",
            f"ours is {ratio:5.2f}x",
            f"server {middle(lambda r: r.server_cpu):4.2f}",
            f"{middle(lambda r: 1e6 * r.server_cpu / r.rate):5.2f} us each",
            f"client {middle(lambda r: r.client_cpu):4.2f}",
            f"p50 {middle(lambda r: r.p50):6.2f} ms  p99 {middle(lambda r: r.p99):6.2f} ms",
            f"{middle(lambda r: r.kilobytes):5.1f} KB/listener",
        )
    )


def main() -> None:
    """Build the load generator, take core 1, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    given = parser.parse_args()
    subprocess.run(["cc", "-O2", "-o", str(SWARM), str(HERE / "swarm.c")], check=True)
    os.sched_setaffinity(0, {1})
    try:
        asyncio.run(measure_everything(given))
    finally:
        SWARM.unlink()


async def measure_everything(given: argparse.Namespace) -> None:
    """Run one scenario after the other."""
    everyone = ["ours", "ws", "joined", "socketio"]
    flat_out: dict[str, Any] = {"rounds": given.rounds, "seconds": given.seconds, "rate": None}
    steady: dict[str, Any] = {"rounds": given.rounds, "seconds": given.seconds, "batch": 1, "listeners": 1000}
    await compare("Bursts of 16, 1,000 listeners", everyone, listeners=1000, batch=16, **flat_out)
    await compare("Bursts of 16, 5,000 listeners", everyone, listeners=5000, batch=16, **flat_out)
    await compare("Single events, 1,000 listeners", everyone, listeners=1000, batch=1, **flat_out)
    await compare("100 events/s, 1,000 listeners", ["ours", "ws"], rate=100, **steady)
    await compare("200 commits/s, 50 organizations of 20", ["ours"], rate=200, many=50, **steady)
    seconds = [await storm(5000, 100) for _ in range(given.rounds)]
    print(f"\n5,000 listeners back at once, 100 events missed each: {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
