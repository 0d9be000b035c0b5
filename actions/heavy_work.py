"""Work that takes more than a few milliseconds of the processor: kept off the event loop, one piece at a time.

Python's interpreter lock lets one thread run; several at work would each take their share of it from the event loop.
So there is one thread, and the organizations take turns: one that sends large documents waits for its own. After each
piece the thread rests three times as long as the piece kept the processor busy: reading a document is a few long calls
that keep the interpreter lock to their end, and a transaction asks for the lock with every statement.
"""

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from actions.turns import Turns

R = TypeVar("R")

_REST = 3


class HeavyWork:
    """Runs plain functions in a thread of its own, for one owner after the other."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heavy-work")
        self._rested_at = 0.0

    async def run(self, owner: Hashable, work: Callable[[], R]) -> R:
        """Run `work` once no other work of `owner` is waiting before it, and return its result."""
        async with self._turns.of(owner):
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[], R]) -> R:
        time.sleep(max(0.0, self._rested_at - time.monotonic()))
        began = time.thread_time()
        try:
            return work()
        finally:
            self._rested_at = time.monotonic() + _REST * (time.thread_time() - began)
