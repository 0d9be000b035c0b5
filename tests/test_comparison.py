import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.processes
def test_the_comparison_produces_its_figures() -> None:
    """A short run starts every server, proves the peers' work equal to ours, and prints a figure in every row."""
    command = [sys.executable, "-m", "bench.run", "--smoke", "--rounds", "1", "--seconds", "0.05"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]

    assert done.returncode == 0, done.stderr
    assert {row[0].removeprefix("| ").partition(" at ")[0].partition(",")[0] for row in rows} >= {
        "create-note",
        "recording of 2 MB from a URL: peak memory above idle",
        "start-up to the first answer",
    }
    assert all(re.match(r"-?[0-9]", row[1]) for row in rows[2:])
