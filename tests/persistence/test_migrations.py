import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peewee
import pytest
from playhouse.migrations import Runner
from playhouse.schema_diff import diff_models

from domain.audit import Actor, AuditAction
from domain.identifiers import new_id
from persistence import audit, lengths, units
from persistence.audit import Head
from persistence.database import Database, open_database
from persistence.models import MODELS, Organization, TransferRequest
from tests.support import postgresql

ROOT = Path(__file__).parents[2]
NewUrl = Callable[[], str]


@pytest.fixture
def new_url(engine: str, tmp_path: Path) -> Iterator[NewUrl]:
    """Return a function that makes an empty database and returns its URL."""
    made: list[str] = []

    def make() -> str:
        made.append(postgresql.create() if engine == "postgresql" else f"sqlite:///{tmp_path}/{len(made)}.db")
        return made[-1]

    yield make
    if engine == "postgresql":
        for url in made:
            postgresql.drop(url)


async def inside(database: Database, unit: Callable[[Any], Any]) -> Any:
    return await database.read(lambda: unit(units.engine()))


def schema(engine: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for table in engine.get_tables():
        if table == "schema_migration":
            continue
        found[table] = {
            "columns": {
                (column.name, column.data_type, column.null, column.primary_key) for column in engine.get_columns(table)
            },
            "indexes": {(tuple(index.columns), index.unique) for index in engine.get_indexes(table)},
            "references": {(key.column, key.dest_table, key.dest_column) for key in engine.get_foreign_keys(table)},
        }
    return found


async def test_migrating_from_nothing_equals_creating_from_the_models(new_url: NewUrl) -> None:
    """The chain of migrations and the models describe the same database."""
    migrated, created = open_database(new_url()), open_database(new_url())
    migrated.migrate()
    await created.write(lambda: units.engine().create_tables(MODELS))
    schemas = [await inside(database, schema) for database in (migrated, created)]
    migrated.close()
    created.close()

    assert schemas[0] == schemas[1]
    assert {"call", "event", "organization"} <= schemas[0].keys()


async def test_nothing_is_left_to_generate_after_migrating(new_url: NewUrl) -> None:
    """peewee's own comparison finds no difference between the models and the migrated database."""
    migrated = open_database(new_url())
    migrated.migrate()
    difference = await inside(migrated, lambda engine: str(diff_models(engine, list(MODELS))))
    migrated.close()

    assert difference == ""


def test_migrating_twice_does_nothing_the_second_time(new_url: NewUrl) -> None:
    """Migrations are remembered."""
    database = open_database(new_url())
    pending, first, second = database.pending_migrations(), database.migrate(), database.migrate()
    left = database.pending_migrations()
    database.close()

    assert first == pending
    assert first
    assert second == left == []


async def test_rows_written_before_a_migration_survive_it_in_both_directions(new_url: NewUrl) -> None:
    """Calls keep contact, recording and references while their table is rebuilt; contacts are found, calls counted."""
    database = open_database(new_url())
    rebuilt = "0003_read_back_and_erasure"

    def unit() -> list[tuple[Any, ...]]:
        engine = units.engine()
        runner = Runner(engine, str(ROOT / "persistence" / "migrations"))
        runner.up("0002_audit_and_sign_in")
        for statement in OLD_ROWS:
            engine.execute_sql(statement)
        runner.up(rebuilt)
        runner.down(rebuilt)
        runner.up("0005_call_count")
        query = (
            "SELECT c.id, c.duration, c.contact_id, r.call_id, p.search, o.call_count FROM call c "
            "JOIN recording r ON r.call_id = c.id JOIN contact p ON p.id = c.contact_id "
            "JOIN organization o ON o.id = c.organization_id"
        )
        return list(engine.execute_sql(query).fetchall())

    found = await database.read(unit)
    with pytest.raises(peewee.IntegrityError):
        await database.write(lambda: units.engine().execute_sql("DELETE FROM contact"))
    database.close()

    assert found == [("c1", 1.5, "p1", "c1", "élodie\n+14165550100", 1)]


OLD_ROWS = [
    "INSERT INTO organization (id, name, event_sequence, created_at) VALUES ('o1', 'Acme', 0, 'x')",
    (
        "INSERT INTO contact (id, organization_id, phone_number, name, name_is_placeholder, created_at, updated_at)"
        " VALUES ('p1', 'o1', '+14165550100', 'Élodie', '0', 'x', 'x')"
    ),
    (
        "INSERT INTO conversation (id, organization_id, contact_id, channel_type, channel_identifier, created_at)"
        " VALUES ('v1', 'o1', 'p1', 'voice', '+12362320246', 'x')"
    ),
    (
        "INSERT INTO call (id, organization_id, contact_id, conversation_id, source, direction, from_number, to_number,"
        " status, duration, started_at, ended_at, provider_metadata, payload_digests, created_at) VALUES"
        " ('c1', 'o1', 'p1', 'v1', 'ingest', 'inbound', '+1', '+2', 'completed', 1.5, 'x', 'x', '{}', '{}', 'x')"
    ),
    (
        "INSERT INTO recording (id, organization_id, call_id, key, content_type, size, sha256, created_at)"
        " VALUES ('r1', 'o1', 'c1', 'key', 'audio/mpeg', 1, 'x', 'x')"
    ),
]


async def test_entries_written_before_the_chain_are_chained_by_the_migration(new_url: NewUrl) -> None:
    """In the order of their making, each organization's for itself, and the database guards them again; back, too."""
    database = open_database(new_url())
    access = "0006_access"

    def migrate() -> list[Any]:
        engine = units.engine()
        runner = Runner(engine, str(ROOT / "persistence" / "migrations"))
        runner.up("0004_post_call")
        for statement in AUDITED_ROWS:
            engine.execute_sql(statement)
        for direction in (runner.up, runner.down, runner.up):
            direction(access)
        runner.up()
        return list(engine.execute_sql("SELECT user_id, name, kind FROM api_key").fetchall())

    def chain() -> tuple[list[Any], list[str], list[Head]]:
        entries = audit.after("o1", 0, 100)
        heads = [audit.head(whose) for whose in ("o1", "o2", None)]
        return [(one.id, one.sequence, one.previous_digest) for one in entries], [*map(audit.digest_of, entries)], heads

    keys = await database.read(migrate)
    await database.write(lambda: audit.record("o1", AuditAction.SIGNED_OUT, Actor(), subject="s"))
    entries, digests, heads = await database.read(chain)
    for change in ("UPDATE audit_entry SET action = 'x'", "DELETE FROM audit_entry"):
        with pytest.raises(peewee.IntegrityError):
            await database.write(lambda change=change: units.engine().execute_sql(change))  # type: ignore[misc]
    database.close()

    assert [entry[:2] for entry in entries[:3]] == [("a2", 1), ("a1", 2), ("a3", 3)]
    assert [previous for *_, previous in entries] == ["", *digests[:-1]]
    assert heads[0] == (4, digests[-1])
    assert [head.length for head in heads] == [4, 1, 1]
    assert [tuple(row) for row in keys] == [("u1", "default", "both")]


AUDITED_ROWS = [
    "INSERT INTO organization (id, name, event_sequence, created_at) VALUES ('o1', 'A', 0, 'x'), ('o2', 'B', 0, 'x')",
    (
        'INSERT INTO "user" (id, organization_id, email, full_name, password_hash, role, token_version, created_at)'
        " VALUES ('u1', 'o1', 'a@b', 'Ann', 'x', 'agent', 0, 'x')"
    ),
    (
        "INSERT INTO api_key (id, organization_id, user_id, digest, sealed, created_at)"
        " VALUES ('k1', 'o1', 'u1', 'd', 's', 'x')"
    ),
    (
        "INSERT INTO audit_entry (id, organization_id, at, action, subject, details) VALUES"
        " ('a1', 'o1', '2026-02', 'x', 's', '{}'), ('a2', 'o1', '2026-01', 'x', NULL, '{}'),"
        " ('a3', 'o1', '2026-02', 'y', NULL, '{}'), ('b1', 'o2', '2026-01', 'x', NULL, '{}'),"
        " ('n1', NULL, '2026-01', 'x', NULL, '{}')"
    ),
]


async def test_replaced_tool_secret_keeps_its_end_through_the_migration_and_back(new_url: NewUrl) -> None:
    """Each organization's own; and what is in the tables that are rebuilt survives both directions."""
    database = open_database(new_url())
    write_path = "0007_write_path"
    secrets = "SELECT organization_id, digest, expires_at FROM tool_secret ORDER BY organization_id, id"
    columns = (
        "SELECT organization_id, tool_secret_digest, previous_tool_secret_digest, previous_tool_secret_expires_at"
        " FROM voice_ai_config ORDER BY organization_id"
    )
    kept = (
        "SELECT c.elevenlabs_conversation_id, c.contact_id, r.key, h.elevenlabs_conversation_id, p.name_is_placeholder"
        " FROM call c JOIN recording r ON r.call_id = c.id JOIN contact p ON p.id = c.contact_id, held_recording h"
    )

    def unit() -> list[list[tuple[Any, ...]]]:
        engine = units.engine()
        runner = Runner(engine, str(ROOT / "persistence" / "migrations"))
        runner.up("0002_audit_and_sign_in")
        for statement in OLD_ROWS:
            engine.execute_sql(statement)
        runner.up("0006_access")
        for statement in CONFIGURED_ROWS:
            engine.execute_sql(statement)
        found = []
        for move, query in ((runner.up, secrets), (runner.down, columns), (runner.up, secrets)):
            move(write_path)
            found += [list(engine.execute_sql(query).fetchall()), list(engine.execute_sql(kept).fetchall())]
        return found

    once, rows, back, same, again, still = await database.read(unit)
    database.close()

    assert [tuple(row) for row in once] == [("o1", "old", "2026-02"), ("o1", "new", None), ("o2", "alone", None)]
    assert again == once
    assert [tuple(row) for row in back] == [("o1", "new", "old", "2026-02"), ("o2", "alone", None, None)]
    assert [tuple(row) for row in rows] == [("conv_1", "p1", "key", "conv_2", True)]
    assert rows == same == still


CONFIGURED_ROWS = [
    (
        "INSERT INTO organization (id, name, event_sequence, call_count, recording_bytes, audit_count, audit_digest,"
        " created_at) VALUES ('o2', 'B', 0, 0, 0, 0, '', 'x')"
    ),
    (
        "INSERT INTO voice_ai_config (organization_id, tool_secret_digest, previous_tool_secret_digest,"
        " previous_tool_secret_expires_at, webhook_status, updated_at) VALUES"
        " ('o1', 'new', 'old', '2026-02', 'configured', '2026-01'), ('o2', 'alone', NULL, NULL, 'configured', '2026')"
    ),
    "UPDATE call SET elevenlabs_conversation_id = 'conv_1'",
    "UPDATE contact SET name = 'Unknown Caller', name_is_placeholder = FALSE",
    (
        "INSERT INTO held_recording (id, organization_id, elevenlabs_conversation_id, key, content_type, size, sha256,"
        " created_at) VALUES ('h1', 'o1', 'conv_2', 'held', 'audio/mpeg', 1, 'x', 'x')"
    ),
]


async def test_text_too_long_for_its_column_stays_as_it_was_and_hinders_no_other_change(tmp_path: Path) -> None:
    """An earlier version stored it in SQLite: its row can be changed and erased, and no other one is let in."""
    database = open_database(f"sqlite:///{tmp_path}/old.db")
    database.migrate()
    number = "+1" + "2" * 17

    def old() -> None:
        lengths.drop_guards(units.engine())
        organization = Organization.create(name="Acme")
        TransferRequest.create(organization=organization.id, called_number=number, reason="x")

    await database.write(old)
    database.migrate()
    # As when a whole row is saved: the long text is set to what it was.
    await database.write(lambda: TransferRequest.update(reason="y", called_number=number).execute())
    with pytest.raises(peewee.IntegrityError, match="too long"):
        await database.write(lambda: TransferRequest.update(called_number=number + "3").execute())
    found = await database.read(lambda: [(row.called_number, row.reason) for row in TransferRequest.select()])
    await database.write(lambda: TransferRequest.delete().execute())
    database.close()

    assert found == [(number, "y")]


async def test_start_of_another_process_leaves_the_lengths_guarded_throughout(tmp_path: Path) -> None:
    """Nothing is pending, so no guard is removed: the schema is not written at all."""
    database = open_database(f"sqlite:///{tmp_path}/ours.db")
    database.migrate()
    version = await inside(database, lambda engine: engine.execute_sql("PRAGMA schema_version").fetchone())
    database.migrate()
    again = await inside(database, lambda engine: engine.execute_sql("PRAGMA schema_version").fetchone())
    await database.write(lambda: lengths.drop_guards(units.engine()))
    database.migrate()
    with pytest.raises(peewee.IntegrityError, match="too long"):
        await database.write(lambda: Organization.create(name="x" * 201))
    database.close()

    assert again == version


async def test_migration_that_fails_is_told_as_it_failed_and_leaves_the_lengths_guarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite: what guards the lengths is made for the schema that is there."""
    database = open_database(f"sqlite:///{tmp_path}/half.db")
    await database.write(lambda: Runner(units.engine(), str(ROOT / "persistence" / "migrations")).up("0006_access"))

    def failing(*_: Any) -> None:
        raise RuntimeError("what went wrong")

    monkeypatch.setattr("playhouse.migrations.Runner.up", failing)
    with pytest.raises(RuntimeError, match="what went wrong"):
        database.migrate()
    insert = "INSERT INTO organization (id, name, created_at) VALUES (?, ?, '')"
    with pytest.raises(peewee.IntegrityError, match=r"too long for organization\.name"):
        await database.write(lambda: units.engine().execute_sql(insert, (new_id(), "x" * 201)))
    monkeypatch.undo()
    database.migrate()
    with pytest.raises(peewee.IntegrityError, match=r"too long for organization\.name"):
        await database.write(lambda: Organization.create(name="x" * 201))
    assert (await database.write(lambda: Organization.create(name="x" * 200))).id
    database.close()


@pytest.mark.processes
async def test_ten_processes_may_migrate_at_once(new_url: NewUrl) -> None:
    """One of them applies the migrations, and all of them end well."""
    url = new_url()
    script = (
        "import sys; from persistence.database import open_database\n"
        "database = open_database(sys.argv[1]); print(len(database.migrate())); database.close()\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, url, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(10)
    ]
    outcomes = [await process.communicate() for process in processes]
    applied = sorted(int(printed or -1) for printed, _ in outcomes)

    assert [process.returncode for process in processes] == [0] * 10, outcomes
    assert applied[:9] == [0] * 9
    assert applied[9] >= 1
