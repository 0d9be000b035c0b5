"""The door to the database, and everything that differs between engines.

`read` and `write` take a *unit*: a plain function that uses the models. Inside a unit every query goes to the right
database; outside of one there is none. `write` returns only after the unit is durable.

SQLite allows one writer at a time and charges one fsync a commit. So all units of a process go through one thread,
which commits whatever has gathered while it was busy as one transaction, with a savepoint around each unit: a unit
that fails takes nothing with it, and a commit that fails fails every unit in it.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import queue
import select
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import peewee
from playhouse.migrations import Runner

from domain.errors import ConfigurationError, Overloaded

R = TypeVar("R")

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 5
_POLL_SECONDS = 0.05
_BATCH_LIMIT = 128

_current = threading.local()


class _CurrentDatabaseMetadata(peewee.Metadata):
    """Sends every query of a model to the database whose unit is running in this thread."""

    @property
    def database(self) -> Any:
        return getattr(_current, "engine", None)

    @database.setter
    def database(self, _: object) -> None:
        pass


class Row(peewee.Model):
    """The base of every model."""

    class Meta:
        model_metadata_class = _CurrentDatabaseMetadata
        legacy_table_names = False

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Stand for the columns peewee adds to a model, such as `contact_id` of `contact`."""


class Wakeups(Protocol):
    """Tells that something may have been committed, here or in another process."""

    async def wait(self, timeout: float) -> bool:
        """Return True as soon as something may have been committed, False after `timeout` seconds."""
        ...


class Database(Protocol):
    """A database that units are run on."""

    async def read(self, unit: Callable[[], R]) -> R:
        """Run a unit that only reads, and return what it returns."""
        ...

    async def write(self, unit: Callable[[], R]) -> R:
        """Run a unit in a transaction; return what it returns once it is durable.

        Raises:
            Overloaded: when the database is locked, full or gone; nothing of the unit was kept.
        """
        ...

    def wakeups(self) -> contextlib.AbstractAsyncContextManager[Wakeups]:
        """Listen for commits of every process on this database."""
        ...

    def migrate(self) -> list[str]:
        """Bring the schema up to date; return the names of the migrations that were applied."""
        ...

    def pending_migrations(self) -> list[str]:
        """Return the names of the migrations that have yet to be applied."""
        ...

    def close(self) -> None:
        """Finish the units that wait, and let go of the database."""
        ...


def open_database(url: str) -> Database:
    """Open the database at `url` (`sqlite:///relative.db`, `sqlite:////absolute.db`).

    Raises:
        ConfigurationError: when the URL names no engine we know or the file cannot be used.
    """
    scheme, _, path = url.partition("://")
    if scheme != "sqlite" or not path.removeprefix("/"):
        raise ConfigurationError(f"DATABASE_URL has the scheme {scheme!r}; use sqlite:///path/to/file.db.")
    return EmbeddedDatabase(Path(path.removeprefix("/")))


@dataclass(slots=True)
class _Job:
    unit: Callable[[], Any]
    done: Callable[["_Job"], None]
    result: Any = None
    error: BaseException | None = None


