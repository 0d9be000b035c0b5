import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from actions.copy_database import compare_databases, copy_database, prepare_target
from domain.audit import Actor, AuditAction
from domain.epochs import generation
from domain.errors import ConfigurationError
from domain.events import Event, EventName
from persistence import audit, contact_notes, contacts, lengths, models, organizations, outbox, units
from persistence.database import Database, open_database
from tests.support import postgresql

pytestmark = pytest.mark.postgresql


@pytest.fixture
def engine() -> str:
    """Copy from SQLite."""
    return "sqlite"


@pytest.fixture
def target() -> Iterator[Database]:
    url = postgresql.create(postgresql.migrated())
    database = open_database(url)
    yield database
    database.close()
    postgresql.drop(url)


@pytest.fixture
async def source(database: Database) -> Database:
    organization = await database.write(lambda: organizations.add("Acme – ünïcode", "CA"))

    def unit(index: int) -> None:
        contact = contacts.upsert(organization.id, f"+1416555{index:04}", None if index % 2 else f"Name {index}")
        contact_notes.add_from_tool(organization.id, contact.id, "x" * index, tool="t", elevenlabs_conversation_id=None)
        outbox.append(organization.id, [Event(EventName.NOTE_CREATED, {"index": index, "x": [1.5, None]})])

    await asyncio.gather(*[database.write(partial(unit, index)) for index in range(1200)])
    for whose in (organization.id, None, None):
        await database.write(partial(audit.record, whose, AuditAction.SIGN_IN_FAILED, Actor()))
    return database


async def test_everything_arrives_and_is_proved_to_be_the_same(source: Database, target: Database) -> None:
    """Counts and digests of every table agree, and both sides go on working."""
    last = {progress.table: progress async for progress in copy_database(source, target)}
    compared = await compare_databases(source, target)
    (organization,) = await target.read(organizations.everyone)
    head = await target.write(lambda: outbox.append(organization.id, [Event(EventName.NOTE_CREATED, {})]))

    for whose in (organization.id, None):
        await target.write(partial(audit.record, whose, AuditAction.SIGN_IN_FAILED, Actor()))
    chains = [(await target.read(partial(audit.after, whose, 0, 9))) for whose in (organization.id, None)]

    assert all(table.is_equal for table in compared), compared
    assert [len(chain) for chain in chains] == [2, 3]
    assert all(chain[-1].previous_digest == audit.digest_of(chain[-2]) for chain in chains)
    assert (last["contact"].copied, last["contact"].rows) == (1200, 1200)
    assert {table.table: table.source_rows for table in compared}["event"] == 1200
    assert head == 1201


async def test_a_copy_begins_new_epochs(source: Database, target: Database) -> None:
    """Of a later generation than the source's, which may go on without it; the sequence goes on."""
    async for _ in copy_database(source, target):
        pass
    (organization,) = await target.read(organizations.everyone)
    before = await source.read(lambda: outbox.standing(organization.id))
    after = await target.read(lambda: outbox.standing(organization.id))

    assert before
    assert after
    assert after.sequence == before.sequence == 1200
    assert generation(after.epoch) > generation(before.epoch)


async def test_a_copy_that_was_broken_off_goes_on_where_it_stopped(source: Database, target: Database) -> None:
    """Half of it, then all of it: nothing is missing and nothing is doubled."""
    async for progress in copy_database(source, target):
        if progress.table == "contact_note" and progress.copied > 0:
            break
    halfway = await compare_databases(source, target)
    async for _ in copy_database(source, target):
        pass
    compared = await compare_databases(source, target)

    assert not all(table.is_equal for table in halfway)
    assert all(table.is_equal for table in compared), compared


async def test_a_difference_is_found(source: Database, target: Database) -> None:
    """One changed letter changes the digest of its table."""
    async for _ in copy_database(source, target):
        pass
    (organization,) = await target.read(organizations.everyone)
    await target.write(lambda: organizations.set_region(organization.id, "GB"))
    compared = await compare_databases(source, target)

    assert [table.table for table in compared if not table.is_equal] == ["organization"]


async def test_a_target_that_is_not_migrated_is_refused(source: Database, tmp_path: Path) -> None:
    """Nothing is copied between different schemas."""
    empty = open_database(f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(ConfigurationError, match=r"manage\.py migrate"):
        async for _ in copy_database(source, empty):
            pass
    empty.close()


async def test_target_in_use_is_refused_and_left_unchanged(source: Database, target: Database) -> None:
    """One sentence, before anything is written: its organization is not one of this database."""
    await target.write(lambda: organizations.add("Somebody else's", "GB"))
    with pytest.raises(ConfigurationError, match="not a part of this one"):
        await prepare_target(source, target)

    assert [one.name for one in await target.read(organizations.everyone)] == ["Somebody else's"]


async def test_target_with_a_changed_copy_is_refused(source: Database, target: Database) -> None:
    """It was copied before and used since: the rows have the same keys and say something else."""
    async for _ in copy_database(source, target):
        pass
    await prepare_target(source, target)
    (organization,) = await target.read(organizations.everyone)
    await target.write(lambda: organizations.set_region(organization.id, "GB"))

    with pytest.raises(ConfigurationError, match="not a part of this one"):
        await prepare_target(source, target)


async def test_target_of_another_version_that_holds_rows_is_not_migrated(source: Database) -> None:
    """Migrating it would change a database that is in use."""
    url = postgresql.create()
    database = open_database(url)
    try:
        await database.write(lambda: units.engine().create_tables([models.Organization]))
        await database.write(lambda: organizations.add("Somebody else's", "GB"))
        pending = database.pending_migrations()
        with pytest.raises(ConfigurationError, match="not a part of this one"):
            await prepare_target(source, database)

        assert database.pending_migrations() == pending
    finally:
        database.close()
        postgresql.drop(url)


async def test_target_of_another_program_is_refused_and_left_unchanged(source: Database) -> None:
    """No table of ours is made among the tables that are there."""
    url = postgresql.create()
    database = open_database(url)
    try:
        await database.write(lambda: units.engine().execute_sql("CREATE TABLE invoice (id integer)"))
        with pytest.raises(ConfigurationError, match="not a part of this one"):
            await prepare_target(source, database)

        assert await database.read(lambda: units.engine().get_tables()) == ["invoice"]
    finally:
        database.close()
        postgresql.drop(url)


async def test_text_too_long_for_its_column_is_named(source: Database, target: Database) -> None:
    """An earlier version stored it in SQLite; the sentence says which row to shorten."""

    def unit() -> None:
        lengths.drop_guards(units.engine())
        models.Organization.update(name="x" * 201).execute()

    await source.write(unit)
    await prepare_target(source, target)
    with pytest.raises(ConfigurationError, match=r"name of organization .* is longer"):
        async for _ in copy_database(source, target):
            pass
