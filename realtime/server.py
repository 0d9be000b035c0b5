"""The broadcaster process: one socket, the tail, and a graceful end.

It holds no business state. Kill it and start it again: listeners come back, say how far they got, and lose nothing.
Several of them on one database need nothing of each other.
"""

import asyncio
import contextlib
import gc
import logging
import math
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from http import HTTPStatus
from typing import Any, cast

import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.http11 import Request, Response

from domain import documents, times
from domain.addresses import Proxies
from domain.errors import ConfigurationError, RelayError
from domain.origins import HTTPS_ONLY, normalised
from domain.principals import Principal
from domain.repetition import Repetition
from persistence import outbox
from persistence.database import Database
from realtime import handshake, pages
from realtime.arrivals import Arrivals
from realtime.broadcaster import Broadcaster
from realtime.continuity import Continuity
from realtime.frames import Close
from realtime.handshake import Refused
from realtime.heartbeat import Heartbeat
from realtime.keeping import Keeping
from realtime.limits import Limits
from realtime.metrics import Metrics
from realtime.reception import Authenticate, Quota, Reception, Watch, no_quota, no_room, unwatched
from realtime.recollection import Recollection
from realtime.revocation import Revocation, Revoked
from realtime.session import Peer, Session
from realtime.tail import Tail

_SEND_BUFFER = 64 << 10  # the kernel's share per listener; left to itself it would hide megabytes from us
_ACCEPT_BATCH = 16  # connections taken in one pass of the loop, so that a crowd does not hold up live delivery
_KERNEL_BACKLOG = 4096
_STALE_SECONDS = 10.0
_HOUSEKEEPING_SECONDS = 60.0
_LAST_WORDS_SECONDS = 3.0
_SLICE_SECONDS = 0.1
_PRUNE_ROWS = 1000
_ORIGIN_CHARACTERS = 200  # of an origin in the log
_NOTHING = documents.dump({"code": "not_found", "message": "There is nothing here."})
_COLLECTOR_THRESHOLDS = (20_000, 50, 100)

log = structlog.get_logger()


async def nobody(_: Collection[Principal]) -> Collection[Principal]:
    """Name nobody: for those whose tokens are not revoked before they expire."""
    return ()


