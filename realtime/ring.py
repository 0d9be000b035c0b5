"""The newest frames of one log, in memory for listeners that come back.

What it guarantees:

1. Its entries are consecutive: each sequence is one more than the one before.
2. It holds at most so many entries and so many bytes of frames; what does not fit goes from the old end.

That its newest entry is the head of the log is up to the feed, which clears it where the log has a hole.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Held(NamedTuple):
    """One event, ready to be written, and what filters look at."""

    sequence: int
    name: str | None
    contact_id: str | None
    conversation_id: str | None
    frame: bytes
    at: str


class Bounds(NamedTuple):
    """How much a ring holds at most."""

    events: int
    size: int  # bytes of frames


class Ring:
    """Entries in ascending order; `size` is the bytes of their frames."""

    __slots__ = ("_bounds", "_entries", "size")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._entries: deque[Held] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Held]:
        return iter(self._entries)

    @property
    def room(self) -> int:
        """How many older events `fill` would take, if they are as long as those that are there."""
        room = self._bounds.events - len(self._entries)
        if self._entries:
            room = min(room, (self._bounds.size - self.size) * len(self._entries) // self.size)
        return room

    def append(self, newer: Sequence[Held]) -> None:
        """Add entries that follow the newest one; drop as many of the oldest as no longer fit."""
        self._entries.extend(newer)
        self.size += sum(len(entry.frame) for entry in newer)
        while self._entries and (len(self._entries) > self._bounds.events or self.size > self._bounds.size):
            self.size -= len(self._entries.popleft().frame)

    def fill(self, floor: int, older: Iterable[Held]) -> None:
        """Put older entries, the newest first, under those after `floor`, up to the first that does not fit there."""
        for entry in older:
            fits = len(self._entries) < self._bounds.events and self.size + len(entry.frame) <= self._bounds.size
            if entry.sequence != floor or not fits:
                return
            self._entries.appendleft(entry)
            self.size += len(entry.frame)
            floor -= 1

    def clear(self) -> None:
        """Drop all entries."""
        self._entries.clear()
        self.size = 0
