"""Fixtures every room shares: a database of its own for each test, on each engine, with one organization in it."""

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from persistence import organizations
from persistence.database import Database, open_database
from tests.support import (
    chromium,
    memory,
    namespaces,
    postgresql,
    processes,
    randomness,
    schedule,
    selection,
    sipp,
    sqlite,
)
from tests.support.api import engine_of_api
from tests.support.waiting import SLOWNESS

# What a test needs of the system is installed by `.ci/run`; where it cannot be had, the run says so there.
collect_ignore = [
    *([] if chromium.EXECUTABLE else ["test_live_page.py"]),
    *([] if namespaces.available() else ["test_own_addresses.py"]),
    *([] if sipp.EXECUTABLE else ["test_refer.py"]),
]

# The HTTP client asks for this several times a request, and what is not installed is looked for anew each time.
if importlib.util.find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]

ENGINES = ("sqlite", "postgresql")
_TEST_SECONDS = 300

# A slow machine is no failure; what failed is printed so that it can be repeated.
settings.register_profile("untimed", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engines",
        type=_engines,
        default=ENGINES[:1],
        metavar="ENGINE[,ENGINE]",
        help="where tests run for which the engine should not matter: sqlite (the default), postgresql, or both, "
        "separated by a comma. Tests for which it can matter always run on both.",
    )


def _engines(given: str) -> tuple[str, ...]:
    chosen = tuple(given.split(","))
    if not set(chosen) <= set(ENGINES):
        raise ValueError(given)
    return chosen


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give properties the seed of the run, and every test the time that this machine needs."""
    os.environ.setdefault("TEST_PATIENCE", str(SLOWNESS))  # the same for all workers
    memory.settle()
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(randomness.seed())
    if config.option.timeout is None and "PYTEST_TIMEOUT" not in os.environ:
        config.option.timeout = _TEST_SECONDS * SLOWNESS
    randomness.draw_from_seed("collection")
    selection.guard()


def pytest_report_header() -> str:
    seed = randomness.seed()
    return f"seed: {seed} (TEST_SEED={seed} repeats it); time limits: {SLOWNESS:.1f}-fold (TEST_PATIENCE)"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Draw a test's secrets from the seed, and know which test starts a process."""
    randomness.draw_from_seed(item.nodeid)
    selection.watch(item)
    try:
        return (yield)
    finally:
        selection.watch(None)


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: tests wait for processes, disks and clocks much of the time."""
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by what they use; leave out engines that do not matter; begin with what takes longest."""
    wanted = [item for item in items if _is_wanted(item, config.option.engines)]
    config.hook.pytest_deselected(items=sorted(set(items) - set(wanted), key=lambda item: item.nodeid))
    items[:] = wanted
    for item in items:
        selection.mark(item)
    items.sort(key=schedule.place)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> schedule.ByFile:
    """Give each worker whole files of tests, and single tests of the files that are spread."""
    return schedule.ByFile(config, log)


def _is_wanted(item: pytest.Item, engines: tuple[str, ...]) -> bool:
    """Tell whether a test is to run on its engine: on each, unless the engine does not matter and was not chosen."""
    engine = item.callspec.params.get("engine") if hasattr(item, "callspec") else None
    is_any = item.get_closest_marker("any_engine") and not item.get_closest_marker("each_engine")
    return engine in (None, *engines) or not is_any


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end of a run how far the fuzzing got, whichever process did it."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    for summary in [value for report in reports for name, value in report.user_properties if name == "fuzz"]:
        terminalreporter.write_line(f"fuzz: {summary}")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Name the engine; a test that uses it, or what is built on it, runs once on each.

    Where SQL, locks, transactions, constraints, order, reading plans and limits of numbers do not matter, the mark
    `any_engine` leaves out the engines that `--engines` does not name.
    """
    return str(request.param)


@pytest.fixture
def on_engine(engine: str) -> Iterator[None]:
    """Run every API of a test on each engine."""
    before = engine_of_api.set(engine)
    yield
    engine_of_api.reset(before)


@pytest.fixture
def empty_database_url(engine: str, tmp_path: Path) -> Iterator[str]:
    if engine == "sqlite":
        yield f"sqlite:///{tmp_path}/relay.db"
    else:
        url = postgresql.create()
        yield url
        postgresql.drop(url)


@pytest.fixture
def database_url(engine: str, tmp_path: Path) -> Iterator[str]:
    if engine == "sqlite":
        yield sqlite.create(tmp_path)
    else:
        url = postgresql.create(postgresql.migrated())
        yield url
        postgresql.drop(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    yield database
    database.close()


@pytest.fixture
async def organization_id(database: Database) -> str:
    organization = await database.write(lambda: organizations.add("Acme", "CA"))
    return str(organization.id)


@pytest.fixture
def forked_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the stages of drills start their processes as the other tests do, without loading everything anew."""
    monkeypatch.setattr("drills.stage.start", processes.start)


@pytest.fixture
def move_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the monotonic clock forward, the event loop's included: a long time limit then ends when a test says so."""
    clock, ahead = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + sum(ahead))
    return ahead.append
