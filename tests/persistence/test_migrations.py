import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playhouse.schema_diff import diff_models

from persistence import units
from persistence.database import Database, open_database
from persistence.models import MODELS
from tests.support import postgresql

ROOT = Path(__file__).parents[2]
NewUrl = Callable[[], str]


@pytest.fixture
def new_url(engine: str, tmp_path: Path) -> Iterator[NewUrl]:
    """Return a function that makes an empty database and returns its URL."""
    made: list[str] = []

    def make() -> str:
        made.append(postgresql.create() if engine == "postgresql" else f"sqlite:///{tmp_path}/{len(made)}.db")
        return made[-1]

    yield make
    if engine == "postgresql":
        for url in made:
            postgresql.drop(url)


async def inside(database: Database, unit: Callable[[Any], Any]) -> Any:
    return await database.read(lambda: unit(units.engine()))


def schema(engine: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for table in engine.get_tables():
        if table == "schema_migration":
            continue
        found[table] = {
            "columns": {
                (column.name, column.data_type, column.null, column.primary_key) for column in engine.get_columns(table)
            },
            "indexes": {(tuple(index.columns), index.unique) for index in engine.get_indexes(table)},
            "references": {(key.column, key.dest_table, key.dest_column) for key in engine.get_foreign_keys(table)},
        }
    return found


async def test_migrating_from_nothing_equals_creating_from_the_models(new_url: NewUrl) -> None:
    """The chain of migrations and the models describe the same database."""
    migrated, created = open_database(new_url()), open_database(new_url())
    migrated.migrate()
    await created.write(lambda: units.engine().create_tables(MODELS))
    schemas = [await inside(database, schema) for database in (migrated, created)]
    migrated.close()
    created.close()

    assert schemas[0] == schemas[1]
    assert {"call", "event", "organization"} <= schemas[0].keys()


async def test_nothing_is_left_to_generate_after_migrating(new_url: NewUrl) -> None:
    """peewee's own comparison finds no difference between the models and the migrated database."""
    migrated = open_database(new_url())
    migrated.migrate()
    difference = await inside(migrated, lambda engine: str(diff_models(engine, list(MODELS))))
    migrated.close()

    assert difference == ""


def test_migrating_twice_does_nothing_the_second_time(new_url: NewUrl) -> None:
    """Migrations are remembered."""
    database = open_database(new_url())
    pending, first, second = database.pending_migrations(), database.migrate(), database.migrate()
    left = database.pending_migrations()
    database.close()

    assert first == pending
    assert first
    assert second == left == []


async def test_ten_processes_may_migrate_at_once(new_url: NewUrl) -> None:
    """One of them applies the migrations, and all of them end well."""
    url = new_url()
    script = (
        "import sys; from persistence.database import open_database\n"
        "database = open_database(sys.argv[1]); print(len(database.migrate())); database.close()\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, url, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(10)
    ]
    outcomes = [await process.communicate() for process in processes]
    applied = sorted(int(printed or -1) for printed, _ in outcomes)

    assert [process.returncode for process in processes] == [0] * 10, outcomes
    assert applied[:9] == [0] * 9
    assert applied[9] >= 1
