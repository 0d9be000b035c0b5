"""Moving everything from one database to another, table by table, and proving that it arrived."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from domain.errors import ConfigurationError
from persistence import tables
from persistence.database import Database

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a table has got: `copied` of `rows`, both counted in the source."""

    table: str
    copied: int
    rows: int


@dataclass(frozen=True, slots=True)
class Compared:
    """What a table holds on both sides; a digest covers every value of every row, in the order of the keys."""

    table: str
    source_rows: int
    target_rows: int
    source_digest: str
    target_digest: str

    @property
    def is_equal(self) -> bool:
        """Whether both sides hold the same."""
        return (self.source_rows, self.source_digest) == (self.target_rows, self.target_digest)


async def copy_database(source: Database, target: Database) -> AsyncIterator[Progress]:
    """Copy every row that the target does not have yet, in batches; run again, it goes on where it stopped.

    Nothing may write to either database meanwhile.

    Raises:
        ConfigurationError: when the two have not had the same migrations.
    """
    if source.pending_migrations() or target.pending_migrations():
        raise ConfigurationError("Both databases must be up to date; run `manage.py migrate` on each.")
    for table in tables.names():
        rows = await source.read(lambda table=table: tables.count(table))  # type: ignore[misc]
        async for copied in _copy_table(source, target, table):
            yield Progress(table, copied, rows)


async def compare_databases(source: Database, target: Database) -> list[Compared]:
    """Read every table on both sides, and count and digest it."""
    compared = []
    for table in tables.names():
        rows, digest = await _fingerprint(source, table)
        copied, copied_digest = await _fingerprint(target, table)
        compared.append(Compared(table, rows, copied, digest, copied_digest))
    return compared


async def _copy_table(source: Database, target: Database, table: str) -> AsyncIterator[int]:
    after = await target.read(lambda: tables.last_key(table))
    copied = await target.read(lambda: tables.count(table))
    yield copied
    async for rows in _pages(source, table, after):
        await target.write(lambda rows=rows: tables.put(table, rows))  # type: ignore[misc]
        copied += len(rows)
        yield copied


async def _fingerprint(database: Database, table: str) -> tuple[int, str]:
    count, digest = 0, ""
    async for rows in _pages(database, table, None):
        count, digest = count + len(rows), tables.digest(table, rows, digest)
    return count, digest


async def _pages(database: Database, table: str, after: Any) -> AsyncIterator[list[tables.Values]]:
    while rows := await database.read(lambda after=after: tables.page(table, after, _BATCH)):  # type: ignore[misc]
        yield rows
        after = tables.key_of(table, rows[-1])