async def serve(
    database: Database,
    authenticate: Authenticate,
    revoked: Revoked,
    *,
    host: str,
    port: int,
    allowed_origins: Collection[str] = (),
    retention_hours: float = 24,
    limits: Limits | None = None,
    proxies: Proxies | None = None,
    management: tuple[str, int] | None = None,
    has_pages: bool = True,
    is_https: bool = False,
    quota: Quota = no_quota,
    watch: Watch = unwatched,
    recollection: Recollection | None = None,
    version: str = "",
) -> None:
    """Run the broadcaster until SIGTERM or SIGINT, then let every listener go with 1012, spread over a few seconds.

    Raises:
        ConfigurationError: when the address cannot be listened on.
    """
    server = RealtimeServer(
        database,
        authenticate,
        revoked,
        allowed_origins=allowed_origins,
        retention_hours=retention_hours,
        limits=limits,
        proxies=proxies,
        management=management,
        has_pages=has_pages,
        is_https=is_https,
        quota=quota,
        watch=watch,
        recollection=recollection,
        version=version,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    calm_collector()
    async with server.running(host, port) as actual:
        log.info("broadcast.listening", host=host, port=actual)
        await stop.wait()
        log.info("broadcast.draining", listeners=server.health()["listeners"])
    log.info("broadcast.stopped")


def calm_collector() -> None:
    """Have the garbage collector look less often, and never again at what was loaded so far.

    Listeners are thousands of objects that live long and are freed by their counts. Left alone, the collector goes
    through all of them again and again while a crowd arrives, and everybody waits.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


class RealtimeServer:
    """Accepts connections, answers plain HTTP on the same port, and runs the tail."""

    def __init__(
        self,
        database: Database,
        authenticate: Authenticate,
        revoked: Revoked = nobody,
        *,
        allowed_origins: Collection[str] = (),
        retention_hours: float = 24,
        limits: Limits | None = None,
        proxies: Proxies | None = None,
        broadcaster: Broadcaster[Session] | None = None,
        management: tuple[str, int] | None = None,
        has_pages: bool = True,
        is_https: bool = False,
        quota: Quota = no_quota,
        watch: Watch = unwatched,
        recollection: Recollection | None = None,
        version: str = "",
    ) -> None:
        self._database = database
        self._version = version
        self._allowed_origins = normalised(allowed_origins)
        self._retention_hours = retention_hours
        self._keeping = Keeping(database, retention_hours)
        self._limits = limits or Limits()
        self._pages = pages.load(for_people=has_pages)
        self._management = management
        self._process_response = _insist_on_https if is_https else None
        self._is_draining = False
        self._repetition = Repetition()
        self._proxies = proxies or Proxies()
        self._broadcaster: Broadcaster[Session] = broadcaster or Broadcaster()
        self._metrics = Metrics(
            listeners=lambda: self._reception.listeners(),
            unauthenticated=lambda: len(self._arrivals),
            behind=lambda: self._reception.behind(),
            tail_idle=lambda: self._tail_idle(),
            version=version,
        )
        self._arrivals = Arrivals(
            self._limits.unauthenticated, self._limits.unauthenticated_per_address, self._metrics.dropped
        )
        self._reception = Reception(
            database,
            authenticate,
            self._broadcaster,
            self._limits,
            self._metrics,
            self._keeping,
            self._arrivals,
            quota,
            watch,
        )
        self._heartbeat = Heartbeat(lambda: self._reception.sessions, self._reception.close, self._metrics.heartbeats)
        self._revocation = Revocation(revoked, lambda: self._reception.sessions, self._reception.close)
        self._continuity = Continuity(database, recollection)
        self._tail = Tail(
            database,
            self._broadcaster,
            self._reception.deliver,
            self._metrics,
            restarted=self._reception.restarted,
            continuity=self._continuity,
        )

    @contextlib.asynccontextmanager
    async def running(self, host: str, port: int) -> AsyncIterator[int]:
        """Serve on `host` and `port` (0: any free one) for as long as the context lasts; yields the port.

        Raises:
            ConfigurationError: when the address cannot be listened on.
        """
        listening = _listen(host, port)
        await self._tail.start()
        async with self._accept(listening) as server, self._managed():
            actual = listening.getsockname()[1]
            # asyncio takes as many connections in one pass as the backlog it was given; the kernel may queue more.
            listening.listen(_KERNEL_BACKLOG)
            work = (
                self._tail.run(),
                self._tail.watch(),
                self._heartbeat.run(self._limits.heartbeat_seconds),
                self._revocation.run(self._limits.revocation_seconds),
                self._reception.counts.run(actual),
                self._keep_house(),
            )
            tasks = [asyncio.create_task(each) for each in work]
            try:
                yield actual
                await self._drain(server)
            finally:
                await _cancel(tasks)
                await self._reception.counts.leave()
                for session in self._reception.sessions:
                    session.connection.transport.abort()

    def health(self) -> dict[str, Any]:
        """Tell how we are: `status` is `ok`, `draining`, or `stale` when the outbox could not be read for a while.

        The generation is that of the newest epoch, which begins with it; `logsReplaced` counts since the start.
        """
        status = "draining" if self._is_draining else "stale" if self._tail_idle() > _STALE_SECONDS else "ok"
        return {
            "status": status,
            "version": self._version,
            "listeners": self._reception.listeners(),
            "organizations": self._reception.organizations(),
            "behind": self._reception.behind(),
            "lagSeconds": round(self._metrics.lag_seconds, 4),
            "epochGeneration": self._continuity.generation,
            "logsReplaced": self._reception.replaced,
        }

    # Life.

    def _accept(self, listening: socket.socket) -> Server:
        logger = logging.getLogger("realtime.websockets")
        logger.setLevel(logging.WARNING)  # at DEBUG the library writes headers, tokens included
        return serve_websockets(
            self._serve,
            sock=listening,
            process_request=self._answer,
            process_response=self._process_response,
            select_subprotocol=handshake.select_subprotocol,  # type: ignore[arg-type]
            compression=None,
            server_header=None,
            open_timeout=self._limits.auth_seconds,
            ping_interval=None,
            max_size=self._limits.message_bytes,
            logger=logger,
            create_connection=self._make_peer,  # type: ignore[arg-type]
            backlog=_ACCEPT_BATCH,
        )

    async def _drain(self, server: Server) -> None:
        self._is_draining = True
        server.close(close_connections=False)
        for peer in self._arrivals:
            if peer.session is None:
                peer.loop.call_soon(peer.transport.abort)
        waiting = list(self._reception.sessions)
        random.shuffle(waiting)
        slices = max(1, min(len(waiting), math.ceil(self._limits.drain_seconds / _SLICE_SECONDS)))
        for index in range(slices):
            for session in waiting[index::slices]:
                self._reception.close(session, Close.RESTART, "restarting; come back and resume")
            await asyncio.sleep(_SLICE_SECONDS if index + 1 < slices else 0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await server.wait_closed()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            self._broadcaster.cool()
            self._keeping.forget()
            try:
                await self._prune(times.later(-3600 * self._retention_hours))
            except RelayError as error:
                log.warning("outbox.prune_failed", reason=str(error))

    async def _prune(self, before: str) -> None:
        deleted = _PRUNE_ROWS
        while deleted == _PRUNE_ROWS:
            deleted = await self._database.write(lambda: outbox.prune(before, _PRUNE_ROWS))

    def _tail_idle(self) -> float:
        return time.monotonic() - min(self._tail.last_pass, self._tail.last_look)

    # The way in.

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        peer = cast("Peer", connection)
        peer.address = self._proxies.client(peer.address, request.headers.get_all("X-Forwarded-For"))
        self._arrivals.locate(peer, peer.address)
        try:
            if response := self._page(request):
                return response
            if self._is_draining:
                raise no_room()
            self._reception.refuse_when_full(peer.address)
            asked = handshake.read(request)
            # A browser cannot see a status: the connection is accepted, and closed with words.
            peer.foreign_origin = handshake.foreign_origin(request, self._allowed_origins)
            if peer.foreign_origin is not None:
                return None
            token = asked.header_token
            principal = await self._reception.believe_header(token) if token else None
        except Refused as refusal:
            self._metrics.refused.labels(refusal.reason).inc()
            return refusal.response()
        peer.asked, peer.principal = replace(asked, header_token=None), principal
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        peer = cast("Peer", connection)
        peer.forget_handshake()
        if peer.foreign_origin is not None:
            self._metrics.refused.labels("origin").inc()
            if refusals := self._repetition.count():
                origin = peer.foreign_origin[:_ORIGIN_CHARACTERS]
                log.warning("broadcast.origin_refused", origin=origin, refusals=refusals)
            await peer.close(Close.ORIGIN, "pages of this origin may not connect; list it in REALTIME_ALLOWED_ORIGINS")
            return
        await self._reception.serve(peer, peer.asked, peer.principal)

    def _make_peer(self, *given: Any, **options: Any) -> Peer:
        peer = Peer(*given, **options)
        peer.on_begin, peer.on_end = self._begin, self._arrivals.remove
        peer.on_large_head = self._metrics.refused.labels("head").inc
        return peer

    def _begin(self, peer: Peer) -> None:
        # Every client of a proxy comes from its address, until the request tells them apart.
        self._arrivals.add(peer, None if self._proxies.has(peer.address) else peer.address)

    @contextlib.asynccontextmanager
    async def _managed(self) -> AsyncIterator[None]:
        """Answer health and metrics on a port of their own, if there is one, for as long as the context lasts."""
        if self._management is None:
            yield
            return

        def answer(_: ServerConnection, request: Request) -> Response:
            probe = self._probe(handshake.target(request)[0])
            return probe or handshake.respond(HTTPStatus.NOT_FOUND, "application/json", _NOTHING)

        listening = _listen(*self._management, name="MANAGEMENT")
        async with serve_websockets(
            _hang_up,
            sock=listening,
            process_request=answer,
            server_header=None,
            create_connection=Peer,
        ):
            yield

    def _page(self, request: Request) -> Response | None:
        path, _ = handshake.target(request)
        if self._management is None and (probe := self._probe(path)):
            return probe
        page = self._pages.get(path)
        return handshake.respond(HTTPStatus.OK, *page) if page else None

    def _probe(self, path: str) -> Response | None:
        if path in ("/healthz", "/readyz"):
            health = self.health()
            status = HTTPStatus.OK if health["status"] == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
            return handshake.respond(status, "application/json", documents.dump(health))
        if path == "/metrics":
            exposition = self._metrics.exposition()
            return handshake.respond(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", exposition)
        return None


def _insist_on_https(_: ServerConnection, __: Request, response: Response) -> None:
    response.headers["Strict-Transport-Security"] = HTTPS_ONLY


async def _hang_up(connection: ServerConnection) -> None:
    await connection.close()


def _listen(host: str, port: int, name: str = "REALTIME") -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Set {name}_HOST and {name}_PORT to a free address."
        ) from error
    # Accepted sockets inherit this. Set it before the kernel grows the buffer by itself.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    # asyncio does this only for sockets it made itself. Without it a second small frame waits for the first one's
    # acknowledgement, up to 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
