"""Emptying SQLite's write-ahead log.

The log keeps pages as they were when they were written, until it is written over. After an erasure that may be never:
a quiet database does not come round to it.
"""

import asyncio
import contextlib
import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

_PATIENCE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0


class Scrubber:
    """Empties the log of the database at `path` in a thread of its own, trying again while readers need it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closing = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database-scrubber")
        self._next: Future[None] | None = None

    async def scrub(self) -> None:
        """Empty the log; return when it is empty, or after a second, and then go on in the background."""
        # One that has begun may have looked too early, but one that waits looks after everything committed up to now.
        if self._next is None or self._next.running() or self._next.done():
            self._next = self._thread.submit(self._until_empty)
        await asyncio.wait([asyncio.wrap_future(self._next)], timeout=_PATIENCE_SECONDS)

    def close(self) -> None:
        """Stop trying."""
        self._closing.set()
        self._thread.shutdown()

    def _until_empty(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._is_emptied() and not self._closing.wait(pause):
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _is_emptied(self) -> bool:
        # Without patience: a checkpoint that waits for readers keeps writers waiting as well.
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=0)) as connection:
                (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:
            return False
        except sqlite3.DatabaseError:
            return True  # it is no database, which whoever uses it is told
        return not is_busy
