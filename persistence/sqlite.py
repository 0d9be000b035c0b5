"""SQLite, embedded: one file, one writer at a time.

SQLite charges one fsync a commit. So all units of a process go through one thread, which commits whatever has gathered
while it was busy as one transaction, with a savepoint around each unit: a unit that fails takes nothing with it, and a
commit that fails fails every unit in it.
"""

import asyncio
import contextlib
import fcntl
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import peewee

from domain.errors import ConfigurationError, Overloaded
from persistence import lengths, migrating
from persistence.presence import Presence
from persistence.scrubbing import Scrubber
from persistence.statements import Statement
from persistence.units import TROUBLE, running_on, take_announcements
from persistence.wake_ups import Waker, WakeUps

R = TypeVar("R")

_BUSY_SECONDS = 5
_BATCH_LIMIT = 128
_POLL_SECONDS = 0.05


@dataclass(slots=True)
class _Job:
    unit: Callable[[], Any]
    done: Callable[["_Job"], None]
    result: Any = None
    error: BaseException | None = None


class EmbeddedDatabase:
    """SQLite in WAL mode: reads run where they are asked for, writes in one thread that commits in groups.

    Reads that take long have a thread and a connection of their own; SQLite lets go of the interpreter while it looks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = peewee.SqliteDatabase(
            str(path),
            pragmas={
                "journal_mode": "wal",
                "synchronous": "full",
                "foreign_keys": 1,
                "cache_size": -16_000,
                "secure_delete": 1,  # what is deleted is overwritten with zeros
            },
            timeout=_BUSY_SECONDS,
        )
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._presence = Presence(path)
        except OSError as error:
            raise _cannot_be_opened(path, error) from error
        try:
            # SQLite gives its other files the mode of this one.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._engine.connect(reuse_if_open=True)
        except (OSError, peewee.DatabaseError) as error:
            self._presence.close()
            raise _cannot_be_opened(path, error) from error
        self._waker = Waker(path)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_forever, name="database-writer", daemon=True)
        self._writer.start()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="database-reader")
        self._scrubber = Scrubber(path)

    async def read(self, unit: Callable[[], R]) -> R:
        """Run a reading unit; a WAL reader never waits, so no thread is needed."""
        with running_on(self._engine):
            return unit()

    async def read_aside(self, unit: Callable[[], R]) -> R:
        """Run a reading unit that may take long in the reader thread, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._read, unit)

    async def write(self, unit: Callable[[], R], *, of: str | None = None) -> R:
        """Hand the unit to the writer thread and wait until it is durable; here all units share commits."""
        del of
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def done(job: _Job) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(_settle, future, job)

        self._jobs.put(_Job(unit, done))
        return await future

    async def place(self) -> str:
        """Return the file's number in its file system."""
        try:
            return str(self._path.stat().st_ino)
        except OSError as error:
            raise Overloaded(f"The database {self._path} is not there: {error.strerror}") from error

    async def scrub(self) -> None:
        """Move the write-ahead log into the database and cut it off: until then it holds pages as they were."""
        await self._scrubber.scrub()

    @contextlib.asynccontextmanager
    async def follow(self) -> AsyncIterator["Follower"]:
        """Listen for commits: a datagram wakes the follower, `PRAGMA data_version` is authoritative."""
        wake_ups = WakeUps(self._path)
        try:
            yield Follower(wake_ups, self._engine)
        finally:
            wake_ups.close()

    def migrate(self) -> list[str]:
        """Apply what is missing, one process at a time."""
        with running_on(self._engine), _exclusive(self._path.with_suffix(".migrating")):
            if migrating.pending(self._engine):
                lengths.drop_guards(self._engine)
            try:
                return list(migrating.runner(self._engine).up())
            finally:
                lengths.create_guards(self._engine)

    def pending_migrations(self) -> list[str]:
        """Compare the migrations on disk with those the database has seen."""
        with running_on(self._engine):
            return migrating.pending(self._engine)

    def unknown_migrations(self) -> list[str]:
        """Compare the migrations the database has seen with those on disk."""
        with running_on(self._engine):
            return migrating.unknown(self._engine)

    def close(self) -> None:
        """Let reader and writer finish, then close every connection."""
        self._jobs.put(None)
        self._writer.join()
        self._reader.submit(self._engine.close)
        self._reader.shutdown()
        self._scrubber.close()
        self._waker.close()
        if not self._engine.is_closed():
            self._engine.close()
        self._presence.close()

    def _read(self, unit: Callable[[], R]) -> R:
        with running_on(self._engine):
            return unit()

    # The writer thread.

    def _write_forever(self) -> None:
        with running_on(self._engine):
            # What a savepoint may have to restore would go to a temporary file as soon as it takes 64 KB, as with most
            # units. That took a sixth of a note's processor time, and left pages in a file that nothing scrubs.
            self._engine.execute_sql("PRAGMA temp_store = memory")
            self._write_until_closed()
        self._engine.close()

    def _write_until_closed(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._commit(batch)

    def _next_batch(self) -> list[_Job] | None:
        job = self._jobs.get()
        if job is None:
            return None
        batch = [job]
        while len(batch) < _BATCH_LIMIT:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            batch.append(job)
        return batch

    def _commit(self, batch: list[_Job]) -> None:
        try:
            with self._engine.transaction("IMMEDIATE"):
                for job in batch:
                    self._run(job)
        except Exception as error:  # whatever it is, nobody in this batch was served
            for job in batch:
                job.error = error
        else:
            if take_announcements():
                self._waker.wake()
        for job in batch:
            job.done(job)

    def _run(self, job: _Job) -> None:
        self._engine.execute_sql("SAVEPOINT unit")
        try:
            job.result = job.unit()
        except TROUBLE:
            # The engine itself is in trouble and may have rolled back everything: no unit of this batch can be kept.
            raise
        except Exception as error:  # it belongs to whoever asked for the unit
            job.error = error
            self._engine.execute_sql("ROLLBACK TO unit")
        self._engine.execute_sql("RELEASE unit")


class Follower:
    """Waits for wake-ups, and reads where it is asked to: a WAL reader never waits."""

    def __init__(self, wake_ups: WakeUps, engine: peewee.SqliteDatabase) -> None:
        self._wake_ups = wake_ups
        self._engine = engine
        self._seen = self._data_version()

    async def wait(self, seconds: float) -> tuple[()] | None:
        """Return None as soon as something may have been committed, nobody after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            remaining = max(0.0, deadline - time.monotonic())
            if await self._wake_ups.wait(min(remaining, _POLL_SECONDS)) or (remaining > 0 and self._has_changed()):
                return None
            if remaining <= _POLL_SECONDS:
                return ()

    async def rows(self, statement: Statement, /, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return all its rows."""
        with running_on(self._engine):
            return statement.rows(**values)

    def _has_changed(self) -> bool:
        # It changes with every commit of another connection.
        before, self._seen = self._seen, self._data_version()
        return self._seen != before

    def _data_version(self) -> int:
        return int(self._engine.connection().execute("PRAGMA data_version").fetchone()[0])


def _cannot_be_opened(path: Path, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"The database {path} cannot be opened: {error}. Set DATABASE_URL or DATA_DIR to a place you can write to."
    )


def _settle(future: asyncio.Future[Any], job: _Job) -> None:
    if future.cancelled():
        return
    if isinstance(job.error, TROUBLE):
        overloaded = Overloaded(f"The database cannot be written just now: {job.error}")
        overloaded.__cause__ = job.error
        future.set_exception(overloaded)
    elif job.error is not None:
        future.set_exception(job.error)
    else:
        future.set_result(job.result)


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
