"""The broadcaster process: sockets and tasks around the pure `Broadcaster`.

Every listener costs one task (the library's, which waits for its messages) and no queue. Live frames are written by
the tail's pass, straight to the transports. A listener that cannot keep up is taken out of live delivery and goes on
at its own pace from the ring or the outbox, like one that resumes; if it does not read at all, it is closed.
"""

import asyncio
import contextlib
import logging
import math
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from domain import documents, times
from domain.errors import ConfigurationError, InvalidRequest, RelayError, Unauthenticated
from domain.events import StoredEvent
from domain.principals import Principal, TokenKind
from persistence import outbox
from persistence.database import Database
from realtime import frames, handshake
from realtime.broadcaster import Below, Broadcaster, Delivery, Filter
from realtime.handshake import Refused
from realtime.metrics import Metrics
from realtime.session import Session
from realtime.tail import Tail

Authenticate = Callable[[str], Awaitable[Principal]]

_PAGE_EVENTS = 250
_READ_AHEAD = 32 << 10  # a replay writes on while less than this is unsent
_SEND_BUFFER = 64 << 10  # the kernel's share per listener; left to itself it would hide megabytes from us
_HOUSEKEEPING_SECONDS = 60.0
_PRUNE_ROWS = 1000
_LAST_WORDS_SECONDS = 3.0

log = structlog.get_logger()


