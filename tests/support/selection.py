"""Which tests start processes, need PostgreSQL or a browser: marked by what they use, so that a run can leave them out.

The marks are made from the engine a test runs on and from what its module imports. Nothing is left to memory: a
test without a mark that starts a process fails.
"""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

# Whoever imports these starts processes with them.
_STARTING = (
    "drills.",
    "tests.realtime.stations",
    "tests.support.fuzz",
    "tests.support.namespaces",
    "tests.support.processes",
    "tests.support.sipp",
    "tests.support.tree",
    "tests.support.up",
)
_BROWSING = ("tests.support.chromium",)
_MAY_START = ("processes", "postgresql", "browser")

_running: pytest.Item | None = None


def mark(item: pytest.Item) -> None:
    """Mark a test by what it uses."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if "postgresql" in parameters.values():
        item.add_marker("postgresql")
    module = getattr(item, "module", None)
    used = set(_modules_used(module)) if module else set()
    for name, starting in (("processes", _STARTING), ("browser", _BROWSING)):
        if any(one.startswith(starting) for one in used):
            item.add_marker(name)


def watch(item: pytest.Item | None) -> None:
    """Say which test runs now."""
    global _running
    _running = item


def guard() -> None:
    """Refuse, from now on, to start a process for a test that is not marked."""
    sys.addaudithook(_refuse_surprises)


def _modules_used(module: ModuleType) -> Iterator[str]:
    for value in vars(module).values():
        yield value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", None))


def _refuse_surprises(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "tests.fork") or _running is None:
        return
    if not any(_running.get_closest_marker(name) for name in _MAY_START):
        raise AssertionError(f"{_running.nodeid} starts a process and is not marked: {event} {arguments[:2]}")
