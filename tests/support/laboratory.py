"""A loopback HTTP server whose every byte the test decides, for answers no well-behaved server would give."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Laboratory:
    """What the server saw: how many connections, and the head of every request as text.

    `asked` is set once a request has come, `ended` once a connection is over.
    """

    def __init__(self, script: Script, host: str) -> None:
        self.host = host
        self.port = 0
        self.connections = 0
        self.requests: list[str] = []
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()
        self._script = script
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where it listens, as an http URL without a path."""
        return f"http://{self.address}"

    def start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play the script on a new connection."""
        self.connections += 1
        self._writers.append(writer)
        self._tasks.append(asyncio.create_task(self._play(reader, writer)))

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                self.asked.set()
                await self._script(reader, writer)
        finally:
            self.ended.set()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def stop(self) -> None:
        """End every connection that is still open.

        Raises:
            Exception: what a script failed with.
        """
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.close()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """Return a complete HTTP answer; underscores in header names become hyphens, a value of "" leaves one out."""
    fields = {"content_length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1") + body


def saying(*pieces: bytes) -> Script:
    """Return the script that sends `pieces` and closes."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return script


def repeating(start: bytes, piece: bytes, every: float = 0) -> Script:
    """Return the script that sends `start`, then `piece` again and again until the other side goes away."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every)

    return script


def falling_silent(start: bytes = b"") -> Script:
    """Return the script that sends `start` and then nothing, until the other side goes away."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        await reader.read()

    return script


def taking_turns(*scripts: Script) -> Script:
    """Return the script that plays the first of `scripts` on the first connection, the second on the second …"""
    remaining = list(scripts)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await remaining.pop(0)(reader, writer)

    return script


@asynccontextmanager
async def laboratory(
    script: Script, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Laboratory]:
    """Listen on a free port (or `port`) and play `script` on every connection once its request has come."""
    lab = Laboratory(script, host)
    server = await asyncio.start_server(lab.start, host, port, ssl=tls)
    lab.port = server.sockets[0].getsockname()[1]
    try:
        yield lab
    finally:
        server.close()
        await lab.stop()
        await server.wait_closed()
