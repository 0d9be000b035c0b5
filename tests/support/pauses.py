"""Pauses at a named place in a unit, so that a race happens the same way every time."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from persistence.database import Database
from persistence.postgresql import ServerDatabase
from persistence.sqlite import EmbeddedDatabase


def pause_after(
    patch: pytest.MonkeyPatch, place: str, database: Database, meanwhile: Callable[[], Awaitable[Any]]
) -> "Pause":
    """Stop the first unit that calls the function `place` ("module.function") once the function has returned.

    The unit continues when `meanwhile`, started at that instant, is over or waits for the database. The result of
    `meanwhile` is in the returned pause's `task`.
    """
    module_name, _, name = place.rpartition(".")
    original = getattr(importlib.import_module(module_name), name)
    pause = Pause(database, asyncio.get_running_loop(), meanwhile)

    def paused(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        pause.once()
        return result

    patch.setattr(place, paused)
    return pause


class Pause:
    """What happens during a pause; `task` is None until a unit has reached it."""

    def __init__(
        self, database: Database, loop: asyncio.AbstractEventLoop, meanwhile: Callable[[], Awaitable[Any]]
    ) -> None:
        self.task: asyncio.Future[Any] | None = None
        self._database = database
        self._loop = loop
        self._meanwhile = meanwhile
        self._has_begun = False

    def once(self) -> None:
        """Run `meanwhile` in the loop while this thread waits; do nothing the next time."""
        if not self._has_begun:
            self._has_begun = True
            asyncio.run_coroutine_threadsafe(self._until_blocked(), self._loop).result()

    async def _until_blocked(self) -> None:
        self.task = asyncio.ensure_future(self._meanwhile())
        while not self.task.done() and not await _is_blocked(self._database):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


async def _is_blocked(database: Database) -> bool:
    """Return whether a unit waits behind the one that is paused: in the queue, in its group, or for a lock."""
    if isinstance(database, EmbeddedDatabase):
        return database._jobs.qsize() > 0
    assert isinstance(database, ServerDatabase)
    if any(database._gathering._waiting.values()):
        return True
    async with await psycopg.AsyncConnection.connect(database._url, autocommit=True) as connection:
        waiting = await connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return await waiting.fetchone() is not None
