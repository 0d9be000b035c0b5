"""Copying a database beside writers, and being alone with one."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from domain.errors import ConfigurationError
from persistence import presence, sealed_columns, snapshots
from persistence.database import open_database
from persistence.snapshots import Snapshot

ROWS = 200


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of another program, to a database of many pages."""
    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE pair (id INTEGER PRIMARY KEY, number INTEGER, filling TEXT)")
        connection.executemany("INSERT INTO pair (number, filling) VALUES (0, ?)", [("x" * 3000,)] * ROWS)
        yield connection


def test_copy_beside_writers_is_of_one_instant_and_ends(
    tmp_path: Path, writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is changed after every few pages: SQLite alone would start anew each time, and mix nothing only so."""
    monkeypatch.setattr("persistence.snapshots._PAGES", 5)
    steps = list[int]()

    def meanwhile(done: int, total: int) -> None:
        assert (steps[-1] if steps else 0) < done <= total, "the copy was started anew"
        steps.append(done)
        writer.execute("UPDATE pair SET number = number + 1")

    snapshots.copy(tmp_path / "relay.db", tmp_path / "copy.db", meanwhile)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copied:
        numbers = copied.execute("SELECT DISTINCT number FROM pair").fetchall()
        (count,) = copied.execute("SELECT COUNT(*) FROM pair").fetchone()

    assert len(steps) > ROWS / 5
    assert (numbers, count) == ([(0,)], ROWS)
    assert writer.execute("SELECT DISTINCT number FROM pair").fetchall() == [(len(steps),)]


def test_snapshot_finds_a_reference_that_leads_nowhere(tmp_path: Path) -> None:
    """Beside what SQLite finds wrong with its own pages."""
    with closing(sqlite3.connect(tmp_path / "relay.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE a (id INTEGER PRIMARY KEY)")
        connection.execute("CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a (id))")
        connection.execute("INSERT INTO b (a) VALUES (7)")
    with closing(Snapshot(tmp_path / "relay.db")) as snapshot:
        assert snapshot.problems() == ["row 1 of b refers to a row of a that does not exist"]


def test_every_sealed_column_is_known() -> None:
    """Whoever adds one need not remember this list: it is read from the models. Names have to be kept to, though."""
    assert {(table, column) for table, _, column in sealed_columns.names()} >= {
        ("api_key", "sealed"),
        ("voice_ai_config", "elevenlabs_api_key_sealed"),
        ("voice_ai_config", "sinch_est_key_secret_sealed"),
        ("voice_ai_config", "webhook_secret_sealed"),
        ("sms_config", "credentials_sealed"),
    }


def test_no_process_of_ours_opens_a_database_while_another_is_alone_with_it(tmp_path: Path) -> None:
    """Nor the other way round; the lock ends with the process that has it."""
    path = tmp_path / "relay.db"
    database = open_database(f"sqlite:///{path}")
    with pytest.raises(ConfigurationError, match="is in use"), presence.alone(path):
        pass
    database.close()
    with presence.alone(path), pytest.raises(ConfigurationError, match="is being restored"):
        open_database(f"sqlite:///{path}")
    open_database(f"sqlite:///{path}").close()


@pytest.mark.processes
def test_database_that_another_program_has_open_is_in_use(tmp_path: Path) -> None:
    """SQLite's own locks tell of a program that knows nothing of ours, however idle it is."""
    path = tmp_path / "relay.db"
    open_database(f"sqlite:///{path}").close()
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM sqlite_master').fetchall();"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(ConfigurationError, match="is in use"), presence.alone(path):
            pass
        other.communicate()
    with presence.alone(path):
        pass
