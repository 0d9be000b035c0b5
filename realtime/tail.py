"""The outbox's reader: takes what was committed after its cursor to the broadcaster, and what that says to the wire.

One pass is `deliver_once`; the loop around it is `run`. Between the broadcaster's decision and the last write there is
no await, which is what keeps live delivery and replay apart.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Generic

import structlog

from domain.events import StoredEvent
from persistence import outbox
from persistence.database import Database
from realtime.broadcaster import Broadcaster, Delivery, L

BATCH = 250
_WAIT_SECONDS = 1.0
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0

log = structlog.get_logger()


class Tail(Generic[L]):
    """Follows the outbox of every organization; `deliver` writes what the broadcaster decided, and may not wait."""

    def __init__(
        self,
        database: Database,
        broadcaster: Broadcaster[L],
        deliver: Callable[[list[StoredEvent], list[Delivery[L]]], None],
        *,
        batch: int = BATCH,
    ) -> None:
        self._database = database
        self._broadcaster = broadcaster
        self._deliver = deliver
        self._batch = batch
        self._cursor: outbox.Cursor | None = None
        self.has_more = True
        self.last_pass = time.monotonic()

    async def start(self) -> outbox.Cursor:
        """Take position at the end of the outbox, and return it.

        The cursor is taken before the heads: an event between the two is read again and ignored as a repeat.
        """
        cursor = await self._database.read(outbox.tail_position)
        self._broadcaster.start(await self._database.read(outbox.heads))
        self._cursor = cursor
        return cursor

    async def deliver_once(self) -> int:
        """Read one batch, write it to whoever is live; return how many events it held."""
        position = await self.start() if self._cursor is None else self._cursor
        cursor, events, self.has_more = await self._database.read(lambda: outbox.following(position, self._batch))
        if events:
            self._deliver(events, self._broadcaster.publish(events))
        self._cursor = cursor
        self.last_pass = time.monotonic()
        return len(events)

    async def run(self) -> None:
        """Deliver for ever; wait only when nothing is left, and back off while the database fails."""
        pause = _SHORTEST_PAUSE
        while True:
            try:
                async with self._database.wakeups() as wakeups:
                    while True:
                        await self.deliver_once()
                        # What is committed from here on is noticed by the wait, which looks before it waits.
                        await (asyncio.sleep(0) if self.has_more else wakeups.wait(_WAIT_SECONDS))
                        pause = _SHORTEST_PAUSE
            except Exception as error:  # whatever it is, listeners wait for us to come back
                log.warning("tail.failed", reason=str(error), retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
