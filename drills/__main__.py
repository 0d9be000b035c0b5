"""`python -m drills [NAME …]`: every drill or those that are named, long, and a table of what came of it."""

import asyncio
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence

warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

from rich.console import Console  # noqa: E402

from drills.clock_set_back import clock_set_back  # noqa: E402
from drills.database_trouble import database_locked, database_stopped, disk_full  # noqa: E402
from drills.erasure_races import erasure_races, erasure_races_of_two  # noqa: E402
from drills.hostile_clients import hostile_clients  # noqa: E402
from drills.killed_api import killed_api, stopped_api, stopped_in_flight  # noqa: E402
from drills.killed_broadcaster import killed_broadcaster  # noqa: E402
from drills.log_went_back import restored_in_place, restored_while_stopped, standby_promoted  # noqa: E402
from drills.outcome import Outcome  # noqa: E402
from drills.several_processes import several_processes  # noqa: E402
from drills.storage_trouble import storage_trouble  # noqa: E402
from drills.vendor_trouble import configuring_trouble, text_trouble  # noqa: E402

Drill = Callable[[str, int], Awaitable[Outcome]]

PLAN: list[tuple[Drill, str, int]] = [
    (killed_api, "sqlite", 50),
    (killed_api, "postgresql", 50),
    (stopped_api, "sqlite", 10),
    (stopped_api, "postgresql", 10),
    (stopped_in_flight, "sqlite", 10),
    (stopped_in_flight, "postgresql", 10),
    (killed_broadcaster, "sqlite", 20),
    (killed_broadcaster, "postgresql", 20),
    (several_processes, "sqlite", 200),
    (several_processes, "postgresql", 200),
    (database_locked, "sqlite", 3),
    (database_locked, "postgresql", 3),
    (disk_full, "sqlite", 3),
    (database_stopped, "postgresql", 3),
    (storage_trouble, "sqlite", 3),
    (text_trouble, "sqlite", 3),
    (text_trouble, "postgresql", 1),
    (configuring_trouble, "sqlite", 4),
    (erasure_races, "sqlite", 100),
    (erasure_races_of_two, "sqlite", 100),
    (erasure_races, "postgresql", 100),
    (erasure_races_of_two, "postgresql", 100),
    (clock_set_back, "sqlite", 3),
    (hostile_clients, "sqlite", 200),
    (restored_in_place, "sqlite", 3),
    (restored_in_place, "postgresql", 3),
    (restored_while_stopped, "sqlite", 3),
    (restored_while_stopped, "postgresql", 3),
    (standby_promoted, "postgresql", 2),
]
_LIMIT_SECONDS = 600


async def main(names: Sequence[str]) -> int:
    """Run the drills one after the other, each within its time; return the exit status."""
    console, outcomes, failures = Console(stderr=True), list[Outcome](), 0
    for drill, engine, repetitions in PLAN:
        if names and drill.__name__ not in names:
            continue
        console.print(f"{drill.__name__} on {engine}, {repetitions} times …", style="dim")
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                outcomes.append(await drill(engine, repetitions))
        except Exception as broken:  # callers at work fail as a group, and the next drill has its turn all the same
            failures += 1
            console.print(f"{drill.__name__} on {engine}: {broken!r}", style="red", markup=False)
    print("\n".join(_table(outcomes)))  # noqa: T201
    return int(failures > 0 or not outcomes or any(one.lost or one.doubled for one in outcomes))


def _table(outcomes: list[Outcome]) -> Iterator[str]:
    yield "| fault | engine | repetitions | requests | acknowledged | lost | doubled | worst recovery | also measured |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for one in outcomes:
        counted = (one.repetitions, one.requests, one.acknowledged, one.lost, one.doubled)
        recovery = f"{one.worst_recovery:.2f} s" if one.worst_recovery else ""
        yield f"| {' | '.join([one.fault, one.engine, *map(str, counted), recovery, one.remark])} |"


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
