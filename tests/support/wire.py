"""HTTP by hand: exactly the bytes a test wants on the wire, also those no client library would send."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.waiting import patience

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Answer:
    """What came back; `headers` keep their order and repetitions."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the one header of that name, or None."""
        found = [value for key, value in self.headers if key == name.lower()]
        assert len(found) < 2, f"{name} was sent {len(found)} times"
        return found[0] if found else None

    def json(self) -> Any:
        """Return the body read as JSON."""
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Write `data`; a server that no longer listens is no error, its answer may be on the way."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Read one answer.

        Raises:
            EOFError: when the connection ends before it is whole.
        """
        async with patience():
            return await self._answer(to_head=to_head)

    async def answer_within(self, seconds: float) -> Answer:
        """Read one answer.

        Raises:
            EOFError: when the connection ends before it is whole.
            TimeoutError: if there is none within the time limit.
        """
        async with asyncio.timeout(seconds):
            return await self._answer(to_head=False)

    async def _answer(self, *, to_head: bool) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2])]
        if status == 100:
            return await self._answer(to_head=to_head)
        has_body = not to_head and status not in (204, 304)
        length = int(dict(headers)["content-length"]) if has_body else 0
        return Answer(status, headers, await self._reader.readexactly(length))

    async def continued(self) -> None:
        """Wait until the server asks for the body."""
        async with patience():
            assert (await self._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")

    async def ended(self) -> bool:
        """Wait until the server closes the connection; True if it said nothing more."""
        async with patience():
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True

    def abort(self) -> None:
        """Go away without a word."""
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def wire(url: str, source: str = "127.0.0.1") -> AsyncIterator[Wire]:
    """Open a connection to the server at `url`, from an address of this machine."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        address.hostname, address.port, limit=1 << 20, local_addr=(source, 0)
    )
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


async def exchange(url: str, request: bytes) -> Answer:
    """Send `request` on a connection of its own and return the answer."""
    async with wire(url) as connection:
        await connection.send(request)
        return await connection.answer(to_head=request.startswith(b"HEAD "))


def bearer(token: str) -> tuple[bytes, bytes]:
    """Return the header that brings `token`."""
    return b"Authorization", b"Bearer " + token.encode()


JSON = (b"Content-Type", b"application/json")


def request(method: str, target: str | bytes, headers: Headers = (), body: bytes = b"") -> bytes:
    """Write a request with an honest Content-Length."""
    length = [(b"Content-Length", str(len(body)).encode())] if body or method in ("POST", "PUT", "PATCH") else []
    return head(method, target, [*headers, *length]) + body


def chunked(method: str, target: str, headers: Headers, chunks: Iterable[bytes]) -> bytes:
    """Write a request whose body arrives in chunks, without a Content-Length."""
    start = head(method, target, [*headers, (b"Transfer-Encoding", b"chunked")])
    return start + b"".join(chunk(piece) for piece in chunks if piece) + b"0\r\n\r\n"


def head(method: str, target: str | bytes, headers: Headers) -> bytes:
    """Write the first line and the headers of a request."""
    path = target.encode() if isinstance(target, str) else target
    lines = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: relay.test"]
    return b"\r\n".join([*lines, *(name + b": " + value for name, value in headers), b"", b""])


def chunk(data: bytes) -> bytes:
    """Write one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)
