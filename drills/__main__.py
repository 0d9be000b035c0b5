"""`python -m drills`: every drill, long, and a table of what came of it."""

import asyncio
import sys
import warnings
from collections.abc import Awaitable, Callable

warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

from rich.console import Console  # noqa: E402
from rich.table import Column, Table  # noqa: E402

from drills.clock_set_back import clock_set_back  # noqa: E402
from drills.database_trouble import database_locked, database_stopped, disk_full  # noqa: E402
from drills.hostile_clients import hostile_clients  # noqa: E402
from drills.killed_api import killed_api, stopped_api  # noqa: E402
from drills.outcome import Outcome  # noqa: E402
from drills.several_processes import several_processes  # noqa: E402
from drills.storage_trouble import storage_trouble  # noqa: E402

Drill = Callable[[str, int], Awaitable[Outcome]]

PLAN: list[tuple[Drill, str, int]] = [
    (killed_api, "sqlite", 50),
    (killed_api, "postgresql", 50),
    (stopped_api, "sqlite", 10),
    (stopped_api, "postgresql", 10),
    (several_processes, "sqlite", 200),
    (several_processes, "postgresql", 200),
    (database_locked, "sqlite", 3),
    (disk_full, "sqlite", 3),
    (database_stopped, "postgresql", 3),
    (storage_trouble, "sqlite", 3),
    (clock_set_back, "sqlite", 3),
    (hostile_clients, "sqlite", 200),
]
_LIMIT_SECONDS = 600


async def main() -> int:
    """Run the drills one after the other, each within its time; return the exit status."""
    console, outcomes, failures = Console(stderr=True), list[Outcome](), 0
    for drill, engine, repetitions in PLAN:
        console.print(f"{drill.__name__} on {engine}, {repetitions} times …", style="dim")
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                outcomes.append(await drill(engine, repetitions))
        except Exception as broken:  # callers at work fail as a group, and the next drill has its turn all the same
            failures += 1
            console.print(f"{drill.__name__} on {engine}: {broken!r}", style="red", markup=False)
    Console().print(table_of(outcomes))
    return int(failures > 0 or any(one.lost or one.doubled for one in outcomes))


def table_of(outcomes: list[Outcome]) -> Table:
    """Return the outcomes as a table."""
    numbers = ("repetitions", "requests", "acknowledged", "lost", "doubled", "worst recovery")
    table = Table("fault", "engine", *(Column(name, justify="right") for name in numbers))
    for one in outcomes:
        counted = (one.repetitions, one.requests, one.acknowledged, one.lost, one.doubled)
        table.add_row(one.fault, one.engine, *map(str, counted), f"{one.worst_recovery:.2f} s")
    return table


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
