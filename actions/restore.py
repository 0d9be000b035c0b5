"""Checking a backup, and restoring one in place of an embedded database.

What a restore writes cannot be seen until its last step, which replaces the database in one rename. Whatever ends it
before leaves the database there was; recordings it has stored by then belong to no call, and `sweep` finds them.
"""

import contextlib
import json
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydantic import SecretStr

from actions import archive
from actions.archive import Member
from domain import times
from domain.backups import Manifest, read_manifest
from domain.errors import BackupRejected, ConfigurationError
from keyring.vault import Vault
from persistence import migrating, presence
from persistence.database import Database, open_database
from persistence.snapshots import Snapshot
from providers.storage.keys import RecordingStore

_DRAFT = "restoring"

# How many bytes of the backup were read, and how many it has.
OnProgress = Callable[[int, int], None]

BeginNewEpochs = Callable[[Database], Awaitable[None]]


@dataclass(frozen=True)
class Secrets:
    """The secrets a data folder had: the content of its secrets.json."""

    jwt_secret: str = field(repr=False)
    encryption_keys: str = field(repr=False)

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps({"jwtSecret": self.jwt_secret, "encryptionKeys": self.encryption_keys})


@dataclass
class Contents:
    """What is in a backup, once all of it was read and found whole; `database` is its copy of the database.

    `absent` are recordings that were removed while the backup was made.
    """

    manifest: Manifest
    database: Path
    secrets: Secrets | None
    recordings: int
    absent: list[str]

    def unopened(self, keys: SecretStr | None) -> int:
        """Return how many of the stored secrets no key in `keys` opens."""
        vault = None if keys is None else Vault(keys)
        with contextlib.closing(Snapshot(self.database)) as snapshot:
            return sum(vault is None or vault.sealed_by(one.text) is None for one in snapshot.sealed())


@dataclass(frozen=True)
class Target:
    """Where to restore to.

    `keys` are the encryption keys in use there, if any; `has_own_keys` tells whether they are set outside of
    `secrets_file`, which then is no place for others. With `replaces` a database that holds something is replaced and
    kept aside.
    """

    database: Path
    store: RecordingStore
    keys: SecretStr | None
    has_own_keys: bool
    secrets_file: Path
    replaces: bool = False


@dataclass(frozen=True)
class Restored:
    """What came: the backup's contents, and what was done with them.

    `aside` is where the database that was replaced is kept. `missing` counts recordings of a bucket that is not part of
    the backup and does not hold them.
    """

    contents: Contents
    stored: int
    missing: int
    migrated: list[str]
    took_secrets: bool
    aside: Path | None


def check(backup: BinaryIO, folder: Path, on_progress: OnProgress) -> Contents:
    """Read the whole backup and verify it: every digest, the database's own structure, its rows, its recordings.

    The copy of the database is put into `folder`, and nothing else is written.

    Raises:
        BackupRejected: if anything is wrong.
    """
    manifest: Manifest | None = None
    secrets: Secrets | None = None
    database, found = folder / archive.DATABASE, dict[str, str]()
    for member in _read(backup, on_progress):
        if manifest is None:
            if member.name != archive.MANIFEST:
                raise BackupRejected("The file is not a backup of this program: it does not begin with a manifest.")
            manifest = read_manifest(member.whole())
        elif member.name == archive.SECRETS:
            secrets = _read_secrets(member.whole())
        elif member.name == archive.DATABASE:
            _write(database, member)
            if (member.size, member.digest()) != (manifest.database.size, manifest.database.sha256):
                raise BackupRejected("The database in the backup is not the one its manifest describes.")
        elif member.name.startswith(archive.RECORDINGS):
            found[member.name.removeprefix(archive.RECORDINGS)] = member.digest()
    if manifest is None or not database.exists():
        raise BackupRejected("The file is not a backup of this program: it holds no database.")
    absent = _compare(manifest, database, found)
    return Contents(manifest, database, secrets, len(found), absent)