class Close(IntEnum):
    """Why we close a connection; what a client does about each is published in `openapi/events.yaml`."""

    RESTART = 1012
    TRY_LATER = 1013
    UNAUTHENTICATED = 4401
    AUTH_TIMEOUT = 4408
    TOO_MANY = 4429
    TOO_SLOW = 4490
    TOKEN_EXPIRED = 4498


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process allows; seconds and bytes."""

    connections: int = 16_000
    per_organization: int = 10_000
    per_address: int = 10_000
    message_bytes: int = 8 << 10
    messages_per_second: float = 10
    message_burst: float = 40
    unsent_bytes: int = 256 << 10
    auth_seconds: float = 5
    stall_seconds: float = 15
    heartbeat_seconds: float = 20
    jitter_seconds: float = 5
    drain_seconds: float = 3


class RealtimeServer:
    """Accepts listeners, authenticates them, and keeps each where the broadcaster says it is."""

    def __init__(
        self,
        database: Database,
        authenticate: Authenticate,
        *,
        allowed_origins: Collection[str] = (),
        retention_hours: float = 24,
        limits: Limits | None = None,
        broadcaster: Broadcaster[Session] | None = None,
        pages: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> None:
        self._database = database
        self._authenticate = authenticate
        self._allowed_origins = frozenset(allowed_origins)
        self._retention_hours = retention_hours
        self._limits = limits or Limits()
        self._broadcaster: Broadcaster[Session] = broadcaster or Broadcaster()
        self._pages = dict(pages or {})
        self._sessions: dict[ServerConnection, Session] = {}
        self._addresses: Counter[str] = Counter()
        self._organizations: Counter[str] = Counter()
        self._fills: dict[str, asyncio.Task[None]] = {}
        self._is_draining = False
        self.tail = Tail(database, self._broadcaster, self._deliver)
        self.metrics = Metrics(listeners=self._count_listeners, behind=self._count_behind, tail_idle=self._tail_idle)

    # Life.

    @contextlib.asynccontextmanager
    async def running(self, host: str, port: int) -> AsyncIterator[int]:
        """Serve on `host` and `port` (0: any free one) for as long as the context lasts; yields the port.

        Raises:
            ConfigurationError: when the address cannot be listened on.
        """
        listening = _listen(host, port)
        await self.tail.start()
        async with self._accept(listening) as server:
            # asyncio takes as many connections in one pass as the backlog it was given; the kernel may queue more.
            listening.listen(4096)
            tasks = [asyncio.create_task(self.tail.run()), asyncio.create_task(self._keep_house())]
            try:
                yield listening.getsockname()[1]
                await self._drain(server)
            finally:
                await _cancel(tasks)
                self._abort_all()

    def _accept(self, listening: socket.socket) -> Server:
        logger = logging.getLogger("realtime.websockets")
        logger.setLevel(logging.WARNING)  # at DEBUG the library writes headers, tokens included
        return serve_websockets(
            self._serve,
            sock=listening,
            process_request=self._answer,
            select_subprotocol=handshake.select_subprotocol,  # type: ignore[arg-type]
            compression=None,
            server_header=None,
            open_timeout=self._limits.auth_seconds,
            ping_interval=self._limits.heartbeat_seconds,
            ping_timeout=self._limits.heartbeat_seconds,
            close_timeout=5,
            max_size=self._limits.message_bytes,
            logger=logger,
            backlog=100,
        )

    async def _drain(self, server: Server) -> None:
        self._is_draining = True
        server.close(close_connections=False)
        waiting = list(self._sessions.values())
        random.shuffle(waiting)
        slices = max(1, min(len(waiting), math.ceil(self._limits.drain_seconds / 0.1)))
        for index in range(slices):
            for session in waiting[index::slices]:
                self._close(session, Close.RESTART, "restarting; come back and resume")
            await asyncio.sleep(0.1 if index + 1 < slices else 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await server.wait_closed()

    def _abort_all(self) -> None:
        for session in list(self._sessions.values()):
            session.connection.transport.abort()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            self._broadcaster.cool()
            try:
                await self._prune(times.later(-3600 * self._retention_hours))
            except RelayError as error:
                log.warning("outbox.prune_failed", reason=str(error))

    async def _prune(self, before: str) -> None:
        deleted = _PRUNE_ROWS
        while deleted == _PRUNE_ROWS:
            deleted = await self._database.write(lambda: outbox.prune(before, _PRUNE_ROWS))

    # Plain HTTP, and the way in.

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        try:
            if response := self._page(request):
                return response
            self._refuse_when_full(_address(connection))
            asked = handshake.read(request, self._allowed_origins)
            principal = await self._believe_header(asked.header_token)
        except Refused as refusal:
            self.metrics.refused.labels(refusal.reason).inc()
            return refusal.response()
        # The handler has no other way to learn what was asked.
        connection.asked, connection.principal = asked, principal  # type: ignore[attr-defined]
        return None

    def _page(self, request: Request) -> Response | None:
        path, _ = handshake.target(request)
        if path == "/healthz":
            health = self.health()
            status = HTTPStatus.OK if health["status"] == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
            return handshake.respond(status, "application/json", documents.dump(health))
        if path == "/metrics":
            return handshake.respond(
                HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", self.metrics.exposition()
            )
        if page := self._pages.get(path):
            return handshake.respond(HTTPStatus.OK, *page)
        return None

    def health(self) -> dict[str, Any]:
        """Tell how we are: `status` is `ok`, `draining`, or `stale` when the outbox could not be read for a while."""
        status = "draining" if self._is_draining else "stale" if self._tail_idle() > 10 else "ok"
        return {
            "status": status,
            "listeners": self._count_listeners(),
            "organizations": len(self._organizations),
            "behind": self._count_behind(),
            "lagSeconds": round(self.metrics.lag_seconds, 4),
        }

    def _refuse_when_full(self, address: str) -> None:
        if self._is_draining or len(self._sessions) >= self._limits.connections:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "No room just now.", reason="overloaded", retry_after=5)
        if self._addresses[address] >= self._limits.per_address:
            raise Refused(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many connections from this address.",
                reason="too_many",
                retry_after=5,
            )

    async def _believe_header(self, token: str | None) -> Principal | None:
        if token is None:
            return None
        try:
            principal = await self._believe(token)
        except Unauthenticated as error:
            raise Refused(HTTPStatus.UNAUTHORIZED, str(error), reason="unauthenticated") from None
        except RelayError:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "Tokens cannot be checked just now.", reason="overloaded", retry_after=5
            ) from None
        if self._organizations[principal.organization_id] >= self._limits.per_organization:
            raise _too_many("of this organization")
        return principal

    async def _believe(self, token: str) -> Principal:
        principal = await self._authenticate(token)
        if principal.kind is TokenKind.TOOL_SECRET:
            raise Unauthenticated("A tool secret does not open the event stream")
        return principal

    # One connection.

    async def _serve(self, connection: ServerConnection) -> None:
        asked: handshake.Handshake = connection.asked  # type: ignore[attr-defined]
        principal: Principal | None = connection.principal  # type: ignore[attr-defined]
        del connection.asked, connection.principal  # type: ignore[attr-defined]
        session = self._admit(connection)
        try:
            if principal:
                await self._welcome(session, principal, asked.start)
            elif asked.subprotocol_token:
                await self._log_in(session, asked.subprotocol_token, asked.start)
            else:
                self._await_token(session)
            async for message in connection:
                await self._receive(session, message, asked.start)
        except (ConnectionClosed, OSError):
            pass
        finally:
            self._dismiss(session)

    def _admit(self, connection: ServerConnection) -> Session:
        session = self._sessions[connection] = Session(connection, _address(connection))
        self._addresses[session.address] += 1
        return session

    def _dismiss(self, session: Session) -> None:
        del self._sessions[session.connection]
        _decrease(self._addresses, session.address)
        self._forget(session)
        if session.principal:
            _decrease(self._organizations, session.principal.organization_id)

    def _forget(self, session: Session) -> None:
        self._broadcaster.leave(session)
        session.set_timer(None)
        if session.replay:
            session.replay.cancel()
            session.replay = None

    def _close(self, session: Session, code: Close, reason: str) -> None:
        if session.is_open:
            self.metrics.closed.labels(code.value).inc()
            session.close(code, reason)
        self._forget(session)

    def _await_token(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        late = loop.call_later(self._limits.auth_seconds, self._refuse, session, Close.AUTH_TIMEOUT, "no token came")
        session.set_timer(late)

    def _refuse(self, session: Session, code: Close, sentence: str) -> None:
        self.metrics.refused.labels(code.name.lower()).inc()
        session.write(frames.error(code.name.lower(), sentence))
        self._close(session, code, sentence[:120])

    async def _receive(self, session: Session, raw: str | bytes, start: frames.Start) -> None:
        if not session.spend(time.monotonic(), self._limits.messages_per_second, self._limits.message_burst):
            self._refuse(session, Close.TOO_MANY, "too many messages")
            return
        try:
            await self._obey(session, frames.parse(raw), start)
        except InvalidRequest as problem:
            session.write(frames.error("invalid_message", str(problem)))
        except RelayError:
            session.write(frames.error("try_later", "That cannot be done just now."))
        # Whoever asks without reading the answers waits here, with the rest of its questions.
        await session.drained()

    async def _obey(self, session: Session, message: frames.Message, start: frames.Start) -> None:
        if isinstance(message, frames.Auth):
            await (self._renew(session, message) if session.principal else self._open(session, message, start))
        elif session.principal is None:
            session.write(frames.error("unauthenticated", "Send an auth message first."))
        elif isinstance(message, frames.Resume):
            await self._resume(session, message.since)
        elif isinstance(message, frames.Subscribe):
            self._broadcaster.subscribe(session, _filter(message))
            wanted = message.model_dump(mode="json", by_alias=True, exclude={"type"})
            session.write(frames.subscribed(wanted, session.sequence))
        else:
            self.metrics.pongs.inc()
            session.write(frames.pong(session.sequence))

    # Tokens.

    async def _open(self, session: Session, message: frames.Auth, start: frames.Start) -> None:
        # What the message says goes before what the address said.
        given = message.model_dump(include=message.model_fields_set - {"type", "token"})
        await self._log_in(session, message.token, start.model_copy(update=given))

    async def _log_in(self, session: Session, token: str, start: frames.Start) -> None:
        try:
            principal = await self._believe(token)
        except Unauthenticated as error:
            self._refuse(session, Close.UNAUTHENTICATED, str(error))
            return
        except RelayError:
            self._refuse(session, Close.TRY_LATER, "tokens cannot be checked just now")
            return
        await self._welcome(session, principal, start)

    async def _renew(self, session: Session, message: frames.Auth) -> None:
        if message.model_fields_set != {"type", "token"}:
            raise InvalidRequest("A renewal carries a token only; use resume and subscribe for the rest.")
        try:
            principal = await self._believe(message.token)
        except Unauthenticated as error:
            session.write(frames.error("unauthenticated", str(error)))
            return
        if session.principal is None or principal.organization_id != session.principal.organization_id:
            session.write(frames.error("unauthenticated", "That token is of another organization."))
            return
        self._bind(session, principal)
        self._greet(session)

    def _bind(self, session: Session, principal: Principal) -> None:
        session.principal = principal
        session.set_timer(None)
        if principal.expires_at is not None:
            loop = asyncio.get_running_loop()
            remaining = max(0.0, principal.expires_at - time.time())
            session.set_timer(
                loop.call_later(remaining, self._close, session, Close.TOKEN_EXPIRED, "the token has expired")
            )

    # Where a listener is.

    async def _welcome(self, session: Session, principal: Principal, start: frames.Start) -> None:
        organization_id, since = principal.organization_id, start.since
        try:
            is_beyond = since is not None and await self._is_beyond(organization_id, since)
        except RelayError:
            self._refuse(session, Close.TRY_LATER, "events cannot be read just now")
            return
        if not session.is_open:
            return
        if self._organizations[organization_id] >= self._limits.per_organization:
            self._refuse(session, Close.TOO_MANY, "too many connections of this organization")
            return
        self._organizations[organization_id] += 1
        self._bind(session, principal)
        self._broadcaster.join(session, organization_id, _filter(start), None if is_beyond else since)
        self._set_out(session, beyond=since if is_beyond else None)

    async def _resume(self, session: Session, since: int) -> None:
        organization_id = session.principal.organization_id if session.principal else ""
        is_beyond = await self._is_beyond(organization_id, since)
        self._broadcaster.rewind(session, self._broadcaster.head(organization_id) if is_beyond else since)
        self._set_out(session, beyond=since if is_beyond else None)

    async def _is_beyond(self, organization_id: str, since: int) -> bool:
        # Another broadcaster may be ahead of this one; only the outbox knows what was never committed.
        if since <= self._broadcaster.head(organization_id):
            return False
        return since > await self._database.read(lambda: outbox.head(organization_id))

    def _set_out(self, session: Session, beyond: int | None) -> None:
        self._greet(session)
        if beyond is not None:
            self.metrics.gaps.inc()
            session.write(frames.gap(beyond, session.sequence + 1))
        self._replay(session)

    def _greet(self, session: Session) -> None:
        expires_at = session.principal.expires_at if session.principal else None
        session.write(
            frames.hello(
                sequence=max(session.sequence, session.feed.head if session.feed else 0),
                since=session.sequence,
                expires_at=None if expires_at is None else times.to_wire(datetime.fromtimestamp(expires_at, UTC)),
                retention_hours=self._retention_hours,
                heartbeat=self._limits.heartbeat_seconds,
                jitter=self._limits.jitter_seconds,
            )
        )

    # Replay.

    def _replay(self, session: Session) -> None:
        """Replay what memory holds at once; what needs the outbox, or a peer that reads, becomes a task."""
        if session.replay:
            return
        while session.unsent < _READ_AHEAD:
            step = self._broadcaster.advance(session)
            if step is None:
                return
            if isinstance(step, Below):
                break
            self.metrics.replays.labels("ring").inc()
            session.write(step)
        session.replay = asyncio.create_task(self._replay_slowly(session))

    async def _replay_slowly(self, session: Session) -> None:
        try:
            while session.is_open:
                async with asyncio.timeout(self._limits.stall_seconds):
                    await session.drained()
                step = self._broadcaster.advance(session)
                if step is None:
                    break
                session.write(await self._older(session, step) if isinstance(step, Below) else step)
        except (ConnectionClosed, ConnectionError):
            pass  # the listener is gone; its handler tidies up
        except TimeoutError:
            self._give_up(session, Close.TOO_SLOW, "too slow; come back and resume")
        except Exception as error:  # a half-done replay cannot go on, but the listener can come back
            log.warning("replay.failed", reason=str(error))
            self._give_up(session, Close.TRY_LATER, "the replay failed; come back and resume")
        finally:
            session.replay = None

    def _give_up(self, session: Session, code: Close, reason: str) -> None:
        session.replay = None  # it is the task that runs this; closing must not cancel it
        self._close(session, code, reason)

    async def _older(self, session: Session, below: Below) -> bytes:
        if await self._fill(below.organization_id):
            return b""
        page = await self._read(below, _PAGE_EVENTS)
        data = self._broadcaster.supply(session, below, page)
        self.metrics.replays.labels("outbox").inc()
        if not page or page[0].sequence > below.after + 1:
            self.metrics.gaps.inc()
        return data

    async def _fill(self, organization_id: str) -> bool:
        """Fill an organization's ring from the outbox, once for all who wait; False when that was done before."""
        task = self._fills.get(organization_id)
        if task is None:
            missing = self._broadcaster.unfilled(organization_id)
            if missing is None:
                return False
            task = self._fills[organization_id] = asyncio.create_task(self._fill_ring(missing))
            task.add_done_callback(lambda _: self._fills.pop(organization_id, None))
        await asyncio.shield(task)
        return True

    async def _fill_ring(self, missing: Below) -> None:
        events = await self._read(missing, missing.up_to - missing.after)
        self._broadcaster.fill(missing.organization_id, events)

    async def _read(self, below: Below, limit: int) -> list[StoredEvent]:
        return await self._database.read(
            lambda: outbox.after(below.organization_id, below.after, limit, up_to=below.up_to)
        )

    # Live.

    def _deliver(self, events: list[StoredEvent], deliveries: list[Delivery[Session]]) -> None:
        limit = self._limits.unsent_bytes
        slow: list[Session] = []
        written = 0
        for listeners, data, count in deliveries:
            written += count * len(listeners)
            for session in listeners:
                if session.is_open:
                    transport = session.connection.transport
                    transport.write(data)
                    if transport.get_write_buffer_size() > limit:
                        slow.append(session)
        self.metrics.delivered(events, written)
        for session in slow:
            self._hold(session)

    def _hold(self, session: Session) -> None:
        self.metrics.held.inc()
        self._broadcaster.hold(session)
        self._replay(session)

    # Figures.

    def _count_listeners(self) -> int:
        return sum(self._organizations.values())

    def _count_behind(self) -> int:
        return sum(1 for session in self._sessions.values() if session.replay)

    def _tail_idle(self) -> float:
        return time.monotonic() - self.tail.last_pass


