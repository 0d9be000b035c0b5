"""A broadcaster that says what a test has written down, one connection after the other."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.support.waiting import patience

Said = Any  # a frame, a close code, or None to break off

AT = "2026-05-15T09:10:00.000Z"


def hello(since: int = 0, *, heartbeat: float = 20, base: float = 0.01, longest: float = 0.02) -> dict[str, Any]:
    """Make a hello that asks for short pauses."""
    pauses = {"jitterSeconds": 0.01, "baseSeconds": base, "maxSeconds": longest}
    return {"type": "hello", "sequence": since, "since": since, "heartbeatSeconds": heartbeat, "reconnect": pauses}


def event(sequence: int) -> dict[str, Any]:
    """Make an event with nothing in it."""
    return {"type": "event", "seq": sequence, "event": "call_ended", "at": AT, "data": {}}


@dataclass
class Scripted:
    """What is said on each connection: frames, close codes, or None to break off; after its end a connection stays.

    `since` is where each connection asked to start, `tokens` what it came with, `heard` what it said afterwards.
    """

    scripts: Sequence[Sequence[Said]]
    url: str = ""
    since: list[int | None] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    _connections: list[ServerConnection] = field(default_factory=list)
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, connections: int) -> None:
        """Wait until so many connections have said where to start."""
        async with patience(), self._moved:
            await self._moved.wait_for(lambda: len(self.since) >= connections)

    async def until_asked(self, times: int) -> None:
        """Wait until it was asked something that often."""
        async with patience(), self._moved:
            await self._moved.wait_for(lambda: len(self.heard) >= times)

    def break_off(self) -> None:
        """Break the connection that was made last, as a network does."""
        self._connections[-1].transport.abort()

    async def play(self, connection: ServerConnection) -> None:
        """Play the next script."""
        self._connections.append(connection)
        with contextlib.suppress(ConnectionClosed):
            since, token = await self._start(connection)
            script = self.scripts[min(len(self.since), len(self.scripts) - 1)]
            async with self._moved:
                self.since.append(since)
                self.tokens.append(token)
                self._moved.notify_all()
            for said in script:
                if isinstance(said, dict):
                    await connection.send(json.dumps(said))
                elif said is None:
                    connection.transport.abort()
                else:
                    await connection.close(said, "as written")
            async for message in connection:
                async with self._moved:
                    self.heard.append(json.loads(message)["type"])
                    self._moved.notify_all()
                if self.heard[-1] == "ping":
                    await connection.send(json.dumps({"type": "pong", "sequence": 7}))

    async def _start(self, connection: ServerConnection) -> tuple[int | None, str | None]:
        assert connection.request is not None
        header = connection.request.headers.get("Authorization")
        if header:
            asked = parse_qs(urlsplit(connection.request.path).query).get("since")
            return int(asked[0]) if asked else None, header.removeprefix("Bearer ")
        first = json.loads(await connection.recv())
        return first.get("since"), first["token"]


@contextlib.asynccontextmanager
async def scripted(*scripts: Sequence[Said]) -> AsyncIterator[Scripted]:
    """Listen on a free port; the last script is played on every further connection."""
    playing = Scripted(scripts)
    async with serve(playing.play, "127.0.0.1", 0, compression=None) as server:
        playing.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1"
        yield playing
