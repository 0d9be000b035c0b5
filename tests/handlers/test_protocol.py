import asyncio
import contextlib
import hashlib
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib import import_module
from ipaddress import ip_network
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from structlog.testing import capture_logs

import handlers.protocol
from domain.addresses import Proxies
from handlers.connections import Connections
from handlers.protocol import MAX_CHUNKS, MAX_HEADERS, HttpProtocol, limited
from tests.support.waiting import patience, until

HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
SECONDS, LONG = 0.3, 3600.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = 64 * 1024
LARGE = 256 * PIECE


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


# The last version of uvicorn whose two modules were read beside `handlers/protocol.py`, and what they were then.
CHECKED_VERSION = "0.54.0"
CHECKED_MODULES = {
    "flow_control": "d39d16560df512f3ce907c329c2a0c3f5cd7165fef3b753876eae5739bf2a785",
    "httptools_impl": "1d4e1c579df4168433a61a01f10c628b31c1790e72dd9769d2b8633b22214033",
}


def test_the_modules_of_uvicorn_the_protocol_builds_on_are_those_that_were_read() -> None:
    """They are private to it: when one changes, read it beside the protocol, then write down its version here."""
    imported = set(
        re.findall(r"^from uvicorn\.protocols\.http\.(\w+) import", read_source(handlers.protocol), re.MULTILINE)
    )
    found = {name: import_module(f"uvicorn.protocols.http.{name}") for name in imported}
    digests = {name: hashlib.sha256(read_source(module).encode()).hexdigest() for name, module in found.items()}

    assert digests == CHECKED_MODULES, f"uvicorn is {uvicorn.__version__}; {CHECKED_VERSION} was read"


def read_source(module: ModuleType) -> str:
    return Path(module.__file__ or "").read_text()


Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Serving:
    """A server of `echo`, or another application, and the protocol it speaks."""

    address: tuple[str, int]
    server: uvicorn.Server
    lines: list[Line] = field(default_factory=list)

    @property
    def connections(self) -> int:
        """How many connections it has."""
        return len(self.server.server_state.connections)

    async def connect(self, source: str = "127.0.0.1", **options: Any) -> Line:
        """Connect from an address of this machine."""
        line = await asyncio.open_connection(*self.address, local_addr=(source, 0), **options)
        self.lines.append(line)
        return line


@contextlib.asynccontextmanager
async def serving(app: Any = echo, protocol: type[HttpProtocol] | None = None) -> AsyncIterator[Serving]:
    listening = socket.create_server(("127.0.0.1", 0))
    # Without, an answer behind another one waits 40 ms for the client to acknowledge the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    http = protocol or limited(SECONDS, SECONDS, SECONDS)
    config = uvicorn.Config(app, loop="none", http=http, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    task = asyncio.create_task(server.serve(sockets=[listening]))
    serving = Serving(listening.getsockname(), server)
    try:
        yield serving
    finally:
        for _, writer in serving.lines:
            writer.transport.abort()
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def connected(head_seconds: float = SECONDS, body_seconds: float = SECONDS) -> AsyncIterator[Line]:
    async with serving(protocol=limited(head_seconds, body_seconds, SECONDS)) as server:
        yield await server.connect()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one answer: its status and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def test_a_connection_that_says_nothing_is_closed() -> None:
    """Idle connections cost a file descriptor for a while, not for ever."""
    async with connected() as (reader, _), patience():
        assert await reader.read() == b""


async def test_a_head_that_does_not_end_is_refused() -> None:
    """A slow loris gets its answer and is let go."""
    async with connected(body_seconds=LONG) as (reader, writer), patience():
        writer.write(HEAD)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"success":false,"error":"The request did not arrive in time"}')


async def test_a_body_that_trickles_is_refused_however_regularly_it_comes() -> None:
    """A byte now and then does not keep a connection open."""
    async with connected(head_seconds=LONG) as (reader, writer), patience():
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
    async with connected() as (reader, writer), patience():
        writer.write(HEAD.replace(b"10", b"%d" % (pieces * 8192)) + b"\r\n")
        for _ in range(pieces):
            writer.write(bytes(8192))
            await asyncio.sleep(SECONDS / 4)
        answer = await reader.readuntil(b"\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_connection_that_was_used_is_kept_for_the_next_request() -> None:
    """The time for a head begins with its first byte, however often the connection was used."""
    request = HEAD + b"\r\n0123456789"
    async with connected() as (reader, writer), patience():
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
    async with connected(LONG, LONG) as (reader, writer), patience():
        writer.write(request_line + b"\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nab")


async def test_blank_lines_do_not_keep_a_connection_open() -> None:
    """They begin no request: neither before the first one nor after an answer."""
    async with connected() as (reader, writer), patience():
        await trickle_until_closed(reader, writer, b"\r\n")


async def trickle_until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: bytes) -> None:
    closing = asyncio.ensure_future(reader.read())
    while not closing.done():
        writer.write(piece)
        await asyncio.wait([closing], timeout=SECONDS / 10)
    with contextlib.suppress(ConnectionError):
        assert closing.result() == b""


