"""Statements for hot paths: written with peewee, rendered once per engine, run with nothing but values.

Building and rendering a query costs peewee several times what the engine needs to run it. A statement is built the
first time it runs on a kind of engine; afterwards only its values travel. Values are handed over as the column stores
them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

import peewee

from persistence.units import Row, engine

M = TypeVar("M", bound=Row)


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


class Given(peewee.Node):
    """Stands in a query for the value that is given under `name` when it runs."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __sql__(self, context: peewee.Context) -> peewee.Context:
        return context.value(_Name(self._name), converter=False)


class Statement:
    """A query that is the same every time but for its values; `build` makes it, with `Given` where they go."""

    def __init__(self, build: Callable[[], peewee.Query]) -> None:
        self._build = build
        self._rendered: dict[type[peewee.Database], tuple[str, list[Any]]] = {}

    def run(self, **values: Any) -> Any:
        """Run it and return the cursor."""
        return self._run(values)

    def row(self, **values: Any) -> tuple[Any, ...] | None:
        """Run it and return the first row."""
        row: tuple[Any, ...] | None = self._run(values).fetchone()
        return row

    def value(self, **values: Any) -> Any:
        """Run it and return the first value of the first row, or None."""
        row = self._run(values).fetchone()
        return row[0] if row else None

    def rows(self, **values: Any) -> list[tuple[Any, ...]]:
        """Run it and return all rows."""
        rows: list[tuple[Any, ...]] = self._run(values).fetchall()
        return rows

    def rendered(self, database: peewee.Database, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """Return the SQL for that kind of engine, and its parameters."""
        rendered = self._rendered.get(type(database))
        if rendered is None:
            rendered = self._rendered[type(database)] = self._render(database)
        sql, parameters = rendered
        return sql, [values[one.name] if type(one) is _Name else one for one in parameters]

    def _run(self, values: Mapping[str, Any]) -> Any:
        database = engine()
        return database.execute_sql(*self.rendered(database, values))

    def _render(self, database: peewee.Database) -> tuple[str, list[Any]]:
        sql, parameters = database.get_sql_context().sql(self._build()).query()
        return sql, list(parameters)


class Ask(Protocol):
    """Runs a statement on a connection outside of any unit, and returns all its rows."""

    async def __call__(self, statement: Statement, /, **values: Any) -> list[tuple[Any, ...]]:
        """Run it."""
        ...


class Lookup(Statement, Generic[M]):
    """The row of `model` whose columns have the given values: `Lookup(Contact, "organization", "phone_number")`.

    Of several it is the one with the greatest value of `newest_by`, if that is given.
    """

    def __init__(self, model: type[M], *columns: str, newest_by: str | None = None) -> None:
        self._model = model
        self._columns = columns
        self._newest_by = newest_by
        self._fields = [(field.name, field.python_value) for field in model._meta.sorted_fields]
        super().__init__(self._query)

    def find(self, *values: Any) -> M | None:
        """Return the row, or None."""
        found = self._run(dict(zip(self._columns, values, strict=True))).fetchone()
        if found is None:
            return None
        named = {name: read(value) for (name, read), value in zip(self._fields, found, strict=True)}
        return self._model(__no_default__=True, **named)

    def _query(self) -> peewee.Query:
        fields = self._model._meta.fields
        query = self._model.select().where(*[fields[name] == Given(name) for name in self._columns])
        return (query.order_by(fields[self._newest_by].desc()) if self._newest_by else query).limit(1)


class Among(Statement):
    """The columns `wanted` of the rows of `model` in which `sought` has one of the given values."""

    _ROOM = 500

    def __init__(self, model: type[Row], sought: str, *wanted: str) -> None:
        self._model = model
        self._sought = sought
        self._wanted = wanted
        super().__init__(self._query)

    def find(self, values: Iterable[str]) -> list[tuple[Any, ...]]:
        """Return what was wanted of every row that was found, in no order."""
        waiting, found = iter(values), list[tuple[Any, ...]]()
        while some := list(islice(waiting, self._ROOM)):
            # The statement is the same for few values: the last one is given until there is no room.
            some += some[-1:] * (self._ROOM - len(some))
            found += self._run({str(place): value for place, value in enumerate(some)}).fetchall()
        return found

    def _query(self) -> peewee.Query:
        fields = self._model._meta.fields
        room = [Given(str(place)) for place in range(self._ROOM)]
        return self._model.select(*[fields[name] for name in self._wanted]).where(fields[self._sought].in_(room))


class Insertion(Statement):
    """The INSERT of a whole row of `model`."""

    def __init__(self, model: type[Row], *, unless_taken: bool = False) -> None:
        self._model = model
        self._unless_taken = unless_taken
        super().__init__(self._query)

    def add(self, row: Row) -> bool:
        """Write the row; False, and nothing written, when `unless_taken` and a unique value of it is taken."""
        return bool(self._run(_Nullable(row.__data__)).rowcount)

    def _query(self) -> peewee.Query:
        fields = [field for field in self._model._meta.sorted_fields if not isinstance(field, peewee.AutoField)]
        query = self._model.insert({field: Given(field.name) for field in fields})
        return query.on_conflict_ignore() if self._unless_taken else query


class _Nullable(dict[str, Any]):
    def __missing__(self, name: str) -> None:
        return None
