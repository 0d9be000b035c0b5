"""Listeners, one by one: who they are, what they ask, and where they stand in the stream.

Every listener costs one task (the library's, which waits for its messages) and no queue. Live frames are written by
the tail's pass, straight to the transports.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol

import structlog
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from domain import times
from domain.addresses import network_of
from domain.errors import InvalidRequest, Overloaded, RelayError, Unauthenticated
from domain.filters import Filter
from domain.gaps import Gap, Reason
from domain.principals import Principal, TokenKind
from persistence import outbox
from persistence.database import Database
from realtime import frames
from realtime.arrivals import Arrivals
from realtime.broadcaster import Broadcaster, Delivery
from realtime.frames import Close
from realtime.handshake import Handshake, Refused
from realtime.keeping import Keeping
from realtime.limits import Limits
from realtime.metrics import Metrics
from realtime.outlet import write_row
from realtime.replay import Replay
from realtime.session import Peer, Session
from realtime.socket_counts import SocketCounts

Authenticate = Callable[[str], Awaitable[Principal]]
# Returns how many sockets an organization may have at once, 0 for any number.
Quota = Callable[[str], Awaitable[int]]


class Watch(Protocol):
    """Writes down that a listener's socket was opened or closed; raises RelayError if it cannot."""

    async def __call__(self, principal: Principal, address: str, /, *, is_open: bool) -> None:
        """Write it down."""
        ...


async def no_quota(_: str) -> int:
    """Set no limit."""
    return 0


async def unwatched(_: Principal, __: str, /, *, is_open: bool) -> None:
    """Write nothing down."""


log = structlog.get_logger()


