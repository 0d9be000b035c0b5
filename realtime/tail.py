"""The outbox's reader: takes what was committed after its cursor to the broadcaster, and what that says to the wire.

One task: it waits, reads a batch, publishes it, and writes what is due, a few hundred listeners at a time. Between two
such turns other tasks run, and what was committed meanwhile is read and published: the rest of the listeners get it in
the same write. Between the broadcaster's choice of a row and the last write to it there is no await, which keeps
live delivery and replay apart.

Whether the database is still the continuation of what was read is looked at twice a second, and after every reconnect
before anything is read (`realtime/continuity.py`). When it is not, the tail takes position anew at the end.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Generic

import structlog

from domain.errors import facts_of
from persistence import outbox
from persistence.database import Database, Follower
from realtime.broadcaster import Broadcaster, Delivery, L
from realtime.continuity import Continuity
from realtime.metrics import Metrics

BATCH = 250
_TURN = 250
_WAIT_SECONDS = 1.0
_LOOK_SECONDS = 0.5
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0

log = structlog.get_logger()


def _ignore(_: Mapping[str, bool]) -> None:
    """Tell nobody."""


class Tail(Generic[L]):
    """Follows the outbox of every organization.

    `deliver` writes to one row of listeners, may not wait, and returns how many frames were written. `restarted` is
    given the logs whose listeners are no longer live, each with whether it was replaced.
    """

    def __init__(
        self,
        database: Database,
        broadcaster: Broadcaster[L],
        deliver: Callable[[Delivery[L]], int],
        metrics: Metrics,
        *,
        batch: int = BATCH,
        restarted: Callable[[Mapping[str, bool]], None] = _ignore,
        continuity: Continuity | None = None,
    ) -> None:
        self._database = database
        self._broadcaster = broadcaster
        self._deliver = deliver
        self._metrics = metrics
        self._batch = batch
        self._restarted = restarted
        self._continuity = continuity or Continuity(database)
        self._looking = asyncio.Lock()
        self._restarts = 0
        self._cursor: outbox.Cursor | None = None
        self._pause = _SHORTEST_PAUSE
        self.has_more = True
        self.last_pass = self.last_look = time.monotonic()

    async def start(self) -> outbox.Cursor:
        """Take position at the end of the outbox, and return it.

        The cursor is taken before the standings: an event between the two is read again and ignored as a repeat.
        """
        await self._continuity.begin()
        cursor = await self._database.read(outbox.tail_position)
        self._broadcaster.start(await self._database.read(outbox.standings))
        self._cursor = cursor
        return cursor

    async def watch(self) -> None:
        """Look for ever whether the logs go on; a failure is for the next look."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Exception as error:  # whatever it is, the next look may go well
                log.warning("tail.look_failed", **facts_of(error))

    async def look(self) -> None:
        """Compare the database with what was read from it; start again at its end if it is not the continuation."""
        async with self._looking:
            # Taken before the look: what is published meanwhile must not seem to be gone.
            known = self._broadcaster.standings()
            standings = await self._continuity.look(known)
            if standings is None:
                await self._restart()
            else:
                for organization_id, standing in standings.items():
                    self._broadcaster.learn(organization_id, standing)
            self.last_look = time.monotonic()

    async def _restart(self) -> None:
        cursor = await self._database.read(outbox.tail_position)
        standings = await self._database.read(outbox.standings)
        self._cursor, self.has_more = cursor, True
        self._restarts += 1
        restarted = self._broadcaster.restart(standings)
        self._metrics.replaced.inc(sum(restarted.values()))
        self._restarted(restarted)
        log.warning("tail.logs_replaced", organizations=sum(restarted.values()))

    async def deliver_once(self, follower: Follower, among: Collection[str] | None = None) -> int:
        """Read one batch after the cursor and publish it, for `write_some` to write; return how many events it held.

        With `among` only these organizations need be asked.
        """
        if self._cursor is None:
            raise RuntimeError("the tail has no position yet")
        restarts = self._restarts
        passage = await outbox.following(follower.rows, self._cursor, self._batch, among)
        if restarts != self._restarts:
            return 0  # read from where the tail no longer is
        self._continuity.witness(passage.events)
        self._metrics.events.inc(len(passage.events))
        self._broadcaster.publish(passage.events)
        self._cursor, self.has_more = passage.cursor, passage.has_more
        self.last_pass = time.monotonic()
        return len(passage.events)

    async def run(self) -> None:
        """Deliver for ever; wait only when nothing is left, and back off while the database fails."""
        while True:
            try:
                if self._cursor is None:
                    await self.start()
                async with self._database.follow() as follower:
                    await self.look()
                    await self._follow(follower)
            except Exception as error:  # whatever it is, listeners wait for us to come back
                log.warning("tail.failed", **facts_of(error), retry_in=self._pause)
                await asyncio.sleep(self._pause)
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    async def _follow(self, follower: Follower) -> None:
        named: Collection[str] | None = None
        asked_all = 0.0
        while True:
            # Every organization is asked from time to time, whichever were named: a notification may be lost.
            if not named or time.monotonic() - asked_all > _WAIT_SECONDS:
                named, asked_all = None, time.monotonic()
            if self._continuity.must_look:
                await self.look()
            await self.deliver_once(follower, named)
            self._pause = _SHORTEST_PAUSE
            named = await self._write(follower)

    async def _write(self, follower: Follower) -> Collection[str] | None:
        """Write what is due, until there is something to read; return the organizations it may be of, None for any.

        What is committed from here on is noticed by the wait, which looks before it waits.
        """
        while True:
            is_left = self.write_some()
            await asyncio.sleep(0)
            # What nobody has been handed yet is better kept in the outbox than here.
            if self._broadcaster.outstanding >= self._batch:
                continue
            if self.has_more:
                return None
            named = await follower.wait(0 if is_left else _WAIT_SECONDS)
            if named is None or named or not is_left:
                return named

    def write_some(self) -> bool:
        """Write until it is the others' turn; False when nobody is left to write to."""
        reached, written, oldest = 0, 0, ""
        while reached < _TURN and (delivery := self._broadcaster.deliver()):
            reached += len(delivery.listeners)
            oldest = delivery.at
            written += self._deliver(delivery)
        if oldest:
            self._metrics.delivered(written, oldest)
        return reached >= _TURN
