"""Whole tables, row by row in the order of their keys: for moving everything from one database to another."""

import hashlib
from collections.abc import Iterable
from typing import Any

from peewee import CharField, fn

from domain.documents import dump
from persistence.models import MODELS, LogCheckpoint, Organization
from persistence.units import Row, engine, sequences_after

# What belongs to one database and is not copied: a whole table, and a column.
_OWN_TABLE = LogCheckpoint
_OWN_COLUMN = Organization.epoch

# Where peewee's migrations are remembered.
_MIGRATIONS = "schema_migration"

Values = dict[str, Any]


def names() -> list[str]:
    """Return every table that is copied, those that are referred to before those that refer to them."""
    return [model._meta.table_name for model in MODELS if model is not _OWN_TABLE]


def hold_nothing() -> bool:
    """Return whether the database has no row in any table, and no table of any other program."""
    there = set(engine().get_tables())
    own = _OWN_TABLE._meta.table_name
    return there <= {*names(), own, _MIGRATIONS} and not any(name in there and count(name) for name in names())


def count(table: str) -> int:
    """Return how many rows the table has."""
    return int(_model(table).select().count())


def last_key(table: str) -> Any:
    """Return the greatest key in the table, None when it is empty."""
    model = _model(table)
    return model.select(fn.MAX(_key(model))).scalar()


def page(table: str, after: Any, limit: int, last: Any = None) -> list[Values]:
    """Return the next rows after the key `after` (None: from the first), up to the key `last` if given."""
    model = _model(table)
    query: Any = model.select().order_by(_key(model)).limit(limit)
    query = query if last is None else query.where(_key(model) <= last)
    return list((query if after is None else query.where(_key(model) > after)).dicts())


def too_long(table: str, rows: Iterable[Values]) -> tuple[Any, str] | None:
    """Return key and column of the first text that its column cannot hold, or None.

    An earlier version stored such texts in SQLite, which enforces no length by itself.
    """
    fields = _model(table)._meta.sorted_fields
    limited = {field.name: field.max_length for field in fields if isinstance(field, CharField)}
    for row in rows:
        for name, limit in limited.items():
            if isinstance(row[name], str) and len(row[name]) > limit:
                return key_of(table, row), name
    return None


def put(table: str, rows: Iterable[Values]) -> None:
    """Write the rows as they are; one that is there already is left alone."""
    model = _model(table)
    listed = list(rows)
    if listed:
        model.insert_many(listed).on_conflict_ignore().execute()
        sequences_after(model)


def key_of(table: str, row: Values) -> Any:
    """Return the key of a row that `page` returned."""
    return row[_key(_model(table)).name]


def digest(table: str, rows: Iterable[Values], before: str = "") -> str:
    """Return a digest of `before` and the rows, which tells whether two tables hold the same in the same order.

    The epoch of an organization's log is left out: no two databases have the same.
    """
    hashed = hashlib.sha256(before.encode())
    for row in rows:
        fields = (field for field in _model(table)._meta.sorted_fields if field is not _OWN_COLUMN)
        hashed.update(dump([row[field.name] for field in fields]))
    return hashed.hexdigest()


def _model(table: str) -> type[Row]:
    return next(model for model in MODELS if model._meta.table_name == table)


def _key(model: type[Row]) -> Any:
    return model._meta.primary_key
