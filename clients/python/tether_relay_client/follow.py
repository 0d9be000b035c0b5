"""The loop of a follow: connect, hand on, come back.

The position moves when the caller asks for the next event: then the one before has been handled.
"""

import asyncio
import contextlib
import inspect
import logging
import random
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

from .events import Event, Gap
from .line import Line, Probe
from .options import OnError, OnGap, OnState, Options, Problem, Token, is_token
from .pages import Page, Pages
from .refusals import INVALID_MESSAGE, RESTART, Ended, Refused, Stopped, TokenRefused

_RECONNECT = {"jitterSeconds": 5.0, "baseSeconds": 0.5, "maxSeconds": 30.0}  # until a hello says otherwise
_HEARTBEAT_SECONDS = 20.0  # likewise
_STEADY_SECONDS = 30.0  # a connection that stood for so long counts as a success
_BLOCKED_UPGRADES = 2  # after so many failed upgrades in a row events are read over HTTP
_LONGEST_EXPONENT = 16

log = logging.getLogger(__package__)


def follow(
    url: str,
    *,
    token: Token,
    since: int | None = None,
    epoch: str | None = None,
    events: Sequence[str] | None = None,
    contact_id: str | None = None,
    conversation_id: str | None = None,
    fallback_url: str | None = None,
    on_gap: OnGap | None = None,
    on_state: OnState | None = None,
    on_error: OnError | None = None,
    token_seconds: float = 10,
    connect_seconds: float = 10,
    pong_seconds: float = 4.5,
) -> "Follow":
    """Follow the events of the organization that `token` belongs to; iterate over the result.

    Args:
        url: the address of the broadcaster, `ws://host:port/v1` or `wss://…`.
        token: an API key or JWT, or a function, also an async one, that returns a fresh one.
        since: the sequence of the last event handled; without it begin with what happens from now on.
        epoch: the epoch that came with that position.
        events: only events of these names; without it all come.
        contact_id: only events of this contact.
        conversation_id: only events of this conversation.
        fallback_url: the address of `GET /api/events`, read where sockets are blocked.
        on_gap: called when events are missing: reload what you show. It may be async, and is awaited.
        on_state: called with `connecting`, `live`, `polling`, `waiting` or `stopped`, and details.
        on_error: called with the server's `error` frames, and when `token` gives none; by default they are logged.
        token_seconds: how long `token()` may take.
        connect_seconds: how long a connection may take until it is greeted.
        pong_seconds: how long the answer to a ping may take.

    Raises:
        OptionError: if an option is not what it must be.
    """
    return Follow(Options(**locals()))


