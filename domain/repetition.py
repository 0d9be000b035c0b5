"""Log lines about what outsiders can make happen again and again: one when it begins, then one a minute with a count.

A line for each time would let them fill the log.
"""

import time
from collections import Counter

SECONDS = 60.0
_MOST_KEYS = 10_000


class Repetition:
    """Counts what happens again and again, by key; what is not yet in a line goes into the next one."""

    def __init__(self) -> None:
        self._unsaid: Counter[str] = Counter()
        self._said_at: dict[str, float] = {}

    def count(self, key: str = "") -> int:
        """Count once more; return how many times the line that is due now stands for, 0 if no line is due."""
        self._unsaid[key] += 1
        instant = time.monotonic()
        if instant - self._said_at.get(key, -SECONDS) < SECONDS:
            return 0
        if len(self._said_at) >= _MOST_KEYS:
            self._said_at.clear()
            self._unsaid = Counter({key: self._unsaid[key]})
        self._said_at[key] = instant
        return self._unsaid.pop(key)
