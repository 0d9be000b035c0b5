"""Work that goes on after the request that started it was answered."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from domain.errors import facts_of

log = structlog.get_logger()


class Background:
    """Keeps hold of tasks until they end, and logs what they fail with."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, work: Coroutine[Any, Any, None], wait_seconds: float) -> None:
        """Start the work and wait for it, but no longer than `wait_seconds`; it goes on after that.

        Cancelling the caller does not cancel the work.
        """
        await asyncio.wait({self.start(work)}, timeout=wait_seconds)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start the work and return at once."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def settle(self) -> None:
        """Wait until everything that was started has ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancel what is still at work, and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await self.settle()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background.failed", **facts_of(error))
