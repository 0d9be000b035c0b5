"""Limits of texts in SQLite, which does not enforce the length of a column: triggers do.

They are made from the models after every migration, so both engines refuse the same texts. An update is looked at for
the columns it sets: counting a note up in its organization costs nothing.
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
    """Make the triggers that are missing: they refuse a text longer than its column, and name table and column.

    A table or a column that is not there is left out: a migration that failed may have left the schema behind.
    """
    tables = set(engine.get_tables())
    with engine.atomic():
        for model in MODELS:
            table = model._meta.table_name
            there = {column.name for column in engine.get_columns(table)} if table in tables else set()
            _create(engine, table, {column: limit for column, limit in limits(model).items() if column in there})


def _create(engine: peewee.SqliteDatabase, table: str, limited: dict[str, int]) -> None:
    if limited:
        _trigger(engine, f"{table}_insert", f'INSERT ON "{table}"', [_check(table, *each) for each in limited.items()])
    for column, limit in limited.items():
        # A row of an earlier version may hold a longer text, and its other columns must be free to change.
        check = _check(table, column, limit, f'AND NEW."{column}" IS NOT OLD."{column}"')
        _trigger(engine, f"{table}_{column}_update", f'UPDATE OF "{column}" ON "{table}"', [check])


def _trigger(engine: peewee.SqliteDatabase, name: str, event: str, checks: list[str]) -> None:
    engine.execute_sql(
        f'CREATE TRIGGER IF NOT EXISTS "{_PREFIX}{name}" BEFORE {event} BEGIN SELECT CASE {" ".join(checks)} END; END'
    )


def _check(table: str, column: str, limit: int, and_only_if: str = "") -> str:
    words = f"value too long for {table}.{column}"
    return f"""WHEN length(NEW."{column}") > {limit} {and_only_if} THEN RAISE(ABORT, '{words}')"""
