"""`manage.py sweep` and `manage.py copy-to`, as a person runs them."""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from persistence import organizations, units
from persistence.database import open_database
from tests.support import postgresql
from tests.support.processes import environment, run

TELLTALE = "teLLtaLe"
HOUR = 3600


@dataclass(frozen=True)
class House:
    """A folder with an installation in it: one organization with one user, one contact and a number."""

    folder: Path
    env: dict[str, str]

    def run(self, *arguments: str, **settings: str) -> CompletedProcess[str]:
        return run(*arguments, env=self.env | settings, folder=self.folder)

    def leave_recording(self, number: int, age: float) -> Path:
        """Leave a recording that belongs to no call, so many seconds old."""
        path = self.folder / "var" / "recordings" / "org" / f"{1:024x}" / "calls" / f"{number:024x}" / "recording.mp3"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"ID3")
        os.utime(path, (time.time() - age,) * 2)
        return path


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> House:
    folder: Path = tmp_path_factory.mktemp("upkeep")
    house = House(folder, environment(folder))
    for arguments in (
        ("migrate",),
        ("org", "add", "Acme", "--region", "CA"),
        ("org", "number", "Acme", "+12362320246"),
        ("org", "contact", "Acme", "+14165550100", "Alex Müller"),
        ("user", "add", "Acme", "ann@acme.example", "--name", "Ann", "--role", "superadmin"),
    ):
        done = house.run(*arguments, RELAY_PASSWORD="correct horse")
        assert done.returncode == 0, done.stderr
    return house


@pytest.fixture
def target_url() -> Iterator[str]:
    url = postgresql.create()
    yield url
    postgresql.drop(url)


# Sweeping


def test_a_sweep_tells_first_and_removes_when_asked_to(settled: House) -> None:
    """What is younger than an hour is left alone unless a shorter time is given."""
    old, young = settled.leave_recording(1, 2 * HOUR), settled.leave_recording(2, HOUR / 2)
    told = settled.run("sweep")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout == "2 recordings, 1 without a call, 0 removed.\nNothing was removed; --apply does it.\n"
    assert old.exists()

    removed = settled.run("sweep", "--apply")
    assert (removed.returncode, removed.stdout) == (0, "2 recordings, 1 without a call, 1 removed.\n")
    assert (old.exists(), young.exists()) == (False, True)

    assert settled.run("sweep", "--apply", "--older-than", "0").stdout.endswith(" 1 removed.\n")
    assert settled.run("sweep").stdout == "0 recordings, 0 without a call, 0 removed.\n"


def test_a_sweep_of_the_future_is_refused(settled: House) -> None:
    """A negative age would take recordings whose call is just being written."""
    done = settled.run("sweep", "--apply", "--older-than", "-5")

    assert done.returncode == 2
    assert "--older-than" in done.stderr


# Copying


def test_everything_is_copied_compared_and_served_from_the_new_database(settled: House, target_url: str) -> None:
    """A second run finds it done; a difference is named and is a failure; keys sealed before open there."""
    first, again = settled.run("copy-to", target_url), settled.run("copy-to", target_url)
    for done in (first, again):
        assert done.returncode == 0, done.stderr
        assert "differ" not in done.stdout
    assert rows_of(first.stdout) == rows_of(again.stdout)
    assert rows_of(first.stdout)["contact"] == ("1", "1", "equal")
    assert rows_of(first.stdout)["organization"] == ("1", "1", "equal")

    kept = json.loads((settled.folder / "var" / "secrets.json").read_text())
    moved = {"DATABASE_URL": target_url, "JWT_SECRET": kept["jwtSecret"], "ENCRYPTION_KEYS": kept["encryptionKeys"]}
    assert settled.run("key", "api", "ann@acme.example", **moved).stdout.startswith("tk_live_")
    assert "Acme" in settled.run("org", "list", **moved).stdout


async def test_a_difference_is_named_and_is_a_failure(settled: House, target_url: str) -> None:
    """Whoever moves must not find out later."""
    assert settled.run("copy-to", target_url).returncode == 0
    target = open_database(target_url)
    (organization,) = await target.read(organizations.everyone)
    await target.write(lambda: organizations.set_region(organization.id, "GB"))
    target.close()
    done = settled.run("copy-to", target_url)

    assert done.returncode == 1
    assert "not a part of this one" in done.stderr


async def test_copy_that_arrives_changed_is_named_and_is_a_failure(settled: House, target_url: str) -> None:
    """Both sides are read again after the copy, whatever changed a row on its way; here a trigger of the target."""
    target = open_database(target_url)
    target.migrate()
    for statement in RENAMING:
        await target.write(partial(lambda sql: units.engine().execute_sql(sql), statement))
    target.close()
    done = settled.run("copy-to", target_url)

    assert done.returncode == 1
    assert done.stdout.endswith("The two differ.\n")
    assert rows_of(done.stdout)["contact"] == ("1", "1", "differs")
    assert rows_of(done.stdout)["organization"] == ("1", "1", "equal")


RENAMING = (
    "CREATE FUNCTION renamed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name := ''X''; RETURN NEW; END'",
    "CREATE TRIGGER renaming BEFORE INSERT ON contact FOR EACH ROW EXECUTE FUNCTION renamed()",
)


def test_the_address_may_come_from_the_environment(settled: House, target_url: str) -> None:
    """A password in an argument can be seen by everybody on the machine."""
    assert settled.run("copy-to", COPY_TO_URL=target_url).returncode == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql://relay:{TELLTALE}@127.0.0.1:1/relay", "cannot be reached"),
        (f"mysql://relay:{TELLTALE}@127.0.0.1/relay", "postgresql://"),
    ],
)
def test_a_database_that_cannot_be_had_is_one_sentence(settled: House, url: str, words: str) -> None:
    """Without the password that was in its address."""
    done = settled.run("copy-to", url)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tether-relay: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert TELLTALE not in done.stderr


def rows_of(printed: str) -> dict[str, tuple[str, str, str]]:
    """Read the table: rows here, rows there, and the verdict, by table."""
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in printed.splitlines() if "│" in line]
    return {name: (here, there, verdict.split(":")[0]) for name, here, there, _, verdict in cells}
