"""`manage.py retention` and `manage.py org retention`, as real processes."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support.processes import environment, run

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Return how commands are run in an installation with one organization."""
    env = environment(tmp_path)

    def act(*arguments: str) -> CompletedProcess[str]:
        return run(*arguments, env=env, folder=tmp_path)

    assert act("migrate").returncode == 0
    assert act("org", "add", "Acme", "--region", "CA").returncode == 0
    return act


def test_days_are_set_shown_and_taken_back(command: Command) -> None:
    """Only what is given changes; 0 keeps for good again."""
    command("org", "retention", "Acme", "--recordings", "90", "--events", "30")
    shown = command("org", "retention", "Acme").stdout.split("\n")
    back = command("org", "retention", "Acme", "--recordings", "0").stdout.split("\n")

    assert [line.split(maxsplit=1)[1] for line in shown[:2]] == ["90 days", "for good"]
    assert [line.split(maxsplit=1)[1] for line in back[:3]] == ["for good", "for good", "30 days"]


def test_nothing_goes_unless_asked_to(command: Command, tmp_path: Path) -> None:
    """The first run counts, the second removes, the third finds nothing; each prints a table."""
    with sqlite3.connect(tmp_path / "var" / "relay.db") as database:
        (organization_id,) = database.execute("SELECT id FROM organization").fetchone()
        for sequence in (1, 2, 3):
            database.execute(
                "INSERT INTO event (organization_id, sequence, name, at, data) VALUES (?, ?, 'erased', ?, '{}')",
                (organization_id, sequence, "2020-01-01T00:00:00.000Z"),
            )
        database.execute("UPDATE organization SET event_sequence = 3")
    database.close()
    command("org", "retention", "Acme", "--events", "30")
    counted, applied, again = command("retention"), command("retention", "--apply"), command("retention")

    assert "--apply" in counted.stdout
    assert [_events(result) for result in (counted, applied, again)] == ["2", "2", "0"]
    assert "--apply" not in applied.stdout + again.stdout


def test_what_was_removed_is_in_no_file_any_more(command: Command, tmp_path: Path) -> None:
    """Also while another process has the database open, so that its log stays."""
    file, said = tmp_path / "var" / "relay.db", "what nobody wants to keep"
    server = sqlite3.connect(file)
    with sqlite3.connect(file) as database:
        (organization_id,) = database.execute("SELECT id FROM organization").fetchone()
        for sequence in range(1, 30):
            database.execute(
                "INSERT INTO event (organization_id, sequence, name, at, data) VALUES (?, ?, 'note_created', ?, ?)",
                (organization_id, sequence, "2020-01-01T00:00:00.000Z", f'{{"note": "{said} {sequence}"}}'),
            )
        database.execute("UPDATE organization SET event_sequence = 30")
    database.close()
    command("org", "retention", "Acme", "--events", "30")
    before = b"".join(path.read_bytes() for path in file.parent.glob("relay.db*"))
    applied = command("retention", "--apply")
    after = b"".join(path.read_bytes() for path in file.parent.glob("relay.db*"))
    server.close()

    assert _events(applied) == "29"
    assert before.count(said.encode()) >= 29
    assert after.count(said.encode()) == 1  # the newest, which is kept


def test_an_unknown_organization_and_bad_days_are_one_sentence(command: Command) -> None:
    """And a status that is not zero."""
    for arguments in (("Nobody", "--events", "30"), ("Acme", "--events", "-1"), ("Acme", "--events", "99999")):
        result = command("org", "retention", *arguments)

        assert result.returncode != 0
        assert "Traceback" not in result.stderr


def _events(result: CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    row = next(line for line in result.stdout.splitlines() if "Acme" in line)
    return row.strip("│ ").split("│")[4].strip()
