"""Restoring, where a process cannot be stopped at the right place: in the last steps."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from actions.back_up import backing_up
from actions.restore import Target, restore
from app import open_relay
from config import Settings, load_settings
from persistence import organizations
from persistence.database import Database
from providers.storage.disk import DiskStore


def quiet(*_: object) -> None:
    """Show no progress."""


@pytest.fixture
def engine() -> str:
    """What is restored is the embedded database."""
    return "sqlite"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(_env_file=None, data_dir=tmp_path / "var")


@pytest.fixture
async def backup(settings: Settings, tmp_path: Path) -> Path:
    """Make a backup with one organization."""
    file = tmp_path / "backup.tar.gz"
    async with open_relay(settings) as relay:
        relay.database.migrate()
        await relay.database.write(lambda: organizations.add("Backed up", "CA"))
        making = backing_up(
            relay,
            settings.data_dir / "relay.db",
            version="1",
            secrets=None,
            includes_recordings=True,
            on_progress=quiet,
        )
        async with making as made:
            file.write_bytes(b"".join([chunk async for chunk in made.chunks()]))
    return file


def target(settings: Settings, folder: Path) -> Target:
    return Target(
        database=folder / "relay.db",
        store=DiskStore(folder / "recordings", b"", "http://127.0.0.1"),
        keys=settings.encryption_keys,
        has_own_keys=True,
        secrets_file=folder / "secrets.json",
        replaces=True,
    )


def names(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM organization")]


async def test_new_epochs_begin_before_the_restored_database_can_be_seen(
    backup: Path, settings: Settings, tmp_path: Path
) -> None:
    """A listener that connects right after the last step must be told."""
    there = tmp_path / "there" / "relay.db"
    seen = list[tuple[list[str], bool]]()

    async def begin(database: Database) -> None:
        found = await database.read(organizations.everyone)
        seen.append(([one.name for one in found], there.exists()))
        await database.write(lambda: organizations.add("Begun", "CA"))

    with backup.open("rb") as file:
        await restore(file, target(settings, there.parent), on_progress=quiet, begin_new_epochs=begin)

    assert seen == [(["Backed up"], False)]
    assert names(there) == ["Backed up", "Begun"]


@pytest.mark.parametrize("step", ["actions.restore._put_aside", "pathlib.Path.replace"])
async def test_restore_that_fails_in_its_last_steps_leaves_the_database_there_was(
    backup: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """With the keys that open it, and nothing beside it."""
    there = tmp_path / "there"
    first = target(settings, there)
    with backup.open("rb") as file:
        await restore(file, first, on_progress=quiet)
    with closing(sqlite3.connect(there / "relay.db", isolation_level=None)) as database:
        database.execute("UPDATE organization SET name = 'Before'")
    before = sorted(path.name for path in there.iterdir())

    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(step, fail)
    with backup.open("rb") as file, pytest.raises(OSError, match="the disk is gone"):
        await restore(file, first, on_progress=quiet)
    monkeypatch.undo()

    assert names(there / "relay.db") == ["Before"]
    assert sorted(path.name for path in there.iterdir()) == before


async def test_keys_are_tried_even_if_nothing_says_which_they_are(
    backup: Path, settings: Settings, tmp_path: Path
) -> None:
    """A backup that seals nothing needs none."""
    there = tmp_path / "there"
    wanted = target(settings, there)
    bare = Target(wanted.database, wanted.store, None, has_own_keys=False, secrets_file=wanted.secrets_file)
    with backup.open("rb") as file:
        restored = await restore(file, bare, on_progress=quiet)

    assert restored.took_secrets is False
    assert isinstance(settings.encryption_keys, SecretStr)
    assert names(there / "relay.db") == ["Backed up"]
