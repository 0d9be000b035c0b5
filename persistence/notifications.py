"""Following a PostgreSQL database: NOTIFY tells of commits, and one connection of its own reads what they hold."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

import peewee
import psycopg

from persistence.statements import Statement

CHANNEL = "relay_events"

_POLL_SECONDS = 0.05
_SILENCE_SECONDS = 15
_SNAPSHOT = "SELECT pg_current_snapshot()::text"


class Follower:
    """Waits for commits and reads them, in the caller's event loop.

    It needs no thread: one that reads while the loop writes to a thousand sockets waits for the interpreter for
    milliseconds, again and again.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], engine: peewee.Database) -> None:
        self._connection = connection
        self._engine = engine
        self._seen = ""

    async def wait(self, seconds: float) -> Collection[str] | None:
        """Return the organizations named in notifications, None if one or the server's snapshot names none."""
        deadline = time.monotonic() + seconds
        while True:
            remaining = max(0.0, deadline - time.monotonic())
            if named := await self._named(min(remaining, _POLL_SECONDS)):
                return None if "" in named else named
            if remaining > 0 and await self._has_changed():
                return None
            if remaining <= _POLL_SECONDS:
                return ()

    async def rows(self, statement: Statement, /, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return all its rows.

        Raises:
            TimeoutError: if the server does not answer at all.
        """
        return await self._rows(*statement.rendered(self._engine, values))

    async def _named(self, seconds: float) -> set[str]:
        # psycopg keeps notifications that come while a statement runs for the next call.
        return {notice.payload async for notice in self._connection.notifies(timeout=seconds, stop_after=1)}

    async def _has_changed(self) -> bool:
        ((snapshot,),) = await self._rows(_SNAPSHOT)
        before, self._seen = self._seen, snapshot
        return before not in ("", snapshot)

    async def _rows(self, sql: str, values: Collection[Any] = ()) -> list[tuple[Any, ...]]:
        async with asyncio.timeout(_SILENCE_SECONDS):
            cursor = await self._connection.execute(sql, list(values), prepare=True)
            return await cursor.fetchall()


@contextlib.asynccontextmanager
async def listening(url: str, engine: peewee.Database, **options: Any) -> AsyncIterator[Follower]:
    """Connect with libpq's `options` and listen; statements are rendered as for `engine`."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, **options)
    try:
        await connection.execute(f"LISTEN {CHANNEL}")
        yield Follower(connection, engine)
    finally:
        await connection.close()
