"""Looking again, every few seconds, whether what the listeners' tokens rest on still stands.

A token is looked up when its connection opens. Somebody who signs out everywhere, or has a key made anew, would
otherwise be listened in on until the token's end. One question is asked for all who share a token, in batches, so its
cost grows with the tokens and not with the sockets; every broadcaster asks for itself, and nothing has to tell it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from itertools import islice

import structlog

from domain.errors import facts_of
from domain.principals import Principal
from realtime.frames import Close
from realtime.session import Session

Revoked = Callable[[Collection[Principal]], Awaitable[Collection[Principal]]]

_BATCH = 500
_REASON = "the token was revoked; get another one"

log = structlog.get_logger()


class Revocation:
    """Closes those whose tokens `revoked` names; `sessions` are all there are, `close` ends one."""

    def __init__(
        self,
        revoked: Revoked,
        sessions: Callable[[], Iterable[Session]],
        close: Callable[[Session, Close, str], None],
    ) -> None:
        self._revoked = revoked
        self._sessions = sessions
        self._close = close

    async def run(self, seconds: float) -> None:
        """Check for ever, `seconds` apart; without a database there are no events to overhear, so it may be out."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await self.check_once()
            except Exception as error:  # whatever it is, the next look may go well
                log.warning("revocation.check_failed", **facts_of(error))

    async def check_once(self) -> None:
        """Ask about every token that is in use, and close the connections of those that are worth nothing."""
        in_use = {_token_of(one.principal): one.principal for one in self._sessions() if one.principal}
        waiting = iter(in_use.values())
        while batch := list(islice(waiting, _BATCH)):
            gone = {_token_of(principal) for principal in await self._revoked(batch)}
            if gone:
                self._close_all(gone)
            await asyncio.sleep(0)  # an embedded database answers without letting anybody else go on

    def _close_all(self, gone: set[tuple[str | None, str]]) -> None:
        for session in self._sessions():
            # Looked at again: it may have been renewed with a better token in the meantime.
            if session.principal and session.is_open and _token_of(session.principal) in gone:
                self._close(session, Close.TOKEN_REVOKED, _REASON)


def _token_of(principal: Principal) -> tuple[str | None, str]:
    return principal.user_id, principal.credential