class Follow:
    """An organization's events, as an async iterator; `since` and `epoch` say where it stands."""

    def __init__(self, options: Options) -> None:
        self.since = options.since
        self.epoch = options.epoch
        self._options = options
        self._reconnect: Mapping[str, float] = _RECONNECT
        self._failures = 0  # connections in a row that brought nothing
        self._refusals = 0  # tokens in a row that were not accepted
        self._blocked = 0  # upgrades in a row that failed
        self._steady_since: float | None = None  # since when the present connection stands
        self._events = self._run()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            TokenRefused: when the token is not valid, or no longer.
            Refused: when the server refuses what was asked for.
        """
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop following, and close the connection."""
        await self._events.aclose()

    # The loop.

    async def _run(self) -> AsyncGenerator[Event, None]:
        stopped = Stopped(None, "stopped")
        try:
            while True:
                try:
                    async with contextlib.aclosing(self._connection()) as events:
                        async for event in events:
                            yield event
                            self.since = event["seq"]
                            self._failures = 0
                except Ended as ended:
                    ending = ended
                self._stop_if_final(ending)
                await self._pause(ending)
        except Stopped as final:
            stopped = final
            raise
        finally:
            self._tell(
                "stopped", {"code": stopped.code, "reason": stopped.reason, "since": self.since, "epoch": self.epoch}
            )

    def _stop_if_final(self, ending: Ended) -> None:
        if ending.is_token:
            self._refusals += 1
            # A function may have a better one.
            if not callable(self._options.token) or self._refusals > 1:
                raise TokenRefused(ending.code, ending.reason or "the token is not valid") from None
        if ending.is_hopeless:
            raise Refused(ending.code, ending.reason) from None

    async def _pause(self, ending: Ended) -> None:
        # Progress, or a connection that stood for a while, begins the pauses anew; a hello alone does not.
        if self._steady_since is not None and time.monotonic() - self._steady_since >= _STEADY_SECONDS:
            self._failures = 0
        first = self._reconnect["jitterSeconds" if ending.code == RESTART else "baseSeconds"]
        longest = max(self._reconnect["maxSeconds"], first)
        limit = min(longest, first * 2 ** min(self._failures, _LONGEST_EXPONENT))
        self._failures += 1
        seconds = ending.after_seconds + random.uniform(0, limit)  # noqa: S311
        self._tell("waiting", {"seconds": seconds, "code": ending.code, "reason": ending.reason})
        await asyncio.sleep(seconds)

    async def _connection(self) -> AsyncGenerator[Event, None]:
        """Yield the events of one connection.

        Raises:
            Ended: always, when it ends.
        """
        self._steady_since = None
        self._tell("connecting", {"since": self.since, "epoch": self.epoch})
        token = await self._token()
        is_blocked = self._options.fallback_url is not None and self._blocked >= _BLOCKED_UPGRADES
        async with contextlib.aclosing(self._poll(token) if is_blocked else self._listen(token)) as events:
            async for event in events:
                yield event

    async def _token(self) -> str:
        given, seconds = self._options.token, self._options.token_seconds
        if isinstance(given, str):
            return given
        try:
            async with asyncio.timeout(seconds):
                fresh = given()
                token = await fresh if inspect.isawaitable(fresh) else fresh
        except TimeoutError as error:
            raise self._without_token(f"token() gave nothing within {seconds:g} s", error) from error
        except Exception as error:
            raise self._without_token(str(error) or type(error).__name__, error) from error
        if not is_token(token):
            raise self._without_token("token() did not return a token", None)
        return token

    def _without_token(self, words: str, error: Exception | None) -> Ended:
        self._complain({"type": "error", "code": "token_failed", "message": words}, error)
        return Ended(None, words)

    # What the caller hears.

    def _tell(self, name: str, detail: Mapping[str, Any]) -> None:
        if self._options.on_state:
            self._options.on_state(name, detail)

    def _complain(self, frame: Mapping[str, Any], error: Exception | None = None) -> None:
        if self._options.on_error:
            self._options.on_error(cast("Problem", frame))
        else:
            log.warning("%s: %s", frame["code"], frame["message"], exc_info=error)

    async def _report_gap(self, gap: Gap) -> None:
        if self._options.on_gap:
            told = self._options.on_gap(gap)
            if inspect.isawaitable(told):
                await told
        self.since = gap["oldest"] - 1
        self.epoch = gap.get("epoch", self.epoch)

    # Over a socket.

    async def _listen(self, token: str, line: Line | None = None) -> AsyncGenerator[Event, None]:
        line = line or Line(self._options)
        try:
            await line.open()
            await line.send({**self._asked(), "type": "auth", "token": token})
            while True:
                frame = await line.take()
                if frame["type"] == "event" and frame["seq"] > (self.since or 0):
                    yield cast("Event", frame)
                else:
                    await self._note(line, frame)
        except Ended as ended:
            if not line.is_greeted and not ended.is_answer and not ended.is_hopeless:
                self._blocked += 1
            raise
        finally:
            await line.close()

    def _asked(self) -> dict[str, Any]:
        options = self._options
        asked = {
            "since": self.since,
            "epoch": self.epoch,
            "events": None if options.events is None else list(options.events),
            "contactId": options.contact_id,
            "conversationId": options.conversation_id,
        }
        return {name: value for name, value in asked.items() if value is not None}

    async def _note(self, line: Line, frame: Mapping[str, Any]) -> None:
        kind = frame["type"]
        if kind == "hello":
            self._greet(line, frame)
        elif kind == "gap":
            await self._report_gap(cast("Gap", frame))
        elif kind == "pong":
            self.since = max(self.since or 0, frame["sequence"])
        elif kind == "error":
            self._complain(frame)
            if frame["code"] == INVALID_MESSAGE and not line.is_greeted:  # it refused the options
                raise Ended(INVALID_MESSAGE, frame["message"])

    def _greet(self, line: Line, frame: Mapping[str, Any]) -> None:
        self._reconnect = {**_RECONNECT, **frame.get("reconnect", {})}
        self.since = frame["since"] if self.since is None else self.since
        self.epoch = frame.get("epoch") if self.epoch is None else self.epoch
        self._refusals = self._blocked = 0
        self._steady_since = time.monotonic()
        line.watch(frame.get("heartbeatSeconds", _HEARTBEAT_SECONDS))
        self._tell("live", frame)

    # Over HTTP, where sockets are blocked; the socket is tried beside it now and then.

    async def _poll(self, token: str) -> AsyncGenerator[Event, None]:
        async with Probe(self._options) as probe, Pages(self._options, token) as pages:
            is_told = False
            while probe.line is None:
                page = await pages.read(self._asked(), probe.opened, may_wait=is_told)
                if page is None:
                    continue
                if not is_told:
                    self._announce(page)
                is_told = True
                async with contextlib.aclosing(self._page(page)) as events:
                    async for event in events:
                        yield event
            self._blocked = _BLOCKED_UPGRADES - 1  # one failure is enough to come back here
            async with contextlib.aclosing(self._listen(token, probe.line)) as events:
                async for event in events:
                    yield event

    def _announce(self, page: Page) -> None:
        self._refusals = 0
        self._steady_since = time.monotonic()
        since = page["head"] if self.since is None else self.since
        self._tell("polling", {"since": since, "epoch": self.epoch or page.get("epoch")})

    async def _page(self, page: Page) -> AsyncGenerator[Event, None]:
        self.epoch = self.epoch or page.get("epoch")
        if self.since is None:  # from now on
            self.since = page["head"]
            return
        if gap := page.get("gap"):
            await self._report_gap(cast("Gap", {"type": "gap", "epoch": page.get("epoch"), **gap}))
        for event in page["events"]:
            if event["seq"] > self.since:
                yield event
                self.since = event["seq"]
        self.since = max(self.since, page["next"])
