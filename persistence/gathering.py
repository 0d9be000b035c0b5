"""Units that would wait for each other anyway, gathered while others of their kind are at work.

Every write of an organization takes its row and keeps it until the commit is on disk, so they go one after the other.
Those that wait here are handed over together, to share one commit. Nobody waits for company: who comes alone begins at
once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

R = TypeVar("R")

_MOST_AT_ONCE = 64


@dataclass(slots=True)
class Job:
    """A unit, and what came of it."""

    unit: Callable[[], Any]
    done: asyncio.Future[Any] = field(repr=False)
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell whoever waits, if anybody still does."""
        if self.done.done():
            return
        if self.error is None:
            self.done.set_result(self.result)
        else:
            self.done.set_exception(self.error)


class Gathering:
    """Hands the units of one key over a group at a time; `work` is to give each its result or error."""

    def __init__(self, work: Callable[[str, list[Job]], Awaitable[None]]) -> None:
        self._work = work
        self._waiting: dict[str, list[Job]] = {}
        self._at_work: set[asyncio.Task[None]] = set()

    async def run(self, key: str, unit: Callable[[], R]) -> R:
        """Have the unit run; it is, even if whoever asked goes away."""
        job = Job(unit, asyncio.get_running_loop().create_future())
        if key in self._waiting:
            self._waiting[key].append(job)
        else:
            self._waiting[key] = [job]
            task = asyncio.create_task(self._work_off(key))
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)
        result: R = await job.done
        return result

    async def _work_off(self, key: str) -> None:
        while group := self._waiting[key][:_MOST_AT_ONCE]:
            del self._waiting[key][: len(group)]
            await self._hand_over(key, group)
        del self._waiting[key]

    async def _hand_over(self, key: str, group: list[Job]) -> None:
        try:
            await self._work(key, group)
        except Exception as error:  # none of the group was served, and each is told why
            for job in group:
                job.error = error
        for job in group:
            job.settle()