async def restore(
    backup: BinaryIO,
    target: Target,
    *,
    on_progress: OnProgress,
    begin_new_epochs: BeginNewEpochs | None = None,
) -> Restored:
    """Verify the backup, check the keys, then put its database, recordings and secrets in place.

    `begin_new_epochs` is called with the restored database before anybody else can open it, so that no listener goes
    on from a position that the restored log does not have.

    Raises:
        BackupRejected: if the backup is damaged or of a newer version.
        ConfigurationError: if the database is in use or holds something, or the keys do not open the stored secrets.
    """
    target.database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with presence.alone(target.database), _draft_folder(target.database.parent) as folder:
        holds_something = _holds_something(target.database)
        if holds_something and not target.replaces:
            raise ConfigurationError(
                f"The database {target.database} is not empty. Set DATA_DIR to an empty folder, or give --replace: "
                "the database is then kept under another name."
            )
        contents = check(backup, folder, on_progress)
        _refuse_newer(contents.manifest)
        secrets = _secrets_to_take(contents, target)
        missing = await _missing(contents, target.store)
        migrated = await _prepare(contents.database, begin_new_epochs)
        stored = list[str]()
        try:
            async for key in _store(backup, contents, target.store, on_progress):
                stored.append(key)
            aside = _switch(contents, target, secrets, keeps_aside=holds_something)
        except BaseException:
            if contents.database.exists():  # the database of the backup is not in place
                for key in stored:
                    await target.store.remove(key)
            raise
        if secrets is not None:
            _write_secrets(target.secrets_file, secrets)
    return Restored(contents, len(stored), missing, migrated, secrets is not None, aside)


def _read(backup: BinaryIO, on_progress: OnProgress) -> Iterator[Member]:
    total = backup.seek(0, os.SEEK_END)
    backup.seek(0)
    for member in archive.members(backup):
        yield member
        on_progress(backup.tell(), total)
    on_progress(total, total)


