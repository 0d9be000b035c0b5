import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from domain.errors import Overloaded, Unauthenticated
from domain.events import Event, EventName
from domain.principals import Principal, TokenKind
from persistence import organizations, outbox
from persistence.database import Database, Follower
from realtime.broadcaster import Broadcaster
from realtime.limits import Limits
from realtime.server import RealtimeServer
from tests.support import chromium, published_events
from tests.support.published_events import Frame
from tests.support.waiting import PATIENCE_SECONDS, patience

# Browser tests are collected where there is a browser; `make browser` sees to it that there is one.
collect_ignore = [] if chromium.EXECUTABLE else ["test_browser.py"]

BOTH_ENGINES = pytest.mark.parametrize("engine", ["sqlite", "postgresql"])

CONTACT = "c" * 24
CONVERSATION = "d" * 24
AT = "2026-05-15T09:10:00.000Z"

EXAMPLES: dict[EventName, dict[str, Any]] = {
    EventName.CALL_ENDED: {
        "callId": "a" * 24,
        "contactId": CONTACT,
        "conversationId": CONVERSATION,
        "direction": "inbound",
        "status": "completed",
        "duration": 12,
        "endedAt": AT,
    },
    EventName.NOTE_CREATED: {
        "noteId": "b" * 24,
        "contactId": CONTACT,
        "type": "ai_summary",
        "note": "Ruft später zurück – „bitte“",
        "createdAt": AT,
    },
    EventName.CONTACT_ERASED: {"contactId": CONTACT},
}


def make_event(name: EventName = EventName.CALL_ENDED, contact_id: str = CONTACT, padding: int = 0) -> Event:
    """Make an event as the actions do; `padding` makes it longer."""
    data = EXAMPLES[name] | {"contactId": contact_id}
    if padding:
        data = data | {"summary" if name is EventName.CALL_ENDED else "note": "x" * padding}
    return Event(name, data, contact_id, CONVERSATION if name is EventName.CALL_ENDED else None)


def unhurried(**given: Any) -> Limits:
    """Return limits under which nothing ends because the machine is slow, but for those given."""
    seconds = dict.fromkeys(("auth_seconds", "stall_seconds", "heartbeat_seconds"), PATIENCE_SECONDS)
    return Limits(**(seconds | {"drain_seconds": 0.1} | given))