class EmbeddedDatabase:
    """SQLite in WAL mode: reads run where they are asked for, writes in one thread that commits in groups."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = peewee.SqliteDatabase(
            str(path),
            pragmas={"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1, "cache_size": -16_000},
            timeout=_BUSY_SECONDS,
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._engine.connect(reuse_if_open=True)
        except (OSError, peewee.OperationalError) as error:
            raise ConfigurationError(
                f"The database {path} cannot be opened: {error}. "
                "Set DATABASE_URL or DATA_DIR to a place you can write to."
            ) from error
        self._doorbell = _Doorbell(path)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_forever, name="database-writer", daemon=True)
        self._writer.start()

    async def read(self, unit: Callable[[], R]) -> R:
        """Run a reading unit; a WAL reader never waits, so no thread is needed."""
        with self._at_work():
            return unit()

    async def write(self, unit: Callable[[], R]) -> R:
        """Hand the unit to the writer thread and wait until it is durable."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def done(job: _Job) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(_settle, future, job)

        self._jobs.put(_Job(unit, done))
        return await future

    @contextlib.asynccontextmanager
    async def wakeups(self) -> AsyncIterator[Wakeups]:
        """Listen for commits: a datagram is the hint, `PRAGMA data_version` the truth."""
        listener = _DoorbellListener(self._path, self._data_version)
        try:
            yield listener
        finally:
            listener.close()

    def migrate(self) -> list[str]:
        """Apply what is missing, one process at a time."""
        with self._at_work(), _exclusive(self._path.with_suffix(".migrating")):
            return list(self._runner().up())

    def pending_migrations(self) -> list[str]:
        """Compare the migrations on disk with those the database has seen."""
        with self._at_work():
            return [migration.name for migration in self._runner().status() if not migration.applied]

    def close(self) -> None:
        """Let the writer finish, then close both connections."""
        self._jobs.put(None)
        self._writer.join()
        self._doorbell.close()
        if not self._engine.is_closed():
            self._engine.close()

    def _runner(self) -> Runner:
        return Runner(self._engine, str(MIGRATIONS))

    def _data_version(self) -> int:
        return int(self._engine.connection().execute("PRAGMA data_version").fetchone()[0])

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        before = getattr(_current, "engine", None)
        _current.engine = self._engine
        try:
            yield
        except (peewee.OperationalError, peewee.InterfaceError) as error:
            raise Overloaded(f"The database cannot be used just now: {error}") from error
        finally:
            _current.engine = before

    # The writer thread.

    def _write_forever(self) -> None:
        _current.engine = self._engine
        while (batch := self._next_batch()) is not None:
            self._commit(batch)
        self._engine.close()

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
            self._doorbell.ring()
        for job in batch:
            job.done(job)

    def _run(self, job: _Job) -> None:
        self._engine.execute_sql("SAVEPOINT unit")
        try:
            job.result = job.unit()
        except (peewee.OperationalError, peewee.InterfaceError):
            # The engine itself is in trouble and may have rolled back everything: no unit of this batch can be kept.
            raise
        except Exception as error:  # it belongs to whoever asked for the unit
            job.error = error
            self._engine.execute_sql("ROLLBACK TO unit")
        self._engine.execute_sql("RELEASE unit")


def _settle(future: asyncio.Future[Any], job: _Job) -> None:
    if future.cancelled():
        return
    if isinstance(job.error, peewee.OperationalError | peewee.InterfaceError):
        overloaded = Overloaded(f"The database cannot be written just now: {job.error}")
        overloaded.__cause__ = job.error
        future.set_exception(overloaded)
    elif job.error is not None:
        future.set_exception(job.error)
    else:
        future.set_result(job.result)


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Wake-ups between processes on one machine. Every listener binds a datagram socket in a folder that belongs to the
# database; a writer sends one byte to each after it committed. A lost byte costs one poll interval, nothing else.


def _doorbell_folder(path: Path) -> Path:
    # Socket paths are limited to about a hundred bytes, so they cannot live beside the database.
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tether-relay-{os.getuid()}-{name}"


@dataclass
class _Doorbell:
    path: Path
    _folder: Path = field(init=False)
    _listeners: list[str] = field(init=False, default_factory=list)
    _listed_at: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        self._folder = _doorbell_folder(self.path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def ring(self) -> None:
        for address in self._current_listeners():
            try:
                self._socket.sendto(b"!", address)
            except (ConnectionRefusedError, FileNotFoundError):
                Path(address).unlink(missing_ok=True)
            except OSError:
                continue  # a full buffer means the listener has a hint waiting already

    def close(self) -> None:
        self._socket.close()

    def _current_listeners(self) -> list[str]:
        try:
            changed_at = self._folder.stat().st_mtime_ns
            if changed_at != self._listed_at:
                self._listeners = [str(entry) for entry in self._folder.iterdir()]
                self._listed_at = changed_at
        except FileNotFoundError:
            return []
        return self._listeners


class _DoorbellListener:
    def __init__(self, path: Path, data_version: Callable[[], int]) -> None:
        folder = _doorbell_folder(path)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._address = folder / f"{os.getpid()}-{os.urandom(4).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._address))
        self._data_version = data_version
        self._seen = data_version()

    async def wait(self, timeout: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while not self._drain() and not self._changed():
            remaining = deadline - loop.time()
            if remaining <= 0:
                return False
            await self._readable(min(remaining, _POLL_SECONDS))
        self._changed()
        return True

    def close(self) -> None:
        self._socket.close()
        self._address.unlink(missing_ok=True)

    def _changed(self) -> bool:
        before, self._seen = self._seen, self._data_version()
        return self._seen != before

    def _drain(self) -> bool:
        rang = False
        while select.select([self._socket], [], [], 0)[0]:
            self._socket.recv(16)
            rang = True
        return rang

    async def _readable(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._socket, ready.set)
        try:
            async with asyncio.timeout(timeout):
                await ready.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self._socket)
