"""`python -m bench.run`: every figure of the comparison, ours and the peers' side by side, in interleaved rounds.

`--only NAME …` picks cells, `--rounds` and `--seconds` say how long, `--smoke` does a little of everything that needs
no further packages. The last thing printed is the table, in Markdown.
"""

import argparse
import asyncio
import os
import platform
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

import uvloop  # noqa: E402

from bench import cells, growth  # noqa: E402
from bench.rounds import Bench, Row  # noqa: E402

_PACKAGES = ("connexion", "starlette", "fastapi", "sqlalchemy", "peewee", "uvicorn", "uvloop", "httptools", "pydantic",
             "orjson", "jsonschema-rs", "psycopg")  # fmt: skip

CELLS: dict[str, Callable[[Bench], list[Row]]] = {
    "trivial": cells.trivial,
    "notes": cells.notes,
    "notes-postgresql": cells.notes_on_postgresql,
    "calls": cells.calls,
    "calls-postgresql": cells.calls_on_postgresql,
    "recordings": cells.recordings,
    "download": cells.download,
    "start": cells.start,
    "growth": growth.measure,
}
_SMOKE = ("notes", "download", "start", "growth")


def main() -> None:
    arguments = _arguments()
    random.seed(7)
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        bench = Bench(Path(folder), arguments.rounds, arguments.seconds, is_smoke=arguments.smoke)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            bench.run = runner.run
            chosen = arguments.only or (_SMOKE if arguments.smoke else tuple(CELLS))
            rows = [row for name in chosen for row in _measured(name, bench)]
    print(f"\n{_machine()}\n{_versions()}\n{arguments.rounds} rounds of {arguments.seconds} s\n")
    print("\n".join(_table(rows)))


def _measured(name: str, bench: Bench) -> list[Row]:
    print(f"-- {name}", file=sys.stderr, flush=True)
    bench.begin(name)
    rows = CELLS[name](bench)
    for row in rows:
        print("  ", " | ".join(row.columns()), file=sys.stderr, flush=True)
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", nargs="*", choices=list(CELLS))
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    if not (1 <= arguments.rounds <= 50 and 0.05 <= arguments.seconds <= 60):
        parser.error("rounds are 1 to 50 and seconds 0.05 to 60: a measurement ends")
    return arguments


def _table(rows: list[Row]) -> list[str]:
    head = ["what", "ours", "rival", "rival's", "ratio: median (lowest to highest)", "goal", "load's core"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    return lines + [f"| {' | '.join(row.columns())} |" for row in rows]


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}, load averages {load}"


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except ImportError:
            continue
    return f"Python {platform.python_version()}, " + ", ".join(found)


if __name__ == "__main__":
    main()
