"""The sockets of organizations, counted across broadcasters, so that a quota holds for all of them together.

Every broadcaster writes down what it counts when that changes, and reads what the others wrote. A round takes
`ROUND_SECONDS`, so a broadcaster knows of a socket elsewhere after two rounds at the latest. While nothing changes, a
round is one small query, and every `PROLONG_SECONDS` one statement keeps the rows alive.
"""

import asyncio
import hashlib
import socket
import time
from collections.abc import Callable, Mapping

import structlog

from domain.errors import RelayError, facts_of
from domain.identifiers import new_id
from persistence import open_sockets
from persistence.database import Database

ROUND_SECONDS = 2.0
_LAST_WORDS_SECONDS = 3.0
PROLONG_SECONDS = open_sockets.LIFE_SECONDS / 3

log = structlog.get_logger()


class SocketCounts:
    """Shares with the other broadcasters what `counted` returns: open sockets by organization."""

    def __init__(self, database: Database, counted: Callable[[], Mapping[str, int]]) -> None:
        self._database = database
        self._counted = counted
        self._broadcaster = new_id()
        self._place = ""
        self._written: dict[str, int] = {}
        self._elsewhere: dict[str, int] = {}
        self._prolonged_at = 0.0

    def elsewhere(self, organization_id: str) -> int:
        """Return how many sockets the organization has at other broadcasters, as far as is known here."""
        return self._elsewhere.get(organization_id, 0)

    async def run(self, port: int) -> None:
        """Share the counts of the broadcaster on `port` for ever; what an earlier one left there is removed first."""
        self._place = hashlib.sha256(f"{socket.gethostname()}:{port}".encode()).hexdigest()
        is_new = True
        while True:
            try:
                if is_new:
                    await self._database.write(lambda: open_sockets.leave(self._place))
                is_new = False
                await self.share()
            except Exception as error:  # whatever it is, the next round may go well
                log.warning("socket_counts.failed", **facts_of(error))
            await asyncio.sleep(ROUND_SECONDS)

    async def share(self) -> None:
        """Write down what changed here, and read what the others wrote."""
        if self._written and time.monotonic() - self._prolonged_at >= PROLONG_SECONDS:
            await self._prolong()
        counts = dict(self._counted())
        changed = {one: count for one, count in counts.items() if self._written.get(one) != count}
        changed |= {one: 0 for one in self._written if one not in counts}
        if changed:
            await self._database.write(lambda: open_sockets.put(self._broadcaster, self._place, changed))
            self._prolonged_at = self._prolonged_at if self._written else time.monotonic()
            self._written = counts
        self._elsewhere = await self._database.read(lambda: open_sockets.elsewhere(self._broadcaster))

    async def leave(self) -> None:
        """Take back what was written down; if the database cannot be reached, it ends by itself."""
        if not self._written:
            return
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._database.write(lambda: open_sockets.leave(self._place))
        except (RelayError, TimeoutError) as error:
            log.warning("socket_counts.failed", **facts_of(error))

    async def _prolong(self) -> None:
        kept = await self._database.write(lambda: open_sockets.prolong(self._broadcaster))
        if kept != len(self._written):
            # Rows are missing: this process was stopped for long, or another has the same host name and port.
            self._written = {}
        self._prolonged_at = time.monotonic()
