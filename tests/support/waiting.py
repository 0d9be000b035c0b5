"""How long a test waits for a condition: one limit for all, as patient as the machine is slow.

A wait ends when its condition holds, so the limit costs nothing unless a test fails. It is no measurement.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")

_QUIET_MACHINE_SECONDS = 60
_MOST = 4.0
_POLL_SECONDS = 0.02
# `monotonic` is imported by name, so that a test that moves the clock of `time` on moves no limit of these.


def slowness() -> float:
    """Return `TEST_PATIENCE`, or how many jobs wait for each core when the tests start: between 1 and 4."""
    given = os.environ.get("TEST_PATIENCE")
    measured = os.getloadavg()[0] / len(os.sched_getaffinity(0))
    return float(given) if given else min(max(1.0, measured), _MOST)


SLOWNESS = slowness()
PATIENCE_SECONDS = _QUIET_MACHINE_SECONDS * SLOWNESS


def patience() -> asyncio.Timeout:
    """Limit a wait for a condition."""
    return asyncio.timeout(PATIENCE_SECONDS)


async def until(condition: Callable[[], Any], what: str = "the condition holds") -> Any:
    """Wait until `condition` returns, or resolves to, something true, and return it.

    Raises:
        AssertionError: if it does not happen within the limit.
    """
    deadline = monotonic() + PATIENCE_SECONDS
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}"
        await asyncio.sleep(_POLL_SECONDS)


def wait_until(condition: Callable[[], T], what: str = "the condition holds") -> T:
    """Wait like `until`, without an event loop."""
    deadline = monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}"
        time.sleep(_POLL_SECONDS)
    return found
