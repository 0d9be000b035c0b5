"""The outbox's reader: takes what was committed after its cursor to the broadcaster, and what that says to the wire.

Reading and writing go on side by side: `deliver_once` reads a batch and publishes it, with a loop around it, and
another loop writes what is due, a few hundred listeners at a time. Between the broadcaster's choice of a row and the
last write to it there is no await, which is what keeps live delivery and replay apart.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Generic

import structlog

from persistence import outbox
from persistence.database import Database, Follower
from realtime.broadcaster import Broadcaster, Delivery, L
from realtime.metrics import Metrics

BATCH = 250
_TURN = 250
_WAIT_SECONDS = 1.0
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0

log = structlog.get_logger()


class Tail(Generic[L]):
    """Follows the outbox of every organization.

    `deliver` writes to one row of listeners, may not wait, and returns how many frames were written.
    """

    def __init__(
        self,
        database: Database,
        broadcaster: Broadcaster[L],
        deliver: Callable[[Delivery[L]], int],
        metrics: Metrics,
        *,
        batch: int = BATCH,
    ) -> None:
        self._database = database
        self._broadcaster = broadcaster
        self._deliver = deliver
        self._metrics = metrics
        self._batch = batch
        self._cursor: outbox.Cursor | None = None
        self._left_over = asyncio.Event()
        self._written = asyncio.Event()
        self._pause = _SHORTEST_PAUSE
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

    async def deliver_once(self, follower: Follower, among: Collection[str] | None = None) -> int:
        """Read one batch, publish it and begin to write it, for `run` to go on; return how many events it held.

        With `among` only these organizations need be asked.
        """
        position = await self.start() if self._cursor is None else self._cursor
        passage = await follower.read(outbox.following(position, self._batch, among))
        if passage.events:
            self._metrics.events.inc(len(passage.events))
            self._broadcaster.publish(passage.events)
            if self.write_some(follower):
                self._left_over.set()
        self._cursor, self.has_more = passage.cursor, passage.has_more
        self.last_pass = time.monotonic()
        return len(passage.events)

    async def run(self) -> None:
        """Deliver for ever; wait only when nothing is left, and back off while the database fails."""
        while True:
            try:
                async with self._database.follow() as follower, asyncio.TaskGroup() as loops:
                    loops.create_task(self._read(follower))
                    loops.create_task(self._write(follower))
            except* Exception as errors:  # whatever it is, listeners wait for us to come back
                log.warning("tail.failed", reason=str(errors.exceptions[0]), retry_in=self._pause)
                await asyncio.sleep(self._pause)
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    async def _read(self, follower: Follower) -> None:
        among: Collection[str] | None = None
        asked_all = 0.0
        while True:
            # Now and then everybody is asked, whoever was named: a hint is not the truth.
            if not among or time.monotonic() - asked_all > _WAIT_SECONDS:
                among, asked_all = None, time.monotonic()
            await self.deliver_once(follower, among)
            self._pause = _SHORTEST_PAUSE
            # What is committed from here on is noticed by the wait, which looks before it waits.
            among = await (asyncio.sleep(0) if self.has_more else follower.wait(_WAIT_SECONDS))
            # What nobody has been handed yet is better kept in the outbox than here.
            while self._broadcaster.outstanding >= self._batch:
                self._written.clear()
                await self._written.wait()

    async def _write(self, follower: Follower) -> None:
        self._left_over.set()  # whoever was due when the loops last failed still is
        while await self._left_over.wait():
            # What has come is read first: it takes the loop a few steps, and then goes along with what is left.
            if not follower.has_news() and not self.write_some(follower):
                self._left_over.clear()
            self._written.set()
            await asyncio.sleep(0)

    def write_some(self, follower: Follower) -> bool:
        """Write until it is the others' turn, or news has come; False when nobody is left to write to."""
        reached, written, oldest = 0, 0, ""
        while delivery := self._broadcaster.deliver():
            reached += len(delivery.listeners)
            oldest = delivery.at
            written += self._deliver(delivery)
            if reached >= _TURN or follower.has_news():
                break
        if oldest:
            self._metrics.delivered(written, oldest)
        return delivery is not None