async def serve(
    database: Database,
    authenticate: Authenticate,
    *,
    host: str,
    port: int,
    allowed_origins: Collection[str] = (),
    retention_hours: float = 24,
    limits: Limits | None = None,
    pages: Mapping[str, tuple[str, bytes]] | None = None,
) -> None:
    """Run the broadcaster until SIGTERM or SIGINT, then let every listener go with 1012, spread over a few seconds.

    Raises:
        ConfigurationError: when the address cannot be listened on.
    """
    server = RealtimeServer(
        database,
        authenticate,
        allowed_origins=allowed_origins,
        retention_hours=retention_hours,
        limits=limits,
        pages=pages,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server.running(host, port) as actual:
        log.info("broadcast.listening", host=host, port=actual)
        await stop.wait()
        log.info("broadcast.draining", listeners=server.health()["listeners"])
    log.info("broadcast.stopped")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Set REALTIME_HOST and REALTIME_PORT to a free address."
        ) from error
    # Accepted sockets inherit this. Set it before the kernel grows the buffer by itself.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    return listening


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _too_many(whose: str) -> Refused:
    sentence = f"There are too many connections {whose}."
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, sentence, reason="too_many", retry_after=5)


def _address(connection: ServerConnection) -> str:
    peer = connection.remote_address
    return str(peer[0]) if peer else ""


def _decrease(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _filter(wanted: frames.Wanted) -> Filter:
    events = None if wanted.events is None else frozenset(name.value for name in wanted.events)
    return Filter(events, wanted.contact_id, wanted.conversation_id)
