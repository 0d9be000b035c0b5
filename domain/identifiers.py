"""Identifiers: 24 lower-case hex digits that ascend with time, as in the published examples.

The layout is MongoDB's ObjectId (4 bytes of seconds, 5 random bytes per process, a 3-byte counter), so clients that
read the time out of an id keep working. Unlike there, the counter never wraps inside one second and a clock that is
set back never makes a later id smaller within a process.
"""

import os
import re
import secrets
import threading
import time
from collections.abc import Callable

_PATTERN = re.compile(r"[0-9a-f]{24}\Z")
_COUNTER_LIMIT = 1 << 24


class IdentifierSource:
    """Makes ascending identifiers; safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._second = 0
        self._counter = 0
        self._reseed()

    def _reseed(self) -> None:
        self._process = secrets.token_hex(5)
        self._pid = os.getpid()

    def next(self) -> str:
        """Return the next identifier."""
        with self._lock:
            if self._pid != os.getpid():
                self._reseed()
            second = int(self._clock())
            if second > self._second:
                self._second, self._counter = second, secrets.randbelow(_COUNTER_LIMIT >> 1)
            else:
                self._counter += 1
                if self._counter == _COUNTER_LIMIT:
                    self._second, self._counter = self._second + 1, 0
            return f"{self._second:08x}{self._process}{self._counter:06x}"


_source = IdentifierSource()


def new_id() -> str:
    """Return a fresh identifier, greater than every one this process made before."""
    return _source.next()


def is_id(text: str) -> bool:
    """Tell whether `text` has the shape of one of our identifiers."""
    return _PATTERN.match(text) is not None
