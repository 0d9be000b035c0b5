"""PostgreSQL: many writers on a bounded number of connections.

A unit has a transaction of its own, or shares one with others of its organization that were waiting for the same row:
each behind a savepoint, so that one that fails takes nothing with it. A commit that fails fails all of them.

Units run in threads, one connection each. Who finds no thread free within the wait limit is told so. A connection that
breaks is replaced the next time it is needed, so a restart of the server needs none of ours. Nothing here is kept open
while a vendor is asked: a unit never waits for anything but the database.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import peewee
import structlog

from domain.errors import CommitUnknown, ConfigurationError, Overloaded
from persistence import migrating, outbox, units
from persistence.gathering import Gathering, Job
from persistence.notifications import CHANNEL, Follower, listening
from persistence.units import TROUBLE, running_on, take_announcements

R = TypeVar("R")
T = TypeVar("T")

_MIGRATION_LOCK = 7_302_212_213
_CONNECTIONS = 8
_WAIT_SECONDS = 5
_TRIES = 3
_OPTIONS = "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=15s"
_CONNECTING: dict[str, Any] = {"connect_timeout": 5, "options": _OPTIONS, "application_name": "tether-relay"}

_PLACE = """SELECT system_identifier, pg_walfile_name(pg_current_wal_lsn()), 'event'::regclass::oid
FROM pg_control_system()"""

# SQLSTATE 40001 and 40P01: the server undid the transaction and asks for it to be tried again.
_TRY_AGAIN = ("40001", "40P01")

log = structlog.get_logger()


class ServerDatabase:
    """A PostgreSQL database, shared by any number of processes on any number of machines."""

    def __init__(self, url: str, connections: int = _CONNECTIONS, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._url = url
        self._wait_seconds = wait_seconds
        self._engine: Any = _Engine(url, prefer_psycopg3=True, **_CONNECTING)
        try:
            self._engine.connect(reuse_if_open=True)
        except peewee.OperationalError as error:
            raise ConfigurationError(
                f"The database at {_without_password(url)} cannot be reached: {_first_line(error)}. Check DATABASE_URL."
            ) from error
        self._free = asyncio.Semaphore(connections)
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="database")
        self._gathering = Gathering(self._write_together)

    async def read(self, unit: Callable[[], R]) -> R:
        """Run a reading unit on a connection of its own; once more if the connection turns out to be broken."""
        return await self._in_thread(self._read, unit)

    async def read_aside(self, unit: Callable[[], R]) -> R:
        """Run a reading unit; here every unit runs in a thread."""
        return await self.read(unit)

    async def write(self, unit: Callable[[], R], *, of: str | None = None) -> R:
        """Run the unit in a transaction; again if the server asks for that, which it does only when nothing was kept.

        Raises:
            CommitUnknown: when the connection broke while committing.
        """
        if of is None:
            return await self._in_thread(self._write, unit)
        return await self._gathering.run(of, unit)

    def follow(self) -> contextlib.AbstractAsyncContextManager[Follower]:
        """Listen for NOTIFY; the server's own snapshot, polled, is authoritative."""
        return listening(self._url, self._engine, **_CONNECTING)

    async def place(self) -> str:
        """Return the server's identifier, its timeline, and the number of the table of events.

        A restored base backup and a promoted standby have another timeline, and a restored dump another table. The
        control file learns of a promotion only with the next checkpoint of the server; the name of a segment of the
        write-ahead log says it at once.
        """
        return await self.read(_place)

    async def scrub(self) -> None:
        """Do nothing: the server removes old versions of rows itself."""

    def migrate(self) -> list[str]:
        """Apply what is missing; of several processes one works and the others wait for it."""
        with running_on(self._engine), self._migration_lock():
            return list(migrating.runner(self._engine).up())

    def pending_migrations(self) -> list[str]:
        """Compare the migrations on disk with those the database has seen."""
        with running_on(self._engine), self._healed():
            return migrating.pending(self._engine)

    def unknown_migrations(self) -> list[str]:
        """Compare the migrations the database has seen with those on disk."""
        with running_on(self._engine), self._healed():
            return migrating.unknown(self._engine)

    def close(self) -> None:
        """Let the units at work finish, and close every connection."""
        self._threads.shutdown()
        self._engine.close_all()

    async def _write_together(self, organization_id: str, jobs: list[Job]) -> None:
        if len(jobs) == 1:
            jobs[0].result = await self._in_thread(self._write, partial(_ordered, organization_id, jobs[0].unit))
        else:
            await self._in_thread(
                partial(self._write_group, organization_id), partial(_run_each, organization_id, jobs)
            )

    async def _in_thread(self, work: Callable[[Callable[[], R]], T], unit: Callable[[], R]) -> T:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise Overloaded("Every database connection is busy") from error
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._threads, work, unit)
        # Whoever asked may go away; the thread is free again only when the unit is over.
        done.add_done_callback(lambda _: self._free.release())
        return await asyncio.shield(done)

    # In the threads.

    def _read(self, unit: Callable[[], R]) -> R:
        with running_on(self._engine):
            try:
                with self._healed():
                    return unit()
            except TROUBLE:
                with self._healed():
                    return unit()

    def _write(self, unit: Callable[[], R]) -> R:
        with running_on(self._engine):
            for _ in range(_TRIES - 1):
                try:
                    return self._transact(unit)
                except peewee.OperationalError as error:
                    if not _nothing_was_kept(error):
                        raise
            return self._transact(unit)

    def _write_group(self, organization_id: str, unit: Callable[[], list[Job]]) -> None:
        with running_on(self._engine):
            undone = self._transact(unit)
        for job in undone:
            try:
                job.result = self._write(partial(_ordered, organization_id, job.unit))
            except Exception as error:  # it belongs to whoever asked for the unit
                job.error = error

    def _transact(self, unit: Callable[[], R]) -> R:
        take_announcements()
        with self._healed():
            self._engine.connect(reuse_if_open=True)
            self._engine.begin()
            try:
                with _inside(self._engine):
                    result = unit()
                for organization_id in take_announcements():
                    self._engine.execute_sql("SELECT pg_notify(%s, %s)", (CHANNEL, organization_id))
            except BaseException:
                self._roll_back()
                raise
            self._commit()
        return result

    def _commit(self) -> None:
        try:
            self._engine.commit()
        except TROUBLE as error:
            self._roll_back()
            if _nothing_was_kept(error):
                raise
            raise CommitUnknown("The connection to the database broke while committing") from error

    def _roll_back(self) -> None:
        with contextlib.suppress(*TROUBLE):
            self._engine.rollback()

    @contextlib.contextmanager
    def _healed(self) -> Iterator[None]:
        """Let go of a connection that turns out to be broken, so that the next unit gets a new one."""
        try:
            yield
        except (*TROUBLE, CommitUnknown):
            self._engine.let_go_if_broken()
            raise

    @contextlib.contextmanager
    def _migration_lock(self) -> Iterator[None]:
        self._engine.execute_sql("SET lock_timeout = 0")
        self._engine.execute_sql("SET statement_timeout = 0")
        self._engine.execute_sql(f"SELECT pg_advisory_lock({_MIGRATION_LOCK})")
        try:
            yield
        finally:
            self._engine.execute_sql(f"SELECT pg_advisory_unlock({_MIGRATION_LOCK})")


