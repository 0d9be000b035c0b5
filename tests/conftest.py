"""Fixtures every room shares: a database of its own for each test, with one organization in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence import organizations
from persistence.database import Database, open_database


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/relay.db"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
async def organization_id(database: Database) -> str:
    organization = await database.write(lambda: organizations.add("Acme", "CA"))
    return str(organization.id)
