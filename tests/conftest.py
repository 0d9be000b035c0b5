"""Fixtures every room shares: a database of its own for each test, on each engine, with one organization in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence import organizations
from persistence.database import Database, open_database
from tests.support import chromium, postgresql

collect_ignore = [] if chromium.EXECUTABLE else ["test_live_page.py"]

ENGINES = ("sqlite", "postgresql")


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
