"""Whether the database can be written, asked for real."""

from peewee import SqliteDatabase

from persistence.units import engine


def write_something() -> None:
    """Write what changes nothing: the lock is taken and a page goes to the disk, as with any row."""
    if isinstance(engine(), SqliteDatabase):
        engine().execute_sql("PRAGMA user_version = 0")
    else:
        engine().execute_sql("SELECT pg_current_xact_id()")
