"""The drills of `make drill`, short: real processes, real faults, and the books afterwards."""

import pytest

from drills.__main__ import Drill
from drills.clock_set_back import clock_set_back
from drills.database_trouble import database_locked, database_stopped, disk_full
from drills.erasure_races import erasure_races, erasure_races_of_two
from drills.hostile_clients import hostile_clients
from drills.killed_api import killed_api, stopped_api, stopped_in_flight
from drills.killed_broadcaster import killed_broadcaster
from drills.several_processes import several_processes
from drills.storage_trouble import storage_trouble
from drills.vendor_trouble import configuring_trouble, text_trouble


@pytest.mark.usefixtures("forked_stages")
@pytest.mark.parametrize(
    ("drill", "engine", "repetitions"),
    [
        (killed_api, "sqlite", 1),
        (killed_api, "postgresql", 1),
        (stopped_api, "sqlite", 1),
        (stopped_api, "postgresql", 1),
        (stopped_in_flight, "sqlite", 1),
        (stopped_in_flight, "postgresql", 1),
        (killed_broadcaster, "sqlite", 1),
        (killed_broadcaster, "postgresql", 1),
        (several_processes, "sqlite", 4),
        (several_processes, "postgresql", 4),
        (database_locked, "sqlite", 1),
        (database_locked, "postgresql", 1),
        (disk_full, "sqlite", 1),
        (database_stopped, "postgresql", 1),
        (storage_trouble, "sqlite", 1),
        (text_trouble, "sqlite", 1),
        (configuring_trouble, "sqlite", 1),
        (erasure_races, "sqlite", 3),
        (erasure_races_of_two, "postgresql", 3),
        (clock_set_back, "sqlite", 1),
        (hostile_clients, "sqlite", 10),
    ],
)
async def test_nothing_acknowledged_is_lost_or_doubled(drill: Drill, engine: str, repetitions: int) -> None:
    """Whatever happens to the processes and to what they depend on."""
    outcome = await drill(engine, repetitions)

    assert outcome.acknowledged > 0
    assert (outcome.lost, outcome.doubled) == (0, 0)
