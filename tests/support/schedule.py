"""Which worker runs which tests, and in which order: the longest first, so that no long one is left for the end.

The tests of a file share servers, so they run in one process, but for files whose tests share nothing and take long.
"""

from pathlib import Path

import pytest
from xdist.scheduler.loadfile import LoadFileScheduling

_TESTS = Path(__file__).parents[1]

# Each test of these starts what it needs by itself.
_SPREAD = ("tests/test_drills.py", "tests/openapi/test_contract_changes.py", "tests/realtime/test_mutants.py")

# Nothing of these can run beside the rest of it.
_FIRST = ("tests/test_fuzz.py", *_SPREAD)


class ByFile(LoadFileScheduling):  # type: ignore[misc]
    """Gives each worker a file at a time, or one test of a file that is spread."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return nodeid if file in _SPREAD else file


def place(item: pytest.Item) -> tuple[int, bool]:
    """Return where in the order a test stands: what takes longest, what starts whole processes, the rest."""
    file = item.nodeid.partition("::")[0]
    return _FIRST.index(file) if file in _FIRST else len(_FIRST), item.path.parent != _TESTS
