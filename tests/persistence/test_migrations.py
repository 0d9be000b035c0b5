from pathlib import Path

import peewee
from playhouse.schema_diff import diff_models

from persistence.database import open_database
from persistence.models import MODELS
from persistence.units import engine, running_on


def schema(path: Path) -> dict[str, object]:
    engine = peewee.SqliteDatabase(str(path))
    tables = [name for name in engine.get_tables() if name != "schema_migration"]
    found: dict[str, object] = {}
    for table in tables:
        found[table] = {
            "columns": {
                (column.name, column.data_type, column.null, column.primary_key, column.default)
                for column in engine.get_columns(table)
            },
            "indexes": {(tuple(index.columns), index.unique) for index in engine.get_indexes(table)},
            "references": {(key.column, key.dest_table, key.dest_column) for key in engine.get_foreign_keys(table)},
        }
    engine.close()
    return found


def test_migrating_from_nothing_equals_creating_from_the_models(tmp_path: Path) -> None:
    """The chain of migrations and the models describe the same database."""
    migrated = open_database(f"sqlite:///{tmp_path}/migrated.db")
    migrated.migrate()
    migrated.close()
    created = open_database(f"sqlite:///{tmp_path}/created.db")
    with running_on(created._engine):  # type: ignore[attr-defined]
        engine().create_tables(MODELS)
    created.close()

    assert schema(tmp_path / "migrated.db") == schema(tmp_path / "created.db")


def test_nothing_is_left_to_generate_after_migrating(tmp_path: Path) -> None:
    """peewee's own comparison finds no difference between the models and the migrated database."""
    migrated = open_database(f"sqlite:///{tmp_path}/migrated.db")
    migrated.migrate()
    with running_on(migrated._engine):  # type: ignore[attr-defined]
        difference = diff_models(engine(), list(MODELS))
    migrated.close()

    assert not difference, str(difference)


def test_migrating_twice_does_nothing_the_second_time(tmp_path: Path) -> None:
    """Migrations are remembered."""
    database = open_database(f"sqlite:///{tmp_path}/relay.db")
    pending, first, second = database.pending_migrations(), database.migrate(), database.migrate()
    left = database.pending_migrations()
    database.close()

    assert first == pending
    assert first
    assert second == left == []