# Answers that are not taken


async def large(scope: Any, receive: Any, send: Any) -> None:
    """Answer with more than every buffer on the way holds."""
    del scope, receive
    headers = [(b"content-length", b"%d" % LARGE)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(LARGE // PIECE):
        await send({"type": "http.response.body", "body": bytes(PIECE), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def large_in_one(scope: Any, receive: Any, send: Any) -> None:
    """Answer with as much in one piece, and close the connection."""
    del scope, receive
    headers = [(b"content-length", b"%d" % LARGE), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(LARGE)})


@pytest.mark.parametrize("app", [large, large_in_one])
async def test_an_answer_that_is_not_taken_ends_the_connection(app: Any) -> None:
    """A client that asks and never reads costs a descriptor for a while, not for ever."""
    async with serving(app) as server:
        _, writer = await server.connect(limit=1)
        writer.write(GET * 20)
        await until(lambda: server.connections)

        await until(lambda: not server.connections)


async def test_an_answer_that_is_taken_slowly_is_sent_to_its_end() -> None:
    """Slow is not the same as never: it has a second more for every so many bytes that were taken."""
    async with serving(large, limited(SECONDS, SECONDS, SECONDS)) as server:
        reader, writer = await server.connect(limit=PIECE)
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        left = LARGE
        while left > LARGE // 2:
            left -= len(await reader.readexactly(PIECE))
            await asyncio.sleep(SECONDS / 20)
        rest = await reader.readexactly(left)

    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(rest) == left


# Requests that arrive together


async def test_pipelined_requests_are_read_one_at_a_time() -> None:
    """What is behind a request that is being answered costs its bytes, not a request each."""
    begun, go_on = 0, asyncio.Event()

    class Counting(limited(SECONDS, SECONDS, SECONDS)):  # type: ignore[misc]
        def on_headers_complete(self) -> None:
            nonlocal begun
            begun += 1
            super().on_headers_complete()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await echo(scope, receive, send)

    async with serving(app, Counting) as server, patience():
        reader, writer = await server.connect()
        writer.write(GET * 900)
        await until(lambda: begun)
        await writer.drain()
        assert begun == 1
        go_on.set()
        answers = [await answer(reader) for _ in range(900)]

    assert answers == [(200, b"")] * 900
    assert begun == 900


async def test_many_offers_to_upgrade_in_one_write_are_all_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """Each request is served as it stands, however many there are."""
    offer = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok"
    async with connected() as (reader, writer), patience():
        writer.write(offer * 900)
        answers = [await answer(reader) for _ in range(900)]

    assert answers == [(200, b"ok")] * 900
    assert not caplog.records


_TALK = (
    GET,
    b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na\r\n\r\nbody",
    b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nx\r\n\r\nyz0\r\n3;e=f\r\nend\r\n0\r\n\r\n",
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nTrailer: x\r\n\r\n",
    b"POST /d HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"\r\n\r\nGET /f HTTP/1.1\r\nHost: x\r\n\r\n",
)
_SAID = [b"", b"a\r\n\r\nbody", b"x\r\n\r\nyz0end", b"ab", b"abc", b"", b""]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 10_000])
async def test_requests_are_told_apart_wherever_the_data_is_cut(size: int) -> None:
    """Heads, bodies with a length, chunks and trailers end where they end, in pieces of any size."""
    data = b"".join(_TALK) * 3
    async with connected() as (reader, writer), patience():
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        answers = [await answer(reader) for _ in range(3 * len(_TALK))]

    assert answers == [(200, body) for body in _SAID] * 3


async def test_a_message_that_ends_in_the_next_data_is_told_from_the_one_behind_it() -> None:
    """Wherever it is cut, and although the first data held a whole head."""
    async with connected(LONG, LONG) as (reader, writer), patience():
        for message, said in zip(_TALK, _SAID, strict=True):
            for place in range(1, len(message)):
                writer.write(message[:place])
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                writer.write(message[place:] + GET)

                assert [await answer(reader), await answer(reader)] == [(200, said), (200, b"")]


@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_head_of_very_many_headers_is_refused(pieces: int) -> None:
    """Each costs all who look through them; however the head is cut, and whatever request came before."""
    async with connected(LONG, LONG) as (reader, writer), patience():
        writer.write(_head(MAX_HEADERS))
        assert await answer(reader) == (200, b"")
        head = _head(MAX_HEADERS + 1)
        size = -(-len(head) // pieces)
        for start in range(0, len(head), size):
            writer.write(head[start : start + size])
            await writer.drain()
        status, body = await answer(reader)
        assert await reader.read() == b""

    assert (status, body) == (431, b'{"success":false,"error":"Request headers are too large"}')


def _head(count: int) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * (count - 1) + b"\r\n"


async def test_a_body_in_one_byte_chunks_is_refused_before_it_costs_much() -> None:
    """Each of them costs as much as a large one: millions are refused after some thousands."""
    async with connected() as (reader, writer), patience():
        writer.write(CHUNKED + b"1\r\nx\r\n" * (MAX_CHUNKS * 2))
        status, body = await answer(reader)

    assert (status, body) == (400, b'{"success":false,"error":"The request body arrives in too many small chunks"}')


@pytest.mark.parametrize("data", [CHUNKED + b"1\r\nx\r\n" * (MAX_CHUNKS // 2), GET * 2000], ids=["chunks", "requests"])
async def test_costly_data_is_read_in_turns_with_what_others_send(data: bytes) -> None:
    """Few bytes of it are parsed in one iteration of the event loop, so that an iteration ends soon for everybody."""
    events = list[int]()

    class Counting(limited(LONG, LONG, LONG)):  # type: ignore[misc]
        def on_message_begin(self) -> None:
            events[-1] += 1
            super().on_message_begin()

        def on_body(self, body: bytes) -> None:
            events[-1] += 1
            super().on_body(body)

    async with serving(echo, Counting) as server, patience():
        _, writer = await server.connect()
        events.append(0)
        writer.write(data)
        while sum(events) < 2000:
            await asyncio.sleep(0)
            events.append(0)
        assert max(events) <= 1000


@pytest.mark.parametrize(("size", "count"), [(1, MAX_CHUNKS // 2), (8, MAX_CHUNKS), (256, 20_000)])
async def test_a_body_in_decent_chunks_is_read_to_its_end(size: int, count: int) -> None:
    """A writer of JSON may send every token by itself, and a large body may have as many chunks as it needs."""
    async with connected() as (reader, writer), patience():
        writer.write(CHUNKED + b"%x\r\n%b\r\n" % (size, b"x" * size) * count + b"0\r\n\r\n")
        status, body = await answer(reader)

    assert (status, len(body)) == (200, size * count)


async def test_endless_trailers_are_refused() -> None:
    """They mean nothing here, and must not cost anything either."""
    async with connected() as (reader, writer), patience():
        writer.write(CHUNKED + b"0\r\n" + b"a: b\r\n" * (MAX_CHUNKS + 10))
        status, _ = await answer(reader)

    assert status == 400


# How many connections there may be


async def test_a_connection_too_many_is_refused_and_the_others_are_served() -> None:
    """At once and with a word; the place of one that ends is free again."""
    async with serving(echo, limited(30, 30, 30, connections=Connections(limit=3))) as server, patience():
        lines = [await server.connect() for _ in range(3)]
        await until(lambda: server.connections == 3)
        refused, _ = await server.connect()
        head = await refused.readuntil(b"\r\n\r\n")
        rest = await refused.read()
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 5\r\n" in head
        assert rest == b'{"success":false,"error":"Temporarily unavailable, please try again"}'
        again, _ = await server.connect()
        assert (await answer(again))[0] == 503
        for reader, writer in lines:
            writer.write(GET)
            assert await answer(reader) == (200, b"")

        lines[0][1].close()
        await until(lambda: server.connections == 2)
        reader, writer = await server.connect()
        writer.write(GET)
        assert await answer(reader) == (200, b"")


async def test_connections_of_one_address_have_a_limit_of_their_own() -> None:
    """An address that has them all leaves room for others; a trusted proxy speaks for many and has no such limit."""
    counted = Connections(limit=100, per_address=2, proxies=Proxies([ip_network("127.0.0.1/32")]))
    async with serving(echo, limited(30, 30, 30, connections=counted)) as server, patience():
        lines = [await server.connect(source) for source in ("127.0.0.2",) * 2 + ("127.0.0.3",) + ("127.0.0.1",) * 5]
        for reader, writer in lines:
            writer.write(GET)
            assert await answer(reader) == (200, b"")
        refused, _ = await server.connect("127.0.0.2")

        assert (await answer(refused))[0] == 503
    assert counted.refused == {"all": 0, "address": 1}


REPEATED = {
    "no HTTP": (b"\x16\x03\x01 no HTTP\r\n\r\n", b"400"),
    "too many headers": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
}


@pytest.mark.parametrize("case", REPEATED)
async def test_malformed_requests_without_end_are_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """Each is refused; anybody can send them, so the log has a line when it begins and one a minute."""
    request, status = REPEATED[case]
    async with serving() as server, asyncio.timeout(20):
        for _ in range(20):
            reader, writer = await server.connect()
            writer.write(request)
            assert (await reader.readline()).split()[1] == status

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].getMessage().endswith("Since the last such line: 1.")


async def test_refused_connections_are_counted_in_few_lines() -> None:
    """A flood of them is no flood of the log; the metrics have them all."""
    counted = Connections(limit=1)
    with capture_logs() as lines:
        async with serving(echo, limited(30, 30, 30, connections=counted)) as server, patience():
            await server.connect()
            await until(lambda: server.connections == 1)
            for _ in range(50):
                refused, _ = await server.connect()
                await refused.read()

    said = [line["connections"] for line in lines if line["event"] == "connections.refused"]
    assert said == [1]
    assert counted.refused == {"all": 50, "address": 0}
