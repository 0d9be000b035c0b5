"""Bounds how much costly data is parsed at a time, over all connections.

Costly are pipelined requests, long heads and small chunks. Without a bound an iteration of the event loop lasts as long
as everything that arrived during the last one takes to parse, and an ordinary request needs some twenty iterations.
"""

import asyncio
from collections import deque
from collections.abc import Callable

# A piece takes a quarter of that.
SECONDS_BETWEEN = 0.001


class ReadingTurns:
    """Calls the functions that were added in their order, one every `SECONDS_BETWEEN`."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False

    def add(self, read_on: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call `read_on` in one of the next iterations of `loop`."""
        self._waiting.append(read_on)
        if not self._is_due:
            self._is_due = True
            loop.call_later(SECONDS_BETWEEN, self._take_turn, loop)

    def _take_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._waiting.popleft()()
        finally:
            self._is_due = bool(self._waiting)
            if self._is_due:
                loop.call_later(SECONDS_BETWEEN, self._take_turn, loop)