class World:
    """A database with two organizations, tokens for them, and broadcasters on it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tokens: dict[str, Principal] = {}
        self.is_down = False

    async def populate(self) -> None:
        for name in ("ours", "theirs"):
            row = await self.database.write(lambda name=name: organizations.add(name, None))  # type: ignore[misc]
            setattr(self, name, row.id)
            self.tokens[name] = Principal(TokenKind.API_KEY, row.id)
        self.tokens["tool"] = Principal(TokenKind.TOOL_SECRET, self.ours)

    ours: str
    theirs: str

    async def authenticate(self, token: str) -> Principal:
        if self.is_down:
            raise Overloaded
        if token not in self.tokens:
            raise Unauthenticated("Invalid token")
        return self.tokens[token]

    async def commit(self, *events: Event, organization_id: str | None = None) -> int:
        """Commit events in one transaction; return the last sequence."""
        return await self.database.write(lambda: outbox.append(organization_id or self.ours, events))

    async def commit_many(self, count: int, **kind: Any) -> int:
        """Commit `count` events, a transaction each."""
        await asyncio.gather(*(self.commit(make_event(**kind)) for _ in range(count)))
        return await self.database.read(lambda: outbox.head(self.ours))

    def server(self, database: Database | None = None, **options: Any) -> RealtimeServer:
        options.setdefault("limits", unhurried())
        return RealtimeServer(database or self.database, self.authenticate, **options)

    @contextlib.asynccontextmanager
    async def broadcaster(self, *, deaf: bool = False, **options: Any) -> AsyncIterator["Station"]:
        """Run a broadcaster on a free port; a deaf one notices commits only when it is told to."""
        told = asyncio.Event()
        server = self.server(cast("Database", Deaf(self.database, told)) if deaf else None, **options)
        async with server.running("127.0.0.1", 0) as port:
            yield Station(server, port, told)


class Deaf:
    """A database whose wake-ups are held back until `told`."""

    def __init__(self, database: Database, told: asyncio.Event) -> None:
        self._told = told
        self._database = database
        self.read = database.read
        self.write = database.write
        self.place = database.place

    @contextlib.asynccontextmanager
    async def follow(self) -> AsyncIterator["DeafFollower"]:
        async with self._database.follow() as follower:
            yield DeafFollower(follower, self._told)


@dataclass
class DeafFollower:
    follower: Follower
    told: asyncio.Event

    def __post_init__(self) -> None:
        self.rows = self.follower.rows

    async def wait(self, seconds: float) -> tuple[()] | None:
        if not seconds and not self.told.is_set():
            return ()
        await self.told.wait()
        self.told.clear()
        return None


class Station:
    """A running broadcaster, and ways to listen to it."""

    def __init__(self, server: RealtimeServer, port: int, told: asyncio.Event) -> None:
        self.server = server
        self.catch_up = told.set
        self.port = port
        self.url = f"ws://127.0.0.1:{port}/v1"

    @contextlib.asynccontextmanager
    async def listener(self, token: str | None = "ours", query: str = "", **options: Any) -> AsyncIterator["Radio"]:
        """Connect with the token in the header, or with none."""
        if token:
            options.setdefault("additional_headers", {"Authorization": f"Bearer {token}"})
        async with connect(self.url + query, proxy=None, **options) as connection:
            yield Radio(connection)

    @contextlib.asynccontextmanager
    async def behind_a_line(self) -> AsyncIterator["Line"]:
        """Put a network line before the broadcaster, which can go dead without anybody hanging up."""
        line = Line(self.port)
        server = await asyncio.start_server(line.carry, "127.0.0.1", 0)
        line.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield line
        finally:
            server.close()
            line.hang_up()

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask for a page over plain HTTP; returns status, headers (lower case) and body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        status, *rest = head.decode().split("\r\n")
        return (
            int(status.split()[1]),
            {name.lower(): value for name, value in (line.split(": ") for line in rest)},
            body,
        )


class Line:
    """Carries bytes both ways, unless it is cut."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self._port = port
        self._intact = asyncio.Event()
        self._intact.set()
        self.cut = self._intact.clear
        self.mend = self._intact.set
        self._tasks: set[asyncio.Task[None]] = set()

    def hang_up(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(sink):
            while data := await source.read(65536):
                await self._intact.wait()
                sink.write(data)
                await sink.drain()


class Radio:
    """A listener that checks every frame against the published document."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def next(self) -> Frame:
        async with patience():
            return published_events.check(await self.connection.recv())

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def ask(self, **message: Any) -> Frame:
        await self.send(**message)
        return await self.next()

    async def until(self, sequence: int) -> list[int]:
        """Take events up to `sequence`; return what came."""
        got: list[int] = []
        while not got or got[-1] < sequence:
            frame = await self.next()
            assert frame["type"] == "event"
            got.append(frame["seq"])
        return got

    async def frames(self) -> AsyncIterator[Frame]:
        """Take frames until the connection ends, however it ends."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                yield await self.next()

    async def closed(self) -> int | None:
        """Wait for the end; return the close code."""
        async with patience():
            await self.connection.wait_closed()
        return self.connection.close_code


@pytest.fixture
def engine() -> str:
    """SQLite, unless a test asks for both engines."""
    return "sqlite"


@pytest.fixture
async def world(database: Database) -> World:
    made = World(database)
    await made.populate()
    return made


@pytest.fixture
def small_ring() -> Callable[[], Broadcaster[Any]]:
    """A broadcaster whose memory is smaller than any gap worth testing."""
    return lambda: Broadcaster(ring_events=5, ring_bytes=4000, page_bytes=1500)
