"""A listener: follows an organization's events for as long as you iterate, through every reconnect.

It remembers the last sequence it gave you and resumes from there, so you get each event once and in order, or a `gap`
frame where some are no longer kept.
"""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from domain.errors import ConfigurationError, InvalidRequest, Unauthenticated

Frame = dict[str, Any]
OnRetry = Callable[[float, str], None]

_RESTART = 1012
_TOKEN_CODES = (4401, 4497, 4498)
_OUR_FAULTS = (1002, 1003, 1007, 1009, 4403)
_LONGEST_EXPONENT = 16


@dataclass(slots=True)
class _Course:
    """Where we are, and how the server wants us to come back."""

    position: int | None
    failures: int = 0
    heartbeat: float = 20
    reconnect: dict[str, float] = field(
        default_factory=lambda: {"jitterSeconds": 5, "baseSeconds": 0.5, "maxSeconds": 30}
    )

    def accept(self, frame: Frame) -> bool:
        """Take note of a frame; False when it is for us alone, or a repeat."""
        if frame["type"] == "hello":
            self.failures, self.heartbeat, self.reconnect = 0, frame["heartbeatSeconds"], frame["reconnect"]
            self.position = frame["since"] if self.position is None else self.position
        elif frame["type"] == "gap":
            self.position = frame["oldest"] - 1
        elif frame["type"] == "pong":
            self.position = max(self.position or 0, frame["sequence"])
            return False
        elif frame["type"] == "event":
            if frame["seq"] <= (self.position or 0):
                return False
            self.position = frame["seq"]
        return True

    def delay(self, code: int | None) -> float:
        """Return how long to wait, in seconds: anything up to a limit that grows with every failure."""
        if code == _RESTART:
            return random.uniform(0, self.reconnect["jitterSeconds"])  # noqa: S311
        exponent = min(self.failures, _LONGEST_EXPONENT)
        self.failures += 1
        limit = min(self.reconnect["maxSeconds"], self.reconnect["baseSeconds"] * 2**exponent)
        return random.uniform(0, limit)  # noqa: S311


async def listen(
    url: str,
    token: str,
    *,
    since: int | None = None,
    events: Sequence[str] | None = None,
    contact_id: str | None = None,
    conversation_id: str | None = None,
    on_retry: OnRetry | None = None,
) -> AsyncGenerator[Frame, None]:
    """Yield frames (`hello`, `event`, `gap`, `error`) as they come, for ever; shapes are in `openapi/events.yaml`.

    Args:
        url: where the broadcaster is, `ws://host:port` or `wss://…`.
        token: a JWT or an API key.
        since: the last sequence already handled; None begins with what happens from now on.
        events: only these names; None or empty means all.
        contact_id: only events of this contact.
        conversation_id: only events of this conversation.
        on_retry: told the seconds until the next try, and why.

    Raises:
        Unauthenticated: when the token is not valid, or no longer.
        InvalidRequest: when the server refuses what was asked for.
        ConfigurationError: when `url` is no WebSocket address.
    """
    wanted = {"events": ",".join(events or ()), "contactId": contact_id, "conversationId": conversation_id}
    course = _Course(since)
    while True:
        code, reason = None, "the connection broke"
        try:
            async with _open(_address(url, wanted, course.position), token) as connection:
                async for frame in _frames(connection, course):
                    yield frame
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            reason = _explain(code, closed.rcvd.reason if closed.rcvd else reason)
        except InvalidStatus as refused:
            reason = _explain_status(refused)
        except InvalidURI as error:
            raise ConfigurationError(f"{url} is not the address of a broadcaster (ws://host:port).") from error
        except (InvalidHandshake, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
        delay = course.delay(code)
        if on_retry:
            on_retry(delay, reason)
        await asyncio.sleep(delay)


def _open(address: str, token: str) -> connect:
    headers = {"Authorization": f"Bearer {token}"}
    return connect(address, additional_headers=headers, compression=None, max_size=None, open_timeout=10)


def _address(url: str, wanted: dict[str, str | None], position: int | None) -> str:
    parameters = {"since": position, **wanted}
    query = urlencode({name: value for name, value in parameters.items() if value not in (None, "")})
    return f"{url}?{query}" if query else url


async def _frames(connection: ClientConnection, course: _Course) -> AsyncIterator[Frame]:
    while True:
        try:
            async with asyncio.timeout(course.heartbeat):
                frame: Frame = json.loads(await connection.recv())
        except TimeoutError:
            # A quiet stream, or a narrow filter: the pong says how far we have come all the same.
            await connection.send('{"type":"ping"}')
            continue
        if course.accept(frame):
            yield frame


def _explain(code: int | None, reason: str) -> str:
    if code in _TOKEN_CODES:
        raise Unauthenticated(reason or "The token is not valid")
    if code in _OUR_FAULTS:
        raise InvalidRequest(f"The broadcaster closed the connection: {code} {reason}")
    return reason or f"closed with {code}"


def _explain_status(refused: InvalidStatus) -> str:
    status = refused.response.status_code
    try:
        message = str(json.loads(refused.response.body or b"")["message"])
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {status}"
    if status == 401:
        raise Unauthenticated(message) from None
    if 400 <= status < 500 and status != 429:
        raise InvalidRequest(f"The broadcaster refused the connection: {message}") from None
    return message
