import pytest

from domain.errors import RelayError
from persistence import readiness, units
from persistence.database import Database

REFERENCES = "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = 'event'::regclass"


async def test_a_database_is_complete_when_nothing_is_being_restored(database: Database) -> None:
    """On either engine."""
    assert await database.read(readiness.is_complete)


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_a_database_is_not_complete_before_the_references_of_the_events(database: Database, engine: str) -> None:
    """A dump brings them last, when every row is there."""
    del engine

    def drop() -> None:
        for (name,) in units.engine().execute_sql(REFERENCES).fetchall():
            units.engine().execute_sql(f'ALTER TABLE event DROP CONSTRAINT "{name}"')

    await database.write(drop)
    assert not await database.read(readiness.is_complete)


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_it_cannot_be_told_while_there_is_no_table(database: Database, engine: str) -> None:
    """Which is an error that is tried again later, and no answer."""
    del engine
    await database.write(lambda: units.engine().execute_sql("ALTER TABLE event RENAME TO elsewhere"))
    with pytest.raises(RelayError):
        await database.read(readiness.is_complete)


@pytest.mark.parametrize("engine", ["postgresql"])
async def test_what_comes_with_the_last_rows_of_a_dump_is_found(database: Database, engine: str) -> None:
    """Nothing is found, then the dump is over, and what was not there is."""
    del engine
    found = iter([None, "a row"])

    assert await database.read(lambda: readiness.surely(lambda: next(found))) == "a row"