class _Engine(peewee.PostgresqlDatabase):
    """peewee's PostgreSQL, with one connection per thread, all of which can be closed from outside."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._opened: set[Any] = set()
        super().__init__(*arguments, **options)

    def _connect(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]
        self._opened.add(connection)
        return connection

    def is_broken(self) -> bool:
        """Tell whether this thread's connection is of no more use."""
        connection: Any = self._state.conn  # type: ignore[attr-defined]
        return connection is not None and (connection.closed or connection.broken)

    def let_go_if_broken(self) -> None:
        """Forget this thread's connection if it is of no more use."""
        state: Any = self._state  # type: ignore[attr-defined]
        if self.is_broken():
            self._opened.discard(state.conn)
            state.conn.close()
            state.reset()

    def close_all(self) -> None:
        """Close the connections of every thread; nobody may be using them."""
        while self._opened:
            self._opened.pop().close()


def _ordered(organization_id: str, unit: Callable[[], R]) -> R:
    """Run the unit with the organization's row acquired."""
    outbox.hold(organization_id)
    return unit()


def _run_each(organization_id: str, jobs: list[Job]) -> list[Job]:
    """Run the jobs behind a savepoint each; return those that the server wants to be tried again.

    The organization is taken first: whoever took something else before it could hold up the whole group.
    """
    outbox.hold(organization_id)
    undone: list[Job] = []
    for place, job in enumerate(jobs):
        try:
            with units.engine().atomic():
                job.result = job.unit()
        except TROUBLE as error:
            engine = units.engine()
            if isinstance(engine, _Engine) and engine.is_broken():
                raise
            if _nothing_was_kept(error):
                undone.append(job)
                continue
            # Waiting as long for each of those behind would help nobody.
            for late in jobs[place:]:
                late.error = _overloaded(error)
            break
        except Exception as error:  # it belongs to whoever asked for the unit
            job.error = error
    return undone


@contextlib.contextmanager
def _inside(engine: peewee.PostgresqlDatabase) -> Iterator[None]:
    # A unit that uses `atomic` itself gets a savepoint, because the transaction is already known to peewee.
    engine.push_transaction(engine.transaction())
    try:
        yield
    finally:
        engine.pop_transaction()


def _place() -> str:
    server, segment, table = units.engine().execute_sql(_PLACE).fetchone()
    return f"{server}-{segment[:8]}-{table}"


def _overloaded(error: BaseException) -> Overloaded:
    overloaded = Overloaded(f"The database cannot be used just now: {error}")
    overloaded.__cause__ = error
    return overloaded


def _nothing_was_kept(error: BaseException) -> bool:
    return getattr(error.__cause__ or error.__context__, "sqlstate", None) in _TRY_AGAIN


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
