"""Heartbeats for everybody, from one task: a ping to each listener in turn, and an end to those that stay silent.

A task and a timer for each of ten thousand connections cost more than all else an idle broadcaster does.
"""

import asyncio
from collections.abc import Callable, Iterable

from prometheus_client import Counter

from realtime.frames import Close
from realtime.session import Session

_PING = b"\x89\x00"  # FIN and opcode 9, nothing in it (RFC 6455 §5.5.2)
_SLICES = 50


class Heartbeat:
    """Pings `sessions`, counts the pings, and gives those that sent nothing since the last one to `close`."""

    def __init__(
        self,
        sessions: Callable[[], Iterable[Session]],
        close: Callable[[Session, Close, str], None],
        sent: Counter,
    ) -> None:
        self._sessions = sessions
        self._close = close
        self._sent = sent

    async def run(self, seconds: float) -> None:
        """Ping every listener once in `seconds`, for ever, spread over that time."""
        while True:
            everyone = list(self._sessions())
            for first in range(_SLICES):
                for session in everyone[first::_SLICES]:
                    self._beat(session)
                await asyncio.sleep(seconds / _SLICES)

    def _beat(self, session: Session) -> None:
        # Who is being brought up to date may have the ping behind much else; whether it reads is watched there.
        if session.connection.is_silent and not session.replay:
            self._close(session, Close.NO_ANSWER, "no answer to a heartbeat")
        elif session.is_open:
            session.connection.is_silent = True
            session.write(_PING)
            self._sent.inc()
