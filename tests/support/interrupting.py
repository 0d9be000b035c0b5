"""A database that stops, or does something else, at each write; for what must hold in the middle of an action."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from actions.relay import Relay
from actions.turns import Turns
from persistence.database import Database
from tests.support.waiting import patience

R = TypeVar("R")


class Interrupted:
    """A door to `database` that awaits `before` and `after` around its `at`-th write of an organization.

    Writes are counted from 1; those of no organization, such as the last use of a key, pass. With `pauses` that write
    waits until `go_on` is set; `is_reached` is set then.
    """

    def __init__(
        self,
        database: Database,
        *,
        at: int = 1,
        before: Callable[[], Awaitable[object]] | None = None,
        after: Callable[[], Awaitable[object]] | None = None,
        pauses: bool = False,
    ) -> None:
        self._database = database
        self._at = at
        self._before, self._after = before, after
        self._pauses = pauses
        self._begun = self._done = 0
        self._changed = asyncio.Condition()
        self.is_reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def write(self, unit: Callable[[], R], *, of: str | None = None) -> R:
        """Write as the database does, with the interruption."""
        if of is None:
            return await self._database.write(unit)
        self._begun += 1
        is_it = self._begun == self._at
        if is_it and self._pauses:
            self.is_reached.set()
            await self.go_on.wait()
        if is_it and self._before:
            await self._before()
        written = await self._database.write(unit, of=of)
        if is_it and self._after:
            await self._after()
        async with self._changed:
            self._done += 1
            self._changed.notify_all()
        return written

    async def until_written(self, count: int) -> None:
        """Wait until so many writes are over."""
        async with self._changed, patience():
            await self._changed.wait_for(lambda: self._done >= count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


def elsewhere(relay: Relay, database: Any) -> Relay:
    """Return the relay as another process on the same data would have it, with this door to its database."""
    return dataclasses.replace(relay, database=database, turns=Turns())
