"""Backups of an embedded installation: making, verifying and restoring them."""

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from typer.core import TyperGroup

from actions.back_up import Backup, backing_up
from actions.begin_new_epochs import begin_new_epochs
from actions.relay import Relay
from actions.restore import Contents, Restored, Target, check, restore
from app import open_relay, open_store
from commands.opening import look_at_settings, read_settings, refuse_newer
from commands.terminal import bytes_out, complain, meter, show
from config import Settings, kept_secrets
from domain.backups import Manifest
from domain.errors import BackupRejected, ConfigurationError
from persistence.database import embedded_path
from providers.storage.disk import DiskStore
from providers.storage.keys import RecordingStore
from version import VERSION

_STANDARD_OUTPUT = "-"
_IN_BUCKET = "backups/"
_GUIDE = "docs/back-up-and-restore.md"
_TABLES = {
    "organization": "organizations",
    "user": "users",
    "contact": "contacts",
    "call": "calls",
    "message": "texts",
    "contact_note": "notes",
    "event": "events",
    "audit_entry": "audit entries",
}

FromBucket = Annotated[bool, typer.Option("--from-bucket", help="FILE is the name of a backup in the bucket.")]


class _MakesOneByDefault(TyperGroup):
    """A group whose first word is the file of a backup to make, unless it is a command."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        if arguments and arguments[0] not in {*self.commands, "--help"}:
            arguments = ["make", *arguments]
        return super().parse_args(context, arguments)


backup = typer.Typer(
    cls=_MakesOneByDefault,
    no_args_is_help=True,
    help="Back up a running installation: `backup FILE`, `backup -` for a pipe; `backup verify FILE` checks one.",
)

restoring = typer.Typer()


@backup.command("make")
def backup_make(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to, such as relay.tar.gz; - is standard output.")],
    to_bucket: Annotated[
        bool, typer.Option("--to-bucket", help="Put it into the bucket of the recordings, as backups/FILE.")
    ] = False,
    recordings: Annotated[
        bool | None,
        typer.Option(
            "--recordings/--no-recordings",
            help="With or without recordings; by default with those on disk, without those in a bucket.",
            show_default=False,
        ),
    ] = None,
    secrets: Annotated[
        bool, typer.Option("--secrets/--no-secrets", help="With or without secrets.json, if it is in use.")
    ] = True,
) -> None:
    """Back up the database, recordings and secrets while everything runs; needs no stop."""
    _check_destination(file, to_bucket=to_bucket)
    settings, database = _embedded(_existing())
    kept = json.dumps(kept_secrets(settings)).encode() if secrets and kept_secrets(settings) else None
    included = recordings if recordings is not None else settings.r2_bucket is None

    async def act() -> tuple[Backup, int]:
        async with open_relay(settings) as relay:
            refuse_newer(relay.database)
            with meter() as shown:
                making = backing_up(
                    relay,
                    database,
                    version=VERSION,
                    secrets=kept,
                    includes_recordings=included,
                    on_progress=shown.report,
                )
                async with making as made:
                    return made, await _write(made, relay, file, to_bucket=to_bucket)

    made, size = asyncio.run(act())
    _tell(made, size, file)


@backup.command("verify")
def backup_verify(file: str, from_bucket: FromBucket = False) -> None:
    """Read a whole backup: digests, structure of the database, rows, recordings. Exits with 1 if anything is wrong."""
    with (
        _opened(file, from_bucket=from_bucket) as content,
        tempfile.TemporaryDirectory(prefix="relay-verify-") as folder,
        meter() as shown,
    ):
        contents = check(content, Path(folder), lambda done, total: shown.report("verified", done, total))
    _show_contents(contents)
    show("The backup is whole.")


@restoring.command("restore")
def restore_command(
    file: str,
    from_bucket: FromBucket = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also if the database holds something; it is kept under another name.")
    ] = False,
) -> None:
    """Restore a backup: verify it, check the keys, then replace the database in one step. Stop the servers first."""
    settings, database = _embedded(look_at_settings())
    target = Target(
        database=database,
        store=open_store(settings),
        keys=settings.encryption_keys,
        has_own_keys=settings.encryption_keys is not None and not kept_secrets(settings),
        secrets_file=settings.secrets_file,
        replaces=replace,
    )

    with _opened(file, from_bucket=from_bucket) as content, meter() as shown:
        restored = asyncio.run(
            restore(
                content,
                target,
                begin_new_epochs=begin_new_epochs,
                on_progress=lambda done, total: shown.report("restored", done, total),
            )
        )
    _show_restored(restored, database)


# Where a backup goes to and comes from


def _check_destination(file: str, *, to_bucket: bool) -> None:
    if not to_bucket and file != _STANDARD_OUTPUT and Path(file).exists():
        raise ConfigurationError(f"{file} exists already. Give another name, so that an older backup stays.")


def _existing() -> Settings:
    """Read the settings of an installation that is there; nothing is made for one that is not."""
    database = embedded_path(look_at_settings().resolved_database_url)
    if database is not None and not database.exists():
        raise ConfigurationError(f"There is no database at {database}. Set DATA_DIR or DATABASE_URL.")
    return read_settings()


def _embedded(settings: Settings) -> tuple[Settings, Path]:
    database = embedded_path(settings.resolved_database_url)
    if database is None:
        raise ConfigurationError(
            "This command is for the embedded database. Back up PostgreSQL with its own tools (pg_dump, or base backups"
            f" and WAL), and the keys and the bucket with it: {_GUIDE} says how. Then run manage.py doctor."
        )
    return settings, database


async def _write(made: Backup, relay: Relay, file: str, *, to_bucket: bool) -> int:
    if to_bucket:
        key = _key(file, relay.store)
        return (await relay.store.store(key, made.chunks(), "application/gzip")).size
    with bytes_out() if file == _STANDARD_OUTPUT else _whole_or_not_at_all(Path(file)) as out:
        size = 0
        async with aclosing(made.chunks()) as chunks:
            async for chunk in chunks:
                out.write(chunk)
                size += len(chunk)
        return size


def _key(name: str, store: RecordingStore) -> str:
    if not _is_bucket(store):
        raise ConfigurationError("There is no bucket: set the R2 settings, or leave out --to-bucket and --from-bucket.")
    return _IN_BUCKET + name


def _is_bucket(store: RecordingStore) -> bool:
    return not isinstance(store, DiskStore)


@contextlib.contextmanager
def _whole_or_not_at_all(path: Path) -> Iterator[BinaryIO]:
    draft = path.with_name(f"{path.name}.partial")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(file: str, *, from_bucket: bool) -> Iterator[BinaryIO]:
    try:
        if not from_bucket:
            with Path(file).open("rb") as content:
                yield content
            return
        with tempfile.TemporaryFile() as content:
            asyncio.run(_download(file, content))
            yield content
    except FileNotFoundError as error:
        raise BackupRejected(f"There is no backup {file}.") from error
    except IsADirectoryError as error:
        raise BackupRejected(f"{file} is a folder, not a backup.") from error


async def _download(name: str, into: BinaryIO) -> None:
    store = open_store(look_at_settings())
    async with aclosing(store.read(_key(name, store))) as chunks:
        async for chunk in chunks:
            into.write(chunk)
    await store.close()


# What is said about it


def _tell(made: Backup, size: int, file: str) -> None:
    """Say what was backed up, on standard error if the backup itself goes to standard output."""
    say = complain if file == _STANDARD_OUTPUT else show
    manifest = made.manifest
    for line in _lines(manifest):
        say(line)
    if made.absent:
        say(f"{len(made.absent)} recordings were removed while the backup was made, and are not in it.")
    if manifest.keys.unopened:
        say(f"{manifest.keys.unopened} stored secrets open with no key of ENCRYPTION_KEYS; run manage.py doctor.")
    if not manifest.keys.included:
        say("The keys are not in the backup. Keep ENCRYPTION_KEYS and JWT_SECRET where they can be found without it.")
    say(f"{size:,} bytes written." if file == _STANDARD_OUTPUT else f"{size:,} bytes written to {file}.")


def _lines(manifest: Manifest) -> list[str]:
    rows, recordings, keys = manifest.database.rows, manifest.recordings, manifest.keys
    counts = ", ".join(f"{rows.get(table, 0)} {words}" for table, words in _TABLES.items())
    schema = (manifest.database.migrations or ["none"])[-1]
    where = "" if recordings.included else ", not in the backup"
    sealed = ", ".join(f"{fingerprint} ({count} secrets)" for fingerprint, count in sorted(keys.sealing.items()))
    return [
        f"Made at {manifest.made_at} by version {manifest.version}, schema {schema}.",
        f"{counts}.",
        f"{recordings.count} recordings of {recordings.size:,} bytes{where}.",
        f"Encryption keys in use: {sealed or 'none'}{'; secrets.json is in the backup' if keys.included else ''}.",
    ]


def _show_contents(contents: Contents) -> None:
    show(*_lines(contents.manifest))
    if contents.absent:
        show(f"{len(contents.absent)} recordings were removed while the backup was made, and are not in it.")


def _show_restored(restored: Restored, database: Path) -> None:
    _show_contents(restored.contents)
    if restored.migrated:
        show(f"Applied {', '.join(restored.migrated)}.")
    if restored.took_secrets:
        show("The secrets came from the backup.")
    if restored.missing:
        show(f"{restored.missing} recordings are not in the backup, and not in the store either.")
    if restored.aside is not None:
        show(f"The database that was there is kept as {restored.aside}. Remove it when it is no longer needed.")
    show(f"Restored to {database}: {restored.stored} recordings written.")
    show("Start the servers, then run manage.py doctor.")
