"""Units: plain functions that use the models while a database runs them.

Inside a unit every query goes to the database that runs it; outside of one there is none.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import peewee

from domain.errors import Overloaded

# What an engine raises when it, and not the query, is in trouble.
TROUBLE = (peewee.OperationalError, peewee.InterfaceError)

# SQLSTATE 3F000, 42P01 and 42703: a schema, a table or a column is missing, as while a dump is being restored.
_ABSENT = ("3F000", "42P01", "42703")

_WHOLE_LOG = 7_302_212_214

_current = threading.local()


class _CurrentDatabaseMetadata(peewee.Metadata):
    """Sends every query of a model to the database whose unit is running in this thread."""

    @property
    def database(self) -> peewee.Database | None:
        return getattr(_current, "engine", None)

    @database.setter
    def database(self, _: object) -> None:
        pass


class Row(peewee.Model):
    """The base of every model."""

    class Meta:
        model_metadata_class = _CurrentDatabaseMetadata
        legacy_table_names = False


@contextlib.contextmanager
def running_on(engine: peewee.Database) -> Iterator[None]:
    """Send the queries of this thread to `engine`.

    Raises:
        Overloaded: when the engine is in trouble.
    """
    before = getattr(_current, "engine", None)
    _current.engine, _current.announced = engine, set()
    try:
        yield
    except peewee.ProgrammingError as error:
        if not _is_absent(error):
            raise
        raise Overloaded("The database is not complete just now: a table or a column is missing") from error
    except TROUBLE as error:
        # The first line says what is wrong; those that follow may quote a row.
        what = str(error).partition("\n")[0]
        raise Overloaded(f"The database cannot be used just now: {what}") from error
    finally:
        _current.engine = before


def _is_absent(error: peewee.ProgrammingError) -> bool:
    return getattr(error.__cause__ or error.__context__, "sqlstate", None) in _ABSENT


def engine() -> Any:
    """Return the engine the running unit's queries go to."""
    return _current.engine


def ids_follow_commits() -> bool:
    """Tell whether rows become visible in the order of their ids, as with a single writer they do."""
    return isinstance(_current.engine, peewee.SqliteDatabase)


def announce(organization_id: str) -> None:
    """Have those who wait for the organization's events woken once the running unit is committed."""
    _current.announced.add(organization_id)


def take_announcements() -> set[str]:
    """Return the organizations that were announced since the last time, or since the unit began."""
    announced: set[str] = getattr(_current, "announced", set())
    _current.announced = set()
    return announced


def take_whole_log() -> None:
    """Keep every other unit that does this waiting until the running one is over."""
    if isinstance(_current.engine, peewee.PostgresqlDatabase):
        _current.engine.execute_sql(f"SELECT pg_advisory_xact_lock({_WHOLE_LOG})")


def sequences_after(model: type[Row]) -> None:
    """See to it that a key the engine counts itself goes on after the greatest one there is."""
    if isinstance(_current.engine, peewee.PostgresqlDatabase) and isinstance(model._meta.primary_key, peewee.AutoField):
        table, column = model._meta.table_name, model._meta.primary_key.column_name
        _current.engine.execute_sql(
            f"SELECT setval(pg_get_serial_sequence('\"{table}\"', '{column}'), "  # noqa: S608 - names of our own
            f'GREATEST((SELECT MAX("{column}") FROM "{table}"), 1))'
        )
