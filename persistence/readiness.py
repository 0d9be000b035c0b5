"""Whether the database can be written, asked for real, and whether everything that belongs there is there."""

from collections.abc import Callable
from typing import TypeVar

from peewee import SqliteDatabase

from domain.errors import Overloaded
from persistence.units import engine

R = TypeVar("R")

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


def insist_on_completeness() -> None:
    """Do nothing if the database is complete.

    Raises:
        Overloaded: while a dump is being restored. Rows that are not found may have yet to come, and rows that are
            written would be in the way of those that come.
    """
    if not is_complete():
        raise Overloaded("The database is being restored")


def surely(find: Callable[[], R | None]) -> R | None:
    """Return what `find` finds, None only if it is not there.

    Raises:
        Overloaded: if nothing is found while a dump is being restored.
    """
    found = find()
    if found is None:
        insist_on_completeness()
        found = find()  # its row may have come before the database was complete, and after it was looked for
    return found
