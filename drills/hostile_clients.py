"""Clients that hold on to what they can: heads that never end, idle connections, trickling and enormous bodies."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import httpx

from drills.ledger import balance
from drills.load import INGEST, Callers
from drills.outcome import Outcome, insist
from drills.stage import Process, staged

IDLE = 2000
_LORISES = 200
_TRICKLERS = 50
_GIANTS = 10
_GIANT_BYTES = 64 * 1024 * 1024
_PIECE = b" " * 65536
_MOST_MEMORY = 1024 * 1024 * 1024
_PATIENCE_SECONDS = 10
_REFUSALS = (400, 413, 503)

_Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def hostile_clients(engine: str, repetitions: int) -> Outcome:
    """Push `repetitions` calls while all of them are at it: each is served, and memory stays bounded."""
    async with staged(engine) as stage:
        api = await stage.api()
        callers, slowest = Callers(stage, [api]), 0.0
        async with _crowd(api, callers.api_key), httpx.AsyncClient(trust_env=False, timeout=30) as http:
            giants = asyncio.gather(*(_giant(api, callers.api_key) for _ in range(_GIANTS)))
            for number in range(repetitions):
                began = time.monotonic()
                await callers.push(http, f"call-{number}")
                slowest = max(slowest, time.monotonic() - began)
            statuses = await giants
        insist(all(status in _REFUSALS for status in statuses), f"64 MB were answered {statuses}")
        insist(slowest < _PATIENCE_SECONDS, f"another caller waited {slowest:.1f} s")
        insist(api.memory() < _MOST_MEMORY, f"it held {api.memory() >> 20} MB")
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
        slowest,
    )


@contextlib.asynccontextmanager
async def _crowd(api: Process, token: str) -> AsyncIterator[None]:
    """Connect everybody who is in no hurry; they stay until the end of the block."""
    head = _head(token, "Content-Length: 1000")
    lines = [await _connect(api) for _ in range(IDLE)]
    lorises = [await _connect(api) for _ in range(_LORISES)]
    tricklers = [await _connect(api) for _ in range(_TRICKLERS)]
    for _, writer in tricklers:
        writer.write(head)
    at_it = [asyncio.create_task(_trickle(writer, b"X-A: 1\r\n")) for _, writer in lorises]
    at_it += [asyncio.create_task(_trickle(writer, b" ")) for _, writer in tricklers]
    try:
        yield
    finally:
        for task in at_it:
            task.cancel()
        for _, writer in [*lines, *lorises, *tricklers]:
            writer.transport.abort()


async def _connect(api: Process) -> _Line:
    return await asyncio.open_connection("127.0.0.1", api.port)


async def _trickle(writer: asyncio.StreamWriter, piece: bytes) -> None:
    if len(piece) > 1:
        writer.write(b"GET / HTTP/1.1\r\n")
    while not writer.is_closing():
        writer.write(piece)
        await asyncio.sleep(1)


async def _giant(api: Process, token: str) -> int:
    """Send 64 MB without saying so beforehand; return the status of the answer."""
    reader, writer = await _connect(api)
    writer.write(_head(token, "Transfer-Encoding: chunked"))
    answering = asyncio.create_task(reader.readline())
    try:
        with contextlib.suppress(ConnectionError):
            for _ in range(_GIANT_BYTES // len(_PIECE)):
                if answering.done():
                    break
                writer.write(b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE))
                await writer.drain()
        line = await asyncio.wait_for(answering, 60)
    finally:
        writer.transport.abort()
    return int(line.split()[1]) if line else 0


def _head(token: str, framing: str) -> bytes:
    lines = [f"POST {INGEST} HTTP/1.1", "Host: x", "Content-Type: application/json", framing]
    return "\r\n".join([*lines, f"Authorization: Bearer {token}", "", ""]).encode()
