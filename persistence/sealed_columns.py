"""Every sealed value in the database: which columns hold one, reading them in pages, and replacing one."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from peewee import Field

from persistence.models import MODELS
from persistence.units import Row


class Sealed(NamedTuple):
    """A sealed value, and the table, column and key of its row."""

    table: str
    column: str
    key: str
    text: str


def names() -> list[tuple[str, str, str]]:
    """Return table, column of the key, and column of every field that holds sealed text."""
    return [(model._meta.table_name, _key(model).column_name, field.column_name) for model, field in _fields()]


def page(table: str, column: str, after: str, limit: int) -> list[Sealed]:
    """Return the next sealed values of the column, after the row with the key `after` ("" for the first page)."""
    model, field = _field(table, column)
    key = _key(model)
    query = model.select(key, field).where(key > after, field.is_null(False), field != "")
    rows: list[tuple[str, str]] = list(query.order_by(key).limit(limit).tuples().execute())
    return [Sealed(table, column, *row) for row in rows]


def replace(sealed: Sealed, text: str) -> bool:
    """Replace the value if it is still the one that was read; tell whether it was."""
    model, field = _field(sealed.table, sealed.column)
    key = _key(model)
    changed = model.update({field: text}).where(key == sealed.key, field == sealed.text).execute()
    return bool(changed)


def _fields() -> Iterator[tuple[type[Row], Any]]:
    for model in MODELS:
        for field in model._meta.sorted_fields:
            if field.column_name == "sealed" or field.column_name.endswith("_sealed"):
                yield model, field


def _key(model: type[Row]) -> Any:
    return model._meta.primary_key


def _field(table: str, column: str) -> tuple[type[Row], Field | Any]:
    return next(
        (model, field) for model, field in _fields() if (model._meta.table_name, field.column_name) == (table, column)
    )
