"""Whole copies of an embedded database: making one beside writers, and reading one without the models.

A copy may have the schema of an older version, so only tables and columns that are there are read.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from persistence import sealed_columns
from persistence.sealed_columns import Sealed

_PAGES = 2000  # copied between two reports of progress
_HISTORY = "schema_migration"
_MOST_PROBLEMS = 20

# How many bytes of the total are done.
OnProgress = Callable[[int, int], None]


class StoredRecording(NamedTuple):
    """What the database knows of an object in the recording store."""

    key: str
    content_type: str
    size: int
    sha256: str


def copy(source: Path, target: Path, on_progress: OnProgress) -> None:
    """Copy the database at `source`, as it is at this instant, into the file `target`. Nobody waits meanwhile.

    One read transaction covers the whole copy. Without it SQLite starts the copy anew whenever a process commits.
    """
    with (
        contextlib.closing(sqlite3.connect(source, isolation_level=None)) as here,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as there,
    ):
        here.execute("BEGIN")
        here.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        size = here.execute("PRAGMA page_size").fetchone()[0]
        here.backup(
            there,
            pages=_PAGES,
            progress=lambda _, left, total: on_progress((total - left) * size, total * size),
            sleep=0,
        )
        # One file that every SQLite tool opens, also where it may not write.
        there.execute("PRAGMA journal_mode = DELETE")


class Snapshot:
    """The database in the file `path`, opened for reading; nothing may write to it, and no file is made beside it."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"file:{quote(str(path))}?immutable=1", uri=True, isolation_level=None)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def migrations(self) -> list[str]:
        """Return the names of the migrations the database has had, in order."""
        if _HISTORY not in self._tables():
            return []
        return sorted(str(name) for (name,) in self._connection.execute(f'SELECT name FROM "{_HISTORY}"'))  # noqa: S608

    def rows(self) -> dict[str, int]:
        """Return how many rows each table has."""
        return {table: self._count(table) for table in sorted(self._tables() - {_HISTORY})}

    def problems(self) -> list[str]:
        """Return what SQLite finds wrong with the file: pages, indexes, and references that lead nowhere."""
        try:
            return [*self._integrity(), *self._references()]
        except sqlite3.DatabaseError as error:
            return [str(error)]

    def recordings(self) -> Iterator[StoredRecording]:
        """Yield every recording, those included that wait for their call."""
        for table in ("recording", "held_recording"):
            if table in self._tables():
                query = f'SELECT key, content_type, size, sha256 FROM "{table}" ORDER BY id'  # noqa: S608
                yield from (StoredRecording(*row) for row in self._connection.execute(query))

    def sealed(self) -> Iterator[Sealed]:
        """Yield every sealed value."""
        for table, key, column in sealed_columns.names():
            if table in self._tables() and column in self._columns(table):
                query = f'SELECT "{key}", "{column}" FROM "{table}" WHERE "{column}" <> \'\''  # noqa: S608
                for row_key, text in self._connection.execute(query):
                    yield Sealed(table, column, row_key, text)

    def _integrity(self) -> list[str]:
        found = [str(row[0]) for row in self._connection.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})")]
        return [] if found == ["ok"] else found

    def _references(self) -> list[str]:
        found = self._connection.execute("PRAGMA foreign_key_check").fetchmany(_MOST_PROBLEMS)
        return [
            f"row {row} of {table} refers to a row of {other} that does not exist" for table, row, other, _ in found
        ]

    def _tables(self) -> set[str]:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        return {name for (name,) in self._connection.execute(query)}

    def _columns(self, table: str) -> set[str]:
        return {row[1] for row in self._connection.execute(f'PRAGMA table_info("{table}")')}

    def _count(self, table: str) -> int:
        return int(self._connection.execute(f'SELECT COUNT(*) FROM "{table}"').fetchone()[0])  # noqa: S608
