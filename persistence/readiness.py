"""Whether the database can be written, asked for real, and whether everything that belongs there is there."""

from peewee import SqliteDatabase

from persistence.units import engine

_REFERENCES = "SELECT EXISTS (SELECT 1 FROM pg_constraint WHERE contype = 'f' AND conrelid = 'event'::regclass)"


def write_something() -> None:
    """Write what changes nothing: the lock is taken and a page goes to the disk, as with any row."""
    if isinstance(engine(), SqliteDatabase):
        engine().execute_sql("PRAGMA user_version = 0")
    else:
        engine().execute_sql("SELECT pg_current_xact_id()")


def is_complete() -> bool:
    """Tell whether no dump is being restored, which creates tables, then rows, and last their references."""
    return isinstance(engine(), SqliteDatabase) or bool(engine().execute_sql(_REFERENCES).fetchone()[0])
