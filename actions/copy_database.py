"""Moving everything from one database to another, table by table, and proving that it arrived."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from actions.begin_new_epochs import begin_new_epochs
from domain.errors import ConfigurationError
from persistence import tables
from persistence.database import Database

_BATCH = 500
_IN_USE = (
    "The target database holds rows that are not a part of this one. "
    "Copy into an empty database, or into the one that an earlier copy was broken off in."
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a table has got: `copied` of `rows`, both counted in the source."""

    table: str
    copied: int
    rows: int


@dataclass(frozen=True, slots=True)
class Compared:
    """What a table holds on both sides; a digest covers every row, in the order of the keys, but for epochs."""

    table: str
    source_rows: int
    target_rows: int
    source_digest: str
    target_digest: str

    @property
    def is_equal(self) -> bool:
        """Whether both sides hold the same."""
        return (self.source_rows, self.source_digest) == (self.target_rows, self.target_digest)


async def prepare_target(source: Database, target: Database) -> None:
    """Bring an empty target up to date, and make sure that it is safe to copy into.

    Raises:
        ConfigurationError: if the target is neither empty nor a partial copy of the source. It is left unchanged.
    """
    if target.pending_migrations():
        if not await target.read(tables.hold_nothing):
            raise ConfigurationError(_IN_USE)
        target.migrate()
    for table in tables.names():
        last = await target.read(lambda table=table: tables.last_key(table))  # type: ignore[misc]
        if last is not None and await _fingerprint(target, table) != await _fingerprint(source, table, last):
            raise ConfigurationError(_IN_USE)


async def copy_database(source: Database, target: Database) -> AsyncIterator[Progress]:
    """Copy every row that the target does not have yet, in batches; run again, it goes on where it stopped.

    Call `prepare_target` first. Nothing may write to either database meanwhile. What was copied begins new epochs: the
    logs of the source may go on without it.

    Raises:
        ConfigurationError: if the two have not had the same migrations, or a text is too long to be copied.
    """
    if source.pending_migrations() or target.pending_migrations():
        raise ConfigurationError("Both databases must be up to date; run `manage.py migrate` on each.")
    for table in tables.names():
        rows = await source.read(lambda table=table: tables.count(table))  # type: ignore[misc]
        async for copied in _copy_table(source, target, table):
            yield Progress(table, copied, rows)
    await begin_new_epochs(target)


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
        if found := tables.too_long(table, rows):
            raise ConfigurationError(
                f"The {found[1]} of {table} {found[0]} is longer than the column holds. Shorten it and copy again."
            )
        await target.write(lambda rows=rows: tables.put(table, rows))  # type: ignore[misc]
        copied += len(rows)
        yield copied


async def _fingerprint(database: Database, table: str, last: Any = None) -> tuple[int, str]:
    """Return number and digest of the table's rows, up to the key `last` if given."""
    count, digest = 0, ""
    async for rows in _pages(database, table, None, last):
        count, digest = count + len(rows), tables.digest(table, rows, digest)
    return count, digest


async def _pages(database: Database, table: str, after: Any, last: Any = None) -> AsyncIterator[list[tables.Values]]:
    while rows := await database.read(partial(tables.page, table, after, _BATCH, last)):
        yield rows
        after = tables.key_of(table, rows[-1])
