"""Making a backup of an embedded installation while it runs."""

import contextlib
import fcntl
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from actions import archive
from actions.relay import Relay
from domain import times
from domain.backups import FORMAT, DatabasePart, KeysPart, Manifest, RecordingsPart
from domain.errors import ConfigurationError
from keyring.vault import Vault
from persistence import snapshots
from persistence.sealed_columns import Sealed
from persistence.snapshots import Snapshot

# What is being done, how much of it is done, and how much there is.
OnProgress = Callable[[str, int, int], None]


@dataclass
class Backup:
    """A backup in the making. `absent` fills with the keys of recordings that were removed meanwhile."""

    manifest: Manifest
    _relay: Relay
    _secrets: bytes | None
    _database: BufferedReader
    _snapshot: Snapshot
    _on_progress: OnProgress
    absent: list[str] = field(default_factory=list)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the file from its beginning to its end, once."""
        writer = archive.Writer(time.time())
        for name, content in ((archive.MANIFEST, self.manifest.to_json()), (archive.SECRETS, self._secrets)):
            if content is not None:
                async for chunk in writer.member(name, len(content), archive.in_one(content)):
                    yield chunk
        size = self.manifest.database.size
        async for chunk in writer.member(archive.DATABASE, size, _content(self._database, size, self._on_progress)):
            yield chunk
        if self.manifest.recordings.included:
            async for chunk in self._recordings(writer):
                yield chunk
        async for chunk in writer.end():
            yield chunk

    async def _recordings(self, writer: archive.Writer) -> AsyncGenerator[bytes, None]:
        # A recording is written once and never changed, so those the database knows are whole whenever they are read.
        done = 0
        for recording in self._snapshot.recordings():
            try:
                size = await self._relay.store.size(recording.key)
                async with aclosing(self._relay.store.read(recording.key)) as content:
                    # One that was just removed is noticed here, before its name stands in the file.
                    first = await anext(content, b"")
                    async for chunk in writer.member(archive.RECORDINGS + recording.key, size, _all(first, content)):
                        yield chunk
            except FileNotFoundError:
                self.absent.append(recording.key)
            done += recording.size
            self._on_progress("recordings", done, self.manifest.recordings.size)


@contextlib.asynccontextmanager
async def backing_up(
    relay: Relay,
    database: Path,
    *,
    version: str,
    secrets: bytes | None,
    includes_recordings: bool,
    on_progress: OnProgress,
) -> AsyncIterator[Backup]:
    """Copy the database as it is now, and return the backup whose `chunks` are yet to be written.

    `secrets` is the content of secrets.json, None to leave it out. Requests are served meanwhile.

    Raises:
        ConfigurationError: if another backup is being made.
    """
    with _copied(database, on_progress) as (file, snapshot):
        manifest = Manifest(
            format=FORMAT,
            version=version,
            made_at=times.now(),
            database=DatabasePart(
                size=os.fstat(file.fileno()).st_size,
                sha256=_sha256(file),
                migrations=snapshot.migrations(),
                rows=snapshot.rows(),
            ),
            recordings=_recordings_part(snapshot, included=includes_recordings),
            keys=_keys_part(relay.vault, snapshot.sealed(), included=secrets is not None),
        )
        yield Backup(manifest, relay, secrets, file, snapshot, on_progress)


@contextlib.contextmanager
def _copied(database: Path, on_progress: OnProgress) -> Iterator[tuple[BufferedReader, Snapshot]]:
    draft = database.with_suffix(".backup-draft")
    with _only_one(database.with_suffix(".backing-up")):
        draft.unlink(missing_ok=True)  # a backup that was killed may have left its own
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        try:
            snapshots.copy(database, draft, lambda done, total: on_progress("database", done, total))
            with draft.open("rb") as file, contextlib.closing(Snapshot(draft)) as snapshot:
                snapshot.migrations()  # opens the file
                # Both have it open: without a name it goes away with this process, however that ends.
                draft.unlink()
                yield file, snapshot
        finally:
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError("Another backup of this database is being made. Wait until it is over.") from error
        yield


def _sha256(file: BufferedReader) -> str:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


async def _content(file: BufferedReader, size: int, on_progress: OnProgress) -> AsyncGenerator[bytes, None]:
    done = 0
    while chunk := file.read(archive.CHUNK):
        yield chunk
        done += len(chunk)
        on_progress("database, compressed", done, size)


async def _all(first: bytes, rest: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    yield first
    async for chunk in rest:
        yield chunk


def _recordings_part(snapshot: Snapshot, *, included: bool) -> RecordingsPart:
    count = size = 0
    for recording in snapshot.recordings():
        count, size = count + 1, size + recording.size
    return RecordingsPart(included=included, count=count, size=size)


def _keys_part(vault: Vault, sealed: Iterator[Sealed], *, included: bool) -> KeysPart:
    opened = Counter(vault.sealed_by(one.text) for one in sealed)
    unopened = opened.pop(None, 0)
    sealing = {fingerprint: count for fingerprint, count in opened.items() if fingerprint is not None}
    return KeysPart(encryption=vault.fingerprints, sealing=sealing, unopened=unopened, included=included)
