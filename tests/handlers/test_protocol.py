import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from handlers.protocol import reading_within

HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
SECONDS, LONG = 0.3, 3600.0


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def on_engine() -> None:
    """No database is asked here."""


@contextlib.asynccontextmanager
async def connected(
    head_seconds: float = SECONDS, body_seconds: float = SECONDS
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    listening = socket.create_server(("127.0.0.1", 0))
    http = reading_within(head_seconds, body_seconds)
    config = uvicorn.Config(echo, loop="none", http=http, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve(sockets=[listening]))
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await task


async def test_a_connection_that_says_nothing_is_closed() -> None:
    """Idle connections cost a file descriptor for a while, not for ever."""
    async with connected() as (reader, _), asyncio.timeout(5):
        assert await reader.read() == b""


async def test_a_head_that_does_not_end_is_refused() -> None:
    """A slow loris gets its answer and is let go."""
    async with connected(body_seconds=LONG) as (reader, writer), asyncio.timeout(5):
        writer.write(HEAD)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"success":false,"error":"The request did not arrive in time"}')


async def test_a_body_that_trickles_is_refused_however_regularly_it_comes() -> None:
    """A byte now and then does not keep a connection open."""
    async with connected(head_seconds=LONG) as (reader, writer), asyncio.timeout(5):
        writer.write(HEAD.replace(b"10", b"100") + b"\r\n")
        # Not to the end: a byte that crosses the answer has the connection reset after it.
        answering = asyncio.ensure_future(reader.readuntil(b"\r\n"))
        while not answering.done():
            writer.write(b"x")
            await asyncio.wait([answering], timeout=SECONDS / 10)

    assert answering.result().startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_keeps_coming_has_all_the_time_it_needs() -> None:
    """Slow is not the same as trickling: what comes faster than a bad line would is read to its end."""
    pieces = 12
    async with connected() as (reader, writer), asyncio.timeout(10):
        writer.write(HEAD.replace(b"10", b"%d" % (pieces * 8192)) + b"\r\n")
        for _ in range(pieces):
            writer.write(bytes(8192))
            await asyncio.sleep(SECONDS / 4)
        answer = await reader.readuntil(b"\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_connection_that_was_used_is_kept_for_the_next_request() -> None:
    """The time for a head begins with its first byte, however often the connection was used."""
    request = HEAD + b"\r\n0123456789"
    async with connected() as (reader, writer), asyncio.timeout(5):
        for _ in range(3):
            writer.write(request)
            await reader.readuntil(b"0123456789")
            await asyncio.sleep(SECONDS * 1.5)
        writer.write(request)

        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_line", [b"POST /echo HTTP/1.0\r\nConnection: keep-alive", b"POST /echo HTTP/1.1\r\nConnection: close"]
)
async def test_a_connection_ends_with_its_answer_for_who_wants_or_knows_no_other(request_line: bytes) -> None:
    """A client of HTTP/1.0 reads to the end of the connection."""
    async with connected(LONG, LONG) as (reader, writer), asyncio.timeout(5):
        writer.write(request_line + b"\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nab")
