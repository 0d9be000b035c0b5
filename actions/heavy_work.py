"""Work that takes more than a few milliseconds of the processor: kept off the event loop, one piece at a time.

Python's interpreter lock lets one thread run; several at work would each take their share of it from the event loop.
So there is one thread, and the organizations take turns: one that sends large documents waits for its own.
"""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from actions.turns import Turns

R = TypeVar("R")


class HeavyWork:
    """Runs plain functions in a thread of its own, for one owner after the other."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heavy-work")

    async def run(self, owner: Hashable, work: Callable[[], R]) -> R:
        """Run `work` once no other work of `owner` is waiting before it, and return its result."""
        async with self._turns.of(owner):
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