def _read_secrets(text: bytes) -> Secrets:
    try:
        kept = json.loads(text)
        return Secrets(str(kept["jwtSecret"]), str(kept["encryptionKeys"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BackupRejected("The secrets.json in the backup does not hold the secrets it was made with.") from error


def _write(path: Path, member: Member) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        for chunk in member.chunks():
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _compare(manifest: Manifest, database: Path, found: dict[str, str]) -> list[str]:
    """Compare what was found with what manifest and database say; return the recordings that are absent."""
    with contextlib.closing(Snapshot(database)) as snapshot:
        problems = snapshot.problems()
        if problems:
            raise BackupRejected(f"The database in the backup is damaged: {problems[0]}. Use another backup.")
        if snapshot.rows() != manifest.database.rows:
            raise BackupRejected("The database in the backup does not hold the rows its manifest counts.")
        absent = list[str]()
        for recording in snapshot.recordings():
            digest = found.get(recording.key)
            if digest is None:
                absent.append(recording.key)
            elif digest != recording.sha256:
                raise BackupRejected(f"The recording {recording.key} in the backup is not the one that was stored.")
        known = manifest.recordings.count
    if len(absent) + len(found) != known:
        raise BackupRejected("The backup holds recordings that belong to no call of its database.")
    return absent if manifest.recordings.included else []


def _refuse_newer(manifest: Manifest) -> None:
    newer = sorted(set(manifest.database.migrations) - migrating.known())
    if newer:
        raise BackupRejected(
            f"The backup was made by version {manifest.version} and has the migration {newer[0]}, which this version "
            "does not know. Restore it with that version or a newer one."
        )


def _secrets_to_take(contents: Contents, target: Target) -> Secrets | None:
    """Return the backup's secrets if they are needed, None if the keys in use open everything.

    Raises:
        ConfigurationError: if neither opens every stored secret.
    """
    own, sealing = contents.secrets, contents.manifest.keys.sealing
    if not _left_unopened(contents, target.keys):
        return None if target.keys is not None else own
    may_take = target.keys is None or (target.replaces and not target.has_own_keys)
    if may_take and own is not None and not _left_unopened(contents, SecretStr(own.encryption_keys)):
        return own
    needed = ", ".join(sorted(sealing))
    raise ConfigurationError(
        "The keys in use do not open the secrets in the backup, so nothing was restored. It was sealed with the keys "
        f"that have the fingerprints {needed} (manage.py key list-encryption shows yours). Set ENCRYPTION_KEYS to them"
        + (f", or give --replace to use the backup's own instead of {target.secrets_file}." if own else ".")
    )


def _left_unopened(contents: Contents, keys: SecretStr | None) -> int:
    # What nothing opened when the backup was made, nothing opens now.
    return max(0, contents.unopened(keys) - contents.manifest.keys.unopened)


async def _prepare(draft: Path, begin_new_epochs: BeginNewEpochs | None) -> list[str]:
    """Bring the database up to date and begin new epochs, while it is still out of everybody's sight."""
    database = open_database(f"sqlite:///{draft}")
    try:
        migrated = database.migrate()
        if begin_new_epochs is not None:
            await begin_new_epochs(database)
        return migrated
    finally:
        database.close()


async def _store(
    backup: BinaryIO, contents: Contents, store: RecordingStore, on_progress: OnProgress
) -> AsyncIterator[str]:
    with contextlib.closing(Snapshot(contents.database)) as snapshot:
        known = {recording.key: recording for recording in snapshot.recordings()}
    for member in _read(backup, on_progress):
        if not member.name.startswith(archive.RECORDINGS):
            continue
        recording = known[member.name.removeprefix(archive.RECORDINGS)]
        if not await _is_there(store, recording.key, recording.size):
            stored = await store.store(recording.key, _chunks(member), recording.content_type)
            yield recording.key
            if stored.sha256 != recording.sha256:
                raise BackupRejected(f"The recording {recording.key} is not the one that was verified.")


async def _is_there(store: RecordingStore, key: str, size: int) -> bool:
    try:
        return await store.size(key) == size
    except FileNotFoundError:
        return False


async def _chunks(member: Member) -> AsyncGenerator[bytes, None]:
    for chunk in member.chunks():
        yield chunk


async def _missing(contents: Contents, store: RecordingStore) -> int:
    """Count recordings that are not part of the backup and that the store does not have."""
    if contents.manifest.recordings.included:
        return 0
    with contextlib.closing(Snapshot(contents.database)) as snapshot:
        known = {recording.key for recording in snapshot.recordings()}
    async with aclosing(store.keys("org/")) as keys:
        async for stored in keys:
            known.discard(stored.key)
    return len(known)


def _switch(contents: Contents, target: Target, secrets: Secrets | None, *, keeps_aside: bool) -> Path | None:
    """Put the database in place in one step.

    Secrets that open the old database and the new one are in place before, so that either opens whatever ends this.
    """
    if secrets is not None:
        _write_secrets(target.secrets_file, _both(secrets, target.keys))
    aside = _put_aside(target.database) if keeps_aside else None
    try:
        # Of a database that is gone; SQLite would take it for the new one's.
        for suffix in ("-wal", "-shm", "-journal"):
            target.database.with_name(target.database.name + suffix).unlink(missing_ok=True)
        contents.database.replace(target.database)
    except BaseException:
        if aside is not None:
            aside.unlink(missing_ok=True)
        raise
    _sync(target.database.parent)
    return aside


def _both(secrets: Secrets, keys: SecretStr | None) -> Secrets:
    if keys is None:
        return secrets
    return Secrets(secrets.jwt_secret, f"{keys.get_secret_value()},{secrets.encryption_keys}")


def _put_aside(database: Path) -> Path:
    """Give the database a second name, so that there is one under the first at all times."""
    stamp = "".join(character for character in times.now() if character.isdigit())
    aside = database.with_name(f"{database.name}.before-{stamp}")
    os.link(database, aside)
    return aside


def _write_secrets(path: Path, secrets: Secrets) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".restoring")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.to_json())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _draft_folder(parent: Path) -> Iterator[Path]:
    folder = parent / _DRAFT
    shutil.rmtree(folder, ignore_errors=True)  # a restore that was killed may have left its own
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _holds_something(database: Path) -> bool:
    if not database.exists():
        return False
    with contextlib.closing(Snapshot(database)) as snapshot:
        try:
            return any(snapshot.rows().values())
        except Exception:  # it cannot be read, so nobody can tell
            return True