class Reception:
    """Welcomes connections, answers their messages, and writes to them."""

    def __init__(
        self,
        database: Database,
        authenticate: Authenticate,
        broadcaster: Broadcaster[Session],
        limits: Limits,
        metrics: Metrics,
        keeping: Keeping,
        arrivals: Arrivals,
        quota: Quota = no_quota,
        watch: Watch = unwatched,
    ) -> None:
        self._database = database
        self._arrivals = arrivals
        self._authenticate = authenticate
        self._broadcaster = broadcaster
        self._limits = limits
        self._metrics = metrics
        self._keeping = keeping
        self._quota = quota
        self._watch = watch
        self._replay = Replay(database, broadcaster, limits, metrics, self.close)
        self._sessions: dict[ServerConnection, Session] = {}
        self.replaced = 0
        self._addresses: Counter[str] = Counter()
        self._organizations: Counter[str] = Counter()
        self.counts = SocketCounts(database, lambda: self._organizations)

    @property
    def sessions(self) -> Iterable[Session]:
        """Every connection past its handshake."""
        return list(self._sessions.values())

    def listeners(self) -> int:
        """Count those who are authenticated."""
        return sum(self._organizations.values())

    def organizations(self) -> int:
        """Count the organizations somebody follows."""
        return len(self._organizations)

    def behind(self) -> int:
        """Count those who are catching up."""
        return sum(1 for session in self._sessions.values() if session.replay)

    # Before the upgrade.

    def refuse_when_full(self, address: str) -> None:
        """Refuse an address when there is no room for one more listener.

        Raises:
            Refused: with 503 or 429.
        """
        if self._has_no_room():
            raise no_room()
        if self._addresses[network_of(address)] >= self._limits.per_address:
            raise _too_many("from this address")

    async def believe_header(self, token: str) -> Principal:
        """Return the principal of a token that came in a header.

        Raises:
            Refused: with 401, or with 503 when nobody can tell, or with 429.
        """
        try:
            principal = await self._believe(token)
            is_full = await self._is_full(principal)
        except Unauthenticated as error:
            raise Refused(HTTPStatus.UNAUTHORIZED, str(error), reason="unauthenticated") from None
        except RelayError:
            raise no_room("Tokens cannot be checked just now.") from None
        if is_full:
            self._metrics.quota_refused.inc()
            raise _too_many("of this organization")
        return principal

    # One connection.

    async def serve(self, connection: Peer, asked: Handshake, principal: Principal | None) -> None:
        """Look after one connection until it ends."""
        session = self._let_in(connection)
        try:
            if principal:
                await self._welcome(session, principal, asked.start)
            elif asked.subprotocol_token:
                await self._log_in(session, asked.subprotocol_token, asked.start)
            else:
                self._await_token(session)
            async for message in connection:
                await self._receive(session, message, asked.start)
        except (ConnectionClosed, ConnectionError):
            pass
        finally:
            self._dismiss(session)
            if session.watched:
                await self._note_end(session.watched, session.address)

    def close(self, session: Session, code: Close, reason: str) -> None:
        """Begin the closing handshake; nothing more is written to the session."""
        if session.is_open:
            self._metrics.closed.labels(code.value).inc()
            session.close(code, reason)
        self._forget(session)

    def _let_in(self, connection: Peer) -> Session:
        session = self._sessions[connection] = Session(connection, self._limits.unsent_bytes)
        self._addresses[session.address] += 1
        return session

    def _dismiss(self, session: Session) -> None:
        del self._sessions[session.connection]
        session.connection.session = None
        self._forget(session)
        session.outlet.release()
        _decrease(self._addresses, session.address)
        if session.principal:
            _decrease(self._organizations, session.principal.organization_id)

    def _forget(self, session: Session) -> None:
        self._broadcaster.leave(session)
        session.set_timer(None)
        if session.replay:
            session.replay.cancel()
            session.replay = None

    def _refuse(self, session: Session, code: Close, sentence: str) -> None:
        self._metrics.refused.labels(code.name.lower()).inc()
        session.write(frames.error(code.name.lower(), sentence))
        self.close(session, code, sentence)

    # Its messages.

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

    async def _obey(self, session: Session, message: frames.ListenerMessage, start: frames.Start) -> None:
        if isinstance(message, frames.Auth):
            await (self._renew(session, message) if session.principal else self._open(session, message, start))
        elif session.principal is None:
            session.write(frames.error("unauthenticated", "Send an auth message first."))
        elif isinstance(message, frames.Resume):
            await self._resume(session, session.principal.organization_id, message)
        elif isinstance(message, frames.Subscribe):
            self._subscribe(session, message)
        else:
            self._metrics.pongs.inc()
            session.write(frames.pong(session.sequence))

    def _subscribe(self, session: Session, message: frames.Subscribe) -> None:
        self._broadcaster.subscribe(session, _filter(message))
        wanted = message.model_dump(mode="json", by_alias=True, exclude={"type"})
        session.write(frames.subscribed(wanted, session.sequence))

    # Its token.

    def _await_token(self, session: Session) -> None:
        later = asyncio.get_running_loop().call_later
        session.set_timer(later(self._limits.auth_seconds, self._refuse, session, Close.AUTH_TIMEOUT, "no token came"))

    async def _open(self, session: Session, message: frames.Auth, start: frames.Start) -> None:
        # What the message says goes before what the address said.
        given = message.model_dump(include=message.model_fields_set - {"type", "token"})
        await self._log_in(session, message.token, start.model_copy(update=given))

    async def _log_in(self, session: Session, token: str, start: frames.Start) -> None:
        try:
            principal = await self._believe(token)
        except Unauthenticated as error:
            self._refuse(session, Close.UNAUTHENTICATED, str(error))
        except RelayError:
            self._refuse(session, Close.TRY_LATER, "tokens cannot be checked just now")
        else:
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
        hours = await self._keeping.hours(principal.organization_id)
        if session.watched and session.watched.user_id != principal.user_id:
            await self._watch(principal, session.address, is_open=True)
            await self._note_end(session.watched, session.address)
            session.watched = principal
        self._bind(session, principal)
        self._greet(session, hours)

    def _bind(self, session: Session, principal: Principal) -> None:
        session.principal = principal
        session.set_timer(None)
        if principal.expires_at is not None and session.is_open:
            later = asyncio.get_running_loop().call_later
            remaining = max(0.0, principal.expires_at - time.time())
            session.set_timer(later(remaining, self.close, session, Close.TOKEN_EXPIRED, "the token has expired"))

    async def _believe(self, token: str) -> Principal:
        principal = await self._authenticate(token)
        if principal.kind is TokenKind.TOOL_SECRET:
            raise Unauthenticated("A tool secret does not open the event stream")
        return principal

    def _has_no_room(self) -> bool:
        return self.listeners() >= self._limits.connections

    async def _is_full(self, principal: Principal) -> bool:
        quota = await self._quota(principal.organization_id)
        here = self._organizations[principal.organization_id]
        everywhere = here + self.counts.elsewhere(principal.organization_id)
        return here >= self._limits.per_organization or 0 < quota <= everywhere

    async def _note_end(self, principal: Principal, address: str) -> None:
        try:
            await self._watch(principal, address, is_open=False)
        except RelayError as error:
            log.warning("audit.socket_end_lost", organization_id=principal.organization_id, reason=str(error))

    # Its place in the stream.

    async def _welcome(self, session: Session, principal: Principal, start: frames.Start) -> None:
        organization_id = principal.organization_id
        try:
            is_beyond = await self._is_beyond(organization_id, start)
            hours = await self._keeping.hours(organization_id)
            is_full = await self._is_full(principal)
            if not is_full and session.is_open:
                # What cannot be written down is not shown.
                await self._watch(principal, session.address, is_open=True)
                session.watched = principal
        except RelayError:
            self._refuse(session, Close.TRY_LATER, "events cannot be read just now")
            return
        if not session.is_open:
            return
        # Looked at again: others may have come in while it was written down.
        if is_full or await self._is_full(principal):
            self._metrics.quota_refused.inc()
            self._refuse(session, Close.TOO_MANY, "too many connections of this organization")
            return
        if self._has_no_room():
            self._refuse(session, Close.TRY_LATER, "there is no room just now")
            return
        self._arrivals.remove(session.connection)
        self._organizations[organization_id] += 1
        self._bind(session, principal)
        gap = self._gap(organization_id, start, is_beyond=is_beyond)
        self._broadcaster.join(session, organization_id, _filter(start), None if gap else start.since)
        self._set_out(session, hours, gap)

    async def _resume(self, session: Session, organization_id: str, asked: frames.Resume) -> None:
        is_beyond = await self._is_beyond(organization_id, asked)
        hours = await self._keeping.hours(organization_id)
        gap = self._gap(organization_id, asked, is_beyond=is_beyond)
        self._broadcaster.rewind(session, gap.oldest - 1 if gap else asked.since)
        self._set_out(session, hours, gap)

    async def _is_beyond(self, organization_id: str, asked: frames.Start | frames.Resume) -> bool:
        """Tell whether a position is beyond the log's head; see to it that the log's epoch is known.

        Raises:
            Overloaded: if the position is in a log that this broadcaster will take over in a moment.
        """
        epoch = self._broadcaster.epoch(organization_id)
        is_ahead = asked.since is not None and asked.since > self._broadcaster.head(organization_id)
        if epoch and not is_ahead and asked.epoch in (None, epoch):
            return False
        # Another broadcaster may be ahead of this one; only the outbox knows what was never committed.
        standing = await self._database.read(lambda: outbox.standing(organization_id))
        if standing is None:
            raise Overloaded("The organization's log is not there.")
        self._broadcaster.learn(organization_id, standing)
        if asked.epoch == standing.epoch != self._broadcaster.epoch(organization_id):
            raise Overloaded("The log was replaced just now.")
        return asked.since is not None and asked.since > standing.sequence

    def _gap(self, organization_id: str, asked: frames.Start | frames.Resume, *, is_beyond: bool) -> Gap | None:
        """Say what a listener missed for good because its position is in no part of this log."""
        if asked.since is None:
            return None
        is_other = asked.epoch not in (None, self._broadcaster.epoch(organization_id))
        if not is_other and not is_beyond:
            return None
        oldest = self._broadcaster.head(organization_id) + 1
        return Gap(asked.since, oldest, Reason.EPOCH if is_other else Reason.AHEAD)

    def _set_out(self, session: Session, hours: float, gap: Gap | None) -> None:
        self._greet(session, hours)
        if gap is not None:
            self._admit(session, gap)
        self._replay.start(session)

    def restarted(self, logs: Mapping[str, bool]) -> None:
        """Take on the listeners of logs that are elsewhere now; tell those whose log was replaced."""
        self.replaced += sum(logs.values())
        for session in self.sessions:
            feed = session.feed
            if feed is None or feed.organization_id not in logs:
                continue
            if not feed.epoch:
                self.close(session, Close.TRY_LATER, "the organization's log is not there; come back and resume")
                continue
            if logs[feed.organization_id]:
                since = session.sequence
                self._broadcaster.rewind(session, feed.head)
                self._admit(session, Gap(since, feed.head + 1, Reason.EPOCH))
            self._replay.start(session)

    def _admit(self, session: Session, gap: Gap) -> None:
        self._metrics.gaps.inc()
        if session.feed:
            session.write(frames.gap(session.feed.epoch, gap))

    def _greet(self, session: Session, hours: float) -> None:
        expires_at = session.principal.expires_at if session.principal else None
        session.write(
            frames.hello(
                epoch=session.feed.epoch if session.feed else "",
                sequence=max(session.sequence, session.feed.head if session.feed else 0),
                since=session.sequence,
                expires_at=None if expires_at is None else times.to_wire(datetime.fromtimestamp(expires_at, UTC)),
                retention_hours=hours,
                heartbeat=self._limits.heartbeat_seconds,
                jitter=self._limits.jitter_seconds,
            )
        )

    # Live.

    def deliver(self, delivery: Delivery[Session]) -> int:
        """Write to one row and count the frames; whose buffer has no room for them is taken out of live delivery."""
        listeners = delivery.listeners
        full = write_row(listeners, delivery.data, self._limits.unsent_bytes)
        written = delivery.frames * (len(listeners) - len(full))
        for session in full:
            self._metrics.held.inc()
            self._broadcaster.rewind(session, delivery.after)
            self._replay.start(session)
        return written


def no_room(sentence: str = "There is no room just now.") -> Refused:
    """Say that coming back later makes sense."""
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, sentence, reason="overloaded", retry_after=5)


def _too_many(whose: str) -> Refused:
    sentence = f"There are too many connections {whose}."
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, sentence, reason="too_many", retry_after=5)


def _decrease(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _filter(wanted: frames.Wanted) -> Filter:
    events = None if wanted.events is None else frozenset(name.value for name in wanted.events)
    return Filter(events, wanted.contact_id, wanted.conversation_id)
