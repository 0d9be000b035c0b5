"""Running side by side, where a process does not do what it is told."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]

_DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(999)"
_FAILING = "import sys; sys.stdin.readline(); sys.exit(7)"
_SUPERVISED = f"""
import sys, supervisor
supervisor.GRACE_SECONDS = 0.3
sys.path.insert(0, "")
with supervisor.Supervisor([["-c", {_DEAF!r}], ["-c", {_FAILING!r}]]) as both:
    status = both.wait()
print("status", status, [child.returncode for child in both._children], flush=True)
"""


def test_a_process_that_does_not_stop_is_killed() -> None:
    """Ctrl-C always comes back; the status is that of the process that ended by itself."""
    supervising = subprocess.Popen(
        [sys.executable, "-c", _SUPERVISED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert supervising.stdout is not None
        assert supervising.stdin is not None
        assert supervising.stdout.readline() == "deaf\n"
        printed, _ = supervising.communicate("\n", timeout=PATIENCE_SECONDS)
    finally:
        supervising.kill()

    assert printed == "status 7 [-9, 7]\n"
