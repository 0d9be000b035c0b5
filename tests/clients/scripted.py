"""A broadcaster and an API that say what a test has written down: one connection, one page after the other."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support.waiting import patience

AT = "2026-05-15T09:10:00.000Z"
EPOCH, NEXT_EPOCH = "a" * 24, "b" * 24


class Way(Enum):
    """What becomes of an upgrade that is not accepted, and of pings that get no answer."""

    REFUSED = "answered 403, as by a proxy that knows no WebSocket"
    SILENT = "never answered"
    POLLED = "accepted, but not before a second page is asked for: what the first one held was told by then"
    MUTE = "from here on nothing is answered"


# A frame, a text that is none, a close code, or None to break off; the first may say what becomes of the upgrade.
Said = dict[str, Any] | str | int | Way | None
# A body, a status, or a status with Retry-After; Way.SILENT never answers.
Answer = dict[str, Any] | int | tuple[int, int] | Way


def hello(
    since: int = 0, *, epoch: str = EPOCH, heartbeat: float = 20, base: float = 0.01, longest: float = 0.02
) -> dict[str, Any]:
    """Make a hello that asks for short pauses."""
    pauses = {"jitterSeconds": 0.01, "baseSeconds": base, "maxSeconds": longest}
    place = {"epoch": epoch, "sequence": since, "since": since}
    return {"type": "hello", **place, "heartbeatSeconds": heartbeat, "reconnect": pauses}


def event(sequence: int, name: str = "call_ended") -> dict[str, Any]:
    """Make an event with nothing in it."""
    return {"type": "event", "seq": sequence, "event": name, "at": AT, "data": {}}


def gap(since: int, oldest: int, *, epoch: str = NEXT_EPOCH, reason: str = "epoch") -> dict[str, Any]:
    """Make a gap."""
    return {"type": "gap", "epoch": epoch, "since": since, "oldest": oldest, "reason": reason}


def page(*sequences: int, head: int, epoch: str = EPOCH, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make an answer of `GET /api/events`."""
    events = [event(sequence) for sequence in sequences]
    return {"success": True, "events": events, "next": head, "oldest": 1, "head": head, "epoch": epoch, "gap": missing}


@dataclass
class Scripted:
    """What is said on each connection, and on each request for a page; the last of either is repeated.

    After the end of its script a connection stays. `asked` is the first message of each connection, `queries` the query
    of each page, `heard` the types of the messages that came later, `upgrades` how many sockets were asked for.
    """

    scripts: Sequence[Sequence[Said]]
    pages: Sequence[Answer] = ()
    url: str = ""
    fallback_url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    upgrades: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _connections: list[ServerConnection] = field(default_factory=list)
    _chosen: dict[ServerConnection, Sequence[Said]] = field(default_factory=dict)
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def since(self) -> list[int | None]:
        """Where each connection asked to start."""
        return [asked.get("since") for asked in self.asked]

    @property
    def places(self) -> list[tuple[int | None, str | None]]:
        """Where each connection asked to start, with the epoch."""
        return [(asked.get("since"), asked.get("epoch")) for asked in self.asked]

    async def until(self, condition: Any) -> None:
        """Wait until `condition` holds; it is looked at whenever something was asked."""
        async with patience(), self._moved:
            await self._moved.wait_for(condition)

    async def until_connected(self, times: int) -> None:
        """Wait until so many connections have said where to start."""
        await self.until(lambda: len(self.asked) >= times)

    async def until_asked(self, times: int) -> None:
        """Wait until it was asked something that often."""
        await self.until(lambda: len(self.heard) >= times)

    def break_off(self) -> None:
        """Break the connection that was made last, as a network does."""
        self._connections[-1].transport.abort()

    async def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a request for a page, or decide what becomes of an upgrade."""
        if urlsplit(request.path).path == "/api/events":
            return await self._answer_page(request)
        script = self.scripts[min(self.upgrades, len(self.scripts) - 1)]
        await self._note(lambda: setattr(self, "upgrades", self.upgrades + 1))
        if Way.SILENT in script[:1]:
            await self.over.wait()
        if Way.POLLED in script[:1]:
            await self.until(lambda: len(self.queries) >= 2)
        if script and script[0] in (Way.SILENT, Way.REFUSED):
            return connection.respond(HTTPStatus.FORBIDDEN, "no sockets here\n")
        self._chosen[connection] = script
        return None

    async def play(self, connection: ServerConnection) -> None:
        """Play the script of a connection."""
        self._connections.append(connection)
        with contextlib.suppress(ConnectionClosed):
            first = json.loads(await connection.recv())
            await self._note(lambda: self.asked.append(first))
            for said in self._chosen[connection]:
                await _say(connection, said)
            async for message in connection:
                kind = json.loads(message)["type"]
                await self._note(lambda kind=kind: self.heard.append(kind))
                if kind == "ping" and Way.MUTE not in self._chosen[connection]:
                    await connection.send(json.dumps({"type": "pong", "sequence": 7, "serverTime": AT}))

    async def _answer_page(self, request: Request) -> Response:
        answer = self.pages[min(len(self.queries), len(self.pages) - 1)]
        query = dict(parse_qsl(urlsplit(request.path).query)) | {"token": request.headers["Authorization"]}
        await self._note(lambda: self.queries.append(query))
        if answer is Way.SILENT:
            await self.over.wait()
        if isinstance(answer, dict):
            return _respond(200, answer)
        status, after = answer if isinstance(answer, tuple) else (answer, None)
        refusal = {"success": False, "error": {"code": "REFUSED", "message": f"answered {status}"}}
        return _respond(status if isinstance(status, int) else 503, refusal, after)

    async def _note(self, change: Any) -> None:
        async with self._moved:
            change()
            self._moved.notify_all()


async def _say(connection: ServerConnection, said: Said) -> None:
    if isinstance(said, dict):
        await connection.send(json.dumps(said))
    elif isinstance(said, str):
        await connection.send(said)
    elif isinstance(said, int):
        await connection.close(said, "as written")
    elif said is None:
        connection.transport.abort()


def _respond(status: int, body: dict[str, Any], after: int | None = None) -> Response:
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
    if after is not None:
        headers["Retry-After"] = str(after)
    return Response(status, HTTPStatus(status).phrase, Headers(headers), content)


@contextlib.asynccontextmanager
async def scripted(*scripts: Sequence[Said], pages: Sequence[Answer] = ()) -> AsyncIterator[Scripted]:
    """Listen on a free port."""
    playing = Scripted(scripts, pages)
    async with serve(
        playing.play,
        "127.0.0.1",
        0,
        compression=None,
        process_request=playing.answer,
        open_timeout=None,
        ping_interval=None,
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        playing.url, playing.fallback_url = f"ws://127.0.0.1:{port}/v1", f"http://127.0.0.1:{port}/api/events"
        try:
            yield playing
        finally:
            playing.over.set()
