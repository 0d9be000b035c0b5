"""Fixtures every room shares: a database of its own for each test, on each engine, with one organization in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence import organizations
from persistence.database import Database, open_database
from tests.support import chromium, postgresql
from tests.support.api import engine_of_api

collect_ignore = [] if chromium.EXECUTABLE else ["test_live_page.py"]

ENGINES = ("sqlite", "postgresql")


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: tests wait for processes, disks and clocks much of the time."""
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what starts whole processes, so that nobody waits for it alone at the end."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end of a run how far the fuzzing got, whichever process did it."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    for summary in [value for report in reports for name, value in report.user_properties if name == "fuzz"]:
        terminalreporter.write_line(f"fuzz: {summary}")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Name the engine; a test that uses it, or what is built on it, runs once on each."""
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
        url = f"sqlite:///{tmp_path}/relay.db"
        database = open_database(url)
        database.migrate()
        database.close()
        yield url
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
