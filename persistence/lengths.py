"""Limits of texts in SQLite, which does not enforce the length of a column: a trigger for each table does.

They are made from the models after every migration, so both engines refuse the same texts.
"""

from typing import Any

import peewee

from persistence.models import MODELS

_PREFIX = "length_of_"


def limits(model: Any) -> dict[str, int]:
    """Return the columns of a model that have a limit, and how many characters each may hold."""
    fields = model._meta.sorted_fields
    return {field.column_name: field.max_length for field in fields if isinstance(field, peewee.CharField)}


def drop_guards(engine: peewee.SqliteDatabase) -> None:
    """Remove the triggers, so that tables can be changed."""
    found = engine.execute_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for (name,) in found:
        if name.startswith(_PREFIX):
            engine.execute_sql(f'DROP TRIGGER "{name}"')


def create_guards(engine: peewee.SqliteDatabase) -> None:
    """Make the triggers that refuse a text longer than its column; the error names table and column."""
    for model in MODELS:
        table, limited = model._meta.table_name, limits(model)
        checks = "".join(_check(table, column, limit) for column, limit in limited.items())
        for event in ("INSERT", "UPDATE"):
            name = f"{_PREFIX}{table}_{event.lower()}"
            engine.execute_sql(f'CREATE TRIGGER "{name}" BEFORE {event} ON "{table}" BEGIN {checks} END')


def _check(table: str, column: str, limit: int) -> str:
    words = f"value too long for {table}.{column}"
    return f"""SELECT RAISE(ABORT, '{words}') WHERE length(NEW."{column}") > {limit};"""
