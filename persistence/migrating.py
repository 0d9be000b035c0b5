"""Which migrations this version knows, and which of them a database has had."""

from pathlib import Path

from peewee import Database
from playhouse.migrations import Migration, Runner

_FOLDER = Path(__file__).parent / "migrations"


def known() -> frozenset[str]:
    """Return the names of the migrations that this version knows."""
    return frozenset(migration.name for migration in Migration.load_directory(str(_FOLDER)))


def runner(engine: Database) -> Runner:
    """Return what applies migrations to the engine."""
    return Runner(engine, str(_FOLDER))


def pending(engine: Database) -> list[str]:
    """Return the names of the migrations the database has yet to have, in order."""
    return [one.name for one in runner(engine).status() if not one.applied]


def unknown(engine: Database) -> list[str]:
    """Return the names of the migrations the database has had and this version does not know: it is newer."""
    return [one.name for one in runner(engine).status() if one.path is None]
