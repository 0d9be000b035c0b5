"""Shifts the clock of the process that finds this on its path: by as many seconds as the file CLOCK_FILE says.

Python imports a module of this name before anything else, so whoever asks for the time gets the shifted one.
"""

import datetime
import os
import time
from pathlib import Path

_FILE = Path(os.environ["CLOCK_FILE"])
_time, _time_ns = time.time, time.time_ns
_real = datetime.datetime


def _shift() -> int:
    return int(_FILE.read_text() or 0)


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _real)


class _Shifted(_real, metaclass=_Kind):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return _real.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> datetime.datetime:  # type: ignore[override]
        return _real.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


time.time = lambda: _time() + _shift()
time.time_ns = lambda: _time_ns() + _shift() * 1_000_000_000
datetime.datetime = _Shifted  # type: ignore[misc]
