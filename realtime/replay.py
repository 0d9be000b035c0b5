"""Bringing a listener from where it is to live: from memory at once, from the outbox in pages, at its own pace.

A listener that needs neither the outbox nor patience is done within one call. Any other gets a task for as long as it
is behind. What is unsent to one listener never grows beyond a page, because each page waits until the last was read.

Live delivery hands a listener over to here when its write buffer is full, and writes no more to it. A full buffer does
not tell a listener that stopped reading from one whom a burst has caught behind a narrow line: a burst fills the
buffers of all who are far away at once, and to close them all would bring them all back at once. So reading decides.
A listener is closed, and told after which sequence to resume, when its kernel took nothing of what was sent for
longer than it takes to read one step of a window at 4 KB a second (`Limits.patience_seconds`); any other is brought up
to date at its own pace. What the kernel here still holds counts as well: this process gets rid of nothing while that
drains.
"""

import asyncio
from collections.abc import Callable

import structlog
from websockets.exceptions import ConnectionClosed

from domain.errors import facts_of
from domain.events import StoredEvent
from domain.gaps import Reason, reason_below, steps
from persistence import outbox
from persistence.database import Database
from realtime.broadcaster import Below, Broadcaster
from realtime.frames import Close
from realtime.limits import Limits
from realtime.metrics import Metrics
from realtime.session import Session

_PAGE_EVENTS = 250
_PAGE_BYTES = 64 << 10
_FIRST_PAGE_EVENTS = 32
_ENOUGH_UNSENT = 32 << 10

log = structlog.get_logger()


class Replay:
    """Replays what listeners missed; `close` ends a session that cannot be helped."""

    def __init__(
        self,
        database: Database,
        broadcaster: Broadcaster[Session],
        limits: Limits,
        metrics: Metrics,
        close: Callable[[Session, Close, str], None],
    ) -> None:
        self._database = database
        self._broadcaster = broadcaster
        self._limits = limits
        self._metrics = metrics
        self._close = close
        self._fills: dict[str, asyncio.Task[None]] = {}

    def start(self, session: Session) -> None:
        """Bring `session` up to date, now if memory holds what it needs and its peer reads, otherwise in a task."""
        if session.replay:
            return
        while session.outlet.unsent < _ENOUGH_UNSENT:
            step = self._broadcaster.advance(session)
            if step is None:
                return
            if isinstance(step, Below):
                break
            self._write(session, step, "ring")
        session.replay = asyncio.create_task(self._run(session))

    async def _run(self, session: Session) -> None:
        try:
            await self._go_on(session)
        except (ConnectionClosed, ConnectionError):
            pass  # the listener is gone; whoever waits for its messages tidies up
        except TimeoutError:
            self._give_up(session, Close.TOO_SLOW, f"too slow; come back and resume after {session.sequence}")
        except Exception as error:  # a half-done replay cannot go on, but the listener can come back
            log.warning("replay.failed", **facts_of(error))
            self._give_up(session, Close.TRY_LATER, "the replay failed; come back and resume")
        finally:
            session.replay = None

    async def _go_on(self, session: Session) -> None:
        events = _FIRST_PAGE_EVENTS
        while session.is_open:
            await self._drained(session)
            step = self._broadcaster.advance(session)
            if step is None:
                return
            if isinstance(step, Below):
                events = await self._older(session, step, events)
            else:
                self._write(session, step, "ring")

    async def _drained(self, session: Session) -> None:
        """Wait until most of what was written has left; TimeoutError when nothing of it is taken for a while."""
        loop = asyncio.get_running_loop()
        least, deadline = session.outlet.untaken, loop.time() + self._limits.patience_seconds
        while True:
            try:
                async with asyncio.timeout(self._limits.stall_seconds):
                    return await session.drained()
            except TimeoutError:
                untaken = session.outlet.untaken
                if untaken < least:
                    least, deadline = untaken, loop.time() + self._limits.patience_seconds
                elif loop.time() >= deadline:
                    raise

    def _give_up(self, session: Session, code: Close, reason: str) -> None:
        session.replay = None  # it is the task that runs this; closing must not cancel it
        self._close(session, code, reason)

    async def _older(self, session: Session, below: Below, events: int) -> int:
        """Replay that many events from the outbox; return how many of their size make a page."""
        if await self._fill(below.organization_id):
            return events
        page, reason = await self._read_on(below, events)
        self._metrics.gaps.inc(sum(since is not None for _, since in steps(below.after, page)) if page else 1)
        self._write(session, self._broadcaster.supply(session, below, page, reason), "outbox")
        size = sum(len(event.data) for event in page)
        return max(1, min(_PAGE_EVENTS, _PAGE_BYTES * len(page) // max(1, size)))

    def _write(self, session: Session, data: bytes, source: str) -> None:
        self._metrics.replays.labels(source).inc()
        session.write(data)

    async def _fill(self, organization_id: str) -> bool:
        """Fill an organization's ring from the outbox, once for all who wait; False when that was done before."""
        task = self._fills.get(organization_id)
        if task is None:
            missing = self._broadcaster.unfilled(organization_id)
            if missing is None:
                return False
            task = self._fills[organization_id] = asyncio.create_task(self._fill_ring(missing))
        await asyncio.shield(task)
        return True

    async def _fill_ring(self, missing: Below) -> None:
        try:
            events = await self._read(missing, missing.up_to - missing.after)
            self._broadcaster.fill(missing, events)
        finally:
            # In the same step, or whoever looks in between would wait for what is over, again and again.
            del self._fills[missing.organization_id]

    async def _read(self, below: Below, limit: int) -> list[StoredEvent]:
        return await self._database.read(lambda: _page(below, limit))

    async def _read_on(self, below: Below, limit: int) -> tuple[list[StoredEvent], Reason]:
        """Return a page, and why what stands before it is missing, if it is."""

        def unit() -> tuple[list[StoredEvent], Reason]:
            page = _page(below, limit)
            if page and page[0].sequence == below.after + 1:
                return page, Reason.PRUNED
            return page, reason_below(below.after, outbox.oldest(below.organization_id))

        return await self._database.read(unit)


def _page(below: Below, limit: int) -> list[StoredEvent]:
    return outbox.after(below.organization_id, below.after, limit, up_to=below.up_to)
