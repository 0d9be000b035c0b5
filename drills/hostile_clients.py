"""Clients that hold on to what they can: heads that never end, idle connections, trickling and enormous bodies.

They have a process of their own (`python -m drills.hostile_clients PORT`), so that sending gigabytes does not hold up
the one who measures how others are served. Whoever sends 64 MB begins anew when refused, until the others are through:
half of them blanks, half a recording without end.
"""

import asyncio
import contextlib
import functools
import itertools
import json
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx

from drills.ledger import balance
from drills.load import INGEST, Callers
from drills.outcome import Outcome, insist
from drills.stage import ROOT, Process, staged

IDLE = 2000
_LORISES = 200
_TRICKLERS = 50
_GIANTS = 10
_GIANT_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 65536
_BEGINNINGS = (b"", b'{"recording":"')
_FILLINGS = (b" ", b"A")
_MOST_MEMORY = 1024 * 1024 * 1024
_PATIENCE_SECONDS = 10
_REFUSALS = (400, 413, 503)
_TOKEN = "DRILL_TOKEN"

_Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def hostile_clients(engine: str, repetitions: int) -> Outcome:
    """Push `repetitions` calls while all of them are at it: each is served, and memory stays bounded."""
    async with staged(engine) as stage:
        api = await stage.api()
        callers = Callers(stage, [api])
        took: list[float] = []
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            await callers.push(http, "call-before")
            async with _crowd(api, callers.api_key) as crowd:
                for number in range(repetitions):
                    began = time.monotonic()
                    await callers.push(http, f"call-{number}")
                    took.append(time.monotonic() - began)
                statuses = await crowd()
        insist(statuses and all(status in _REFUSALS for status in statuses), f"64 MB were answered {statuses}")
        insist(max(took) < _PATIENCE_SECONDS, f"another caller waited {max(took):.1f} s")
        held = api.memory()
        insist(held < _MOST_MEMORY, f"it held {held >> 20} MB")
        there = await balance(stage, callers.seen)
    seen = callers.seen
    return Outcome(
        "slow, idle and enormous requests",
        engine,
        repetitions,
        seen.requests,
        seen.acknowledged,
        there.lost,
        there.doubled,
        max(took),
        f"others were served within {_percentile(took, 50)} ms (median), {_percentile(took, 99)} ms (p99) and "
        f"{_percentile(took, 100)} ms (worst) while 64 MB were refused {len(statuses)} times; the process held "
        f"{held >> 20} MB at most",
    )


@contextlib.asynccontextmanager
async def _crowd(api: Process, token: str) -> AsyncIterator[Callable[[], Awaitable[list[int]]]]:
    """Have everybody at it during the block; what is yielded ends it and returns how enormous bodies were answered."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "drills.hostile_clients", str(api.port)),
        cwd=ROOT,
        env=os.environ | {_TOKEN: token},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        insist(await _line_of(process), "the crowd did not come together")
        yield functools.partial(_end, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _end(process: asyncio.subprocess.Process) -> list[int]:
    assert process.stdin is not None  # noqa: S101
    process.stdin.close()
    statuses: list[int] = json.loads(await _line_of(process))
    await process.wait()
    return statuses


async def _line_of(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None  # noqa: S101
    return await process.stdout.readline()


def _percentile(seconds: list[float], percent: int) -> int:
    """Return the milliseconds that so many percent of them stayed within."""
    return round(1000 * sorted(seconds)[max(0, math.ceil(len(seconds) * percent / 100) - 1)])


# In the process of the crowd.


async def _be_hostile(port: int, token: str) -> None:
    """Connect everybody, say so, send what is enormous, say how it was answered, and stay until told to go."""
    head = _head(token, "Content-Length: 1000")
    lines = [await _connect(port) for _ in range(IDLE)]
    lorises = [await _connect(port) for _ in range(_LORISES)]
    tricklers = [await _connect(port) for _ in range(_TRICKLERS)]
    for _, writer in tricklers:
        writer.write(head)
    at_it = [asyncio.create_task(_trickle(writer, b"X-A: 1\r\n")) for _, writer in lorises]
    at_it += [asyncio.create_task(_trickle(writer, b" ")) for _, writer in tricklers]
    _say([len(lines), len(lorises), len(tricklers)])
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    giants = [_giants(port, token, number % len(_FILLINGS), over) for number in range(_GIANTS)]
    statuses = await asyncio.gather(*giants)
    for task in at_it:
        task.cancel()
    _say(list(itertools.chain(*statuses)))


def _say(numbers: list[int]) -> None:
    print(json.dumps(numbers), flush=True)  # noqa: T201


async def _connect(port: int) -> _Line:
    return await asyncio.open_connection("127.0.0.1", port)


async def _trickle(writer: asyncio.StreamWriter, piece: bytes) -> None:
    if len(piece) > 1:
        writer.write(b"GET / HTTP/1.1\r\n")
    while not writer.is_closing():
        writer.write(piece)
        await asyncio.sleep(1)


async def _giants(port: int, token: str, kind: int, over: asyncio.Task[str]) -> list[int]:
    """Send 64 MB again and again until it is over; return the statuses of the answers."""
    statuses = []
    while not over.done():
        statuses.append(await _giant(port, token, kind))
    return statuses


async def _giant(port: int, token: str, kind: int) -> int:
    """Send 64 MB without saying so beforehand; return the status of the answer."""
    reader, writer = await _connect(port)
    writer.write(_head(token, "Transfer-Encoding: chunked"))
    answering = asyncio.create_task(reader.readline())
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(_chunk(_BEGINNINGS[kind]))
            for _ in range(_GIANT_BYTES // _PIECE_BYTES):
                if answering.done():
                    break
                writer.write(_chunk(_FILLINGS[kind] * _PIECE_BYTES))
                await writer.drain()
        line = await asyncio.wait_for(answering, 60)
    finally:
        writer.transport.abort()
    return int(line.split()[1]) if line else 0


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


def _head(token: str, framing: str) -> bytes:
    lines = [f"POST {INGEST} HTTP/1.1", "Host: x", "Content-Type: application/json", framing]
    return "\r\n".join([*lines, f"Authorization: Bearer {token}", "", ""]).encode()


if __name__ == "__main__":
    asyncio.run(_be_hostile(int(sys.argv[1]), os.environ[_TOKEN]))
