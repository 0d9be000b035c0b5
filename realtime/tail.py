"""The outbox's reader: takes what was committed after its cursor to the broadcaster, and what that says to the wire.

`deliver_once` reads a batch and publishes it, in steps, with a loop around it. After each step what is due is written a
few hundred listeners at a time, and between two rows the next step is taken if something has come. Between the
broadcaster's choice of a row and the last write to it there is no await, which keeps live delivery and replay apart.

Whether the database is still the continuation of what was read is looked at twice a second, and after every reconnect
before anything is read (`realtime/continuity.py`). When it is not, the tail takes position anew at the end.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Generic, NoReturn

import structlog

from domain.errors import facts_of
from persistence import outbox
from persistence.arrivals import Steps
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

    def deliver_once(self, follower: Follower, among: Collection[str] | None = None) -> Steps[int]:
        """Read one batch after the cursor and publish it, for `write_some` to write; return how many events it held.

        With `among` only these organizations need be asked.
        """
        if self._cursor is None:
            raise RuntimeError("the tail has no position yet")
        restarts = self._restarts
        passage = yield from follower.read(outbox.following(self._cursor, self._batch, among))
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
                    await follower.run(self._deliver_all(follower), then=lambda: self.write_some(follower))
            except Exception as error:  # whatever it is, listeners wait for us to come back
                log.warning("tail.failed", **facts_of(error), retry_in=self._pause)
                await asyncio.sleep(self._pause)
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _deliver_all(self, follower: Follower) -> Steps[NoReturn]:
        among: Collection[str] | None = None
        asked_all = 0.0
        while True:
            # Now and then everybody is asked, whoever was named: a hint is not the truth.
            if not among or time.monotonic() - asked_all > _WAIT_SECONDS:
                among, asked_all = None, time.monotonic()
            yield from self.deliver_once(follower, among)
            self._pause = _SHORTEST_PAUSE
            # What nobody has been handed yet is better kept in the outbox than here.
            while self._broadcaster.outstanding >= self._batch:
                yield 0
            if self.has_more:
                yield 0
                among = None
            else:
                # What is committed from here on is noticed by the wait, which looks before it waits.
                among = yield from follower.wait(_WAIT_SECONDS)

    def write_some(self, follower: Follower) -> bool:
        """Write until it is the others' turn; False when nobody is left to write to.

        Between two rows what has come is taken in: it goes along with what is left.
        """
        reached, written, oldest = 0, 0, ""
        while reached < _TURN and (delivery := self._broadcaster.deliver()):
            reached += len(delivery.listeners)
            oldest = delivery.at
            written += self._deliver(delivery)
            follower.look()
        if oldest:
            self._metrics.delivered(written, oldest)
        return reached >= _TURN
