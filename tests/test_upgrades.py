"""Versions: a database of another one is refused as text, and everything says which one runs."""

import json
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from persistence import migrating
from tests.support.processes import MANAGE, accepts, environment, run, running
from version import VERSION

pytestmark = pytest.mark.processes

ROOT = MANAGE.parent
NEWER = "9999_of_the_future"

COMMANDS = {
    "serve": ("serve",),
    "broadcast": ("broadcast",),
    "up": ("up",),
    "migrate": ("migrate",),
    "org list": ("org", "list"),
    "user list": ("user", "list"),
    "key list-encryption": ("key", "list-encryption"),
    "audit": ("audit",),
    "sweep": ("sweep",),
    "retention": ("retention",),
    "backup": ("backup", "x.tar.gz"),
}


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    made = environment(tmp_path)
    assert run("migrate", env=made, folder=tmp_path).returncode == 0
    return made


def change(folder: Path, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(folder / "var" / "relay.db", isolation_level=None)) as database:
        database.execute(statement, values)


def make_older(folder: Path) -> None:
    """Make a database that lacks the last migration, with rows in it."""
    last = sorted(migrating.known())[-2]
    script = (
        "import sys, peewee; from persistence import migrating\n"
        "migrating.runner(peewee.SqliteDatabase(sys.argv[1])).up(sys.argv[2])"
    )
    (folder / "var").mkdir()
    subprocess.run([sys.executable, "-c", script, folder / "var" / "relay.db", last], cwd=ROOT, check=True)


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_newer_database_is_refused_by_every_command(
    env: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """With one sentence that names both, and nothing is changed."""
    change(tmp_path, "INSERT INTO schema_migration (name, applied) VALUES (?, '2030-01-01 00:00:00')", NEWER)
    done = run(*arguments, env=env, folder=tmp_path)
    said = [line for line in done.stderr.splitlines() if line.startswith("tether-relay: ")]

    assert done.returncode == 1
    assert len(said) == 1
    assert VERSION in said[0]
    assert NEWER in said[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "broadcast"])
def test_older_database_is_refused_by_what_serves(tmp_path: Path, command: str) -> None:
    """Whoever upgrades decides when; the database is left as it was."""
    make_older(tmp_path)
    env = environment(tmp_path)
    done = run(command, env=env, folder=tmp_path)

    assert done.returncode == 1
    assert "run manage.py migrate" in done.stderr
    with closing(sqlite3.connect(tmp_path / "var" / "relay.db")) as database:
        (count,) = database.execute("SELECT COUNT(*) FROM schema_migration").fetchone()
    assert count == len(migrating.known()) - 1


@pytest.mark.parametrize(("command", "port"), [("serve", "API_PORT"), ("broadcast", "REALTIME_PORT")])
def test_older_database_is_migrated_at_start_if_that_is_set(tmp_path: Path, command: str, port: str) -> None:
    """It says what it applied, and serves."""
    make_older(tmp_path)
    env = environment(tmp_path, migrate_at_start="on")
    with running(command, env=env, folder=tmp_path) as process:
        process.until(lambda: accepts(env[port]))
        healthy = httpx.get(f"http://127.0.0.1:{env[port]}/readyz", trust_env=False, timeout=30)
        lines = [json.loads(line) for line in process.errors.splitlines()]

    assert healthy.status_code == 200
    assert [line["applied"] for line in lines if line["event"] == "migrated"] == [sorted(migrating.known())[-1:]]


def test_everything_says_which_version_runs(env: dict[str, str], tmp_path: Path) -> None:
    """The command, the first line of each log, health, the contract, the metrics; and the project's own file."""
    with running("serve", env=env, folder=tmp_path) as api, running("broadcast", env=env, folder=tmp_path) as other:
        urls = {}
        for process, port in ((api, "API_PORT"), (other, "REALTIME_PORT")):
            process.until(lambda port=port: accepts(env[port]))  # type: ignore[misc]
            urls[port] = f"http://127.0.0.1:{env[port]}"
        pages = {
            f"{port}{path}": httpx.get(f"{url}{path}", trust_env=False, timeout=30)
            for port, url in urls.items()
            for path in ("/healthz", "/metrics")
        }
        contract = httpx.get(f"{urls['API_PORT']}/contract", trust_env=False, timeout=30).json()
        first = [json.loads(process.errors.splitlines()[0]) for process in (api, other)]

    assert (ROOT / "VERSION").read_text() == f"{VERSION}\n"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert run("--version", env=env, folder=tmp_path).stdout == f"{VERSION}\n"
    assert [(line["event"], line["version"], line["process"]) for line in first] == [
        ("starting", VERSION, "api"),
        ("starting", VERSION, "broadcaster"),
    ]
    assert [line["address"] for line in first] == [f"127.0.0.1:{env['API_PORT']}", f"127.0.0.1:{env['REALTIME_PORT']}"]
    assert contract["serverVersion"] == VERSION
    for port in urls:
        assert pages[f"{port}/healthz"].json()["version"] == VERSION
        assert f'relay_build_info{{version="{VERSION}"}} 1.0' in pages[f"{port}/metrics"].text


def test_changelog_has_the_version_with_a_date() -> None:
    """An entry names it: with its date, or as unreleased."""
    text = (ROOT / "CHANGELOG.md").read_text()

    assert f"\n## {VERSION} · " in text
