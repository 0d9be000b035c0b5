"""Examining an installation: each finding is ok, worth a look, or broken, and says what to do."""

import contextlib
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path

import httpx

from actions.configure_voice_ai import WEBHOOK_PATH
from actions.relay import Relay
from actions.stored_secrets import look_at_secrets
from domain.errors import ProviderError, RelayError
from persistence import condition, organizations, readiness, sms_configs, voice_ai_configs
from persistence.models import SmsConfig, VoiceAiConfig

_WAL_BYTES = 512 * 1024 * 1024
_DISK_LEFT_BYTES = 1024 * 1024 * 1024
_DISK_FULL_BYTES = 100 * 1024 * 1024
_CLOCK_SECONDS = 5
_OUTSIDE_SECONDS = 10
_RECORDINGS_TRIED = 100
_MEGABYTE = 1024 * 1024


class Verdict(StrEnum):
    """How something is."""

    OK = "ok"
    LOOK = "look"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One line: what was examined, how it is, and what to do unless it is ok."""

    subject: str
    verdict: Verdict
    what: str


def ok(subject: str, what: str) -> Finding:
    """Return a finding that nothing is to be done about."""
    return Finding(subject, Verdict.OK, what)


def look(subject: str, what: str) -> Finding:
    """Return a finding that somebody should think about."""
    return Finding(subject, Verdict.LOOK, what)


def broken(subject: str, what: str) -> Finding:
    """Return a finding that keeps something from working."""
    return Finding(subject, Verdict.BROKEN, what)


async def examine(relay: Relay, database: Path | None, data_dir: Path, *, vendors: bool) -> AsyncIterator[Finding]:
    """Examine database, keys, storage, clocks and, if wanted, vendors; `database` is the embedded database's file.

    Nothing is changed: what is written to try a place is removed again.
    """
    for subject, work in (("database", _database), ("keys", _keys), ("recordings", _storage), ("recordings", _stored)):
        yield await _tried(subject, work(relay))
    for finding in _files(database, data_dir):
        yield finding
    yield await _tried("clock", _clock(relay))
    for organization in await relay.database.read(organizations.everyone) if vendors else ():
        texts = await relay.database.read(lambda one=organization.id: sms_configs.get(one))  # type: ignore[misc]
        if texts is not None:
            subject = f"texts of {organization.name}"
            yield await _tried(subject, _texts(relay, subject, texts))
        voice = await relay.database.read(lambda one=organization.id: voice_ai_configs.get(one))  # type: ignore[misc]
        if voice is not None and voice.elevenlabs_api_key_sealed is not None:
            subject = f"ElevenLabs of {organization.name}"
            yield await _tried(subject, _elevenlabs(relay, subject, voice))


async def examine_public_address(subject: str, url: str, expected: str) -> Finding:
    """Ask `url` from outside in, through whatever proxies there are; `expected` stands in the answer of ours."""
    request_id = secrets.token_hex(8)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_OUTSIDE_SECONDS) as http:
            answer = await http.get(url, headers={"X-Request-Id": request_id})
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        return look(subject, f"{url} cannot be reached from this machine ({reason}): try it from another one")
    if answer.status_code != 200 or expected not in answer.text:
        return broken(
            subject,
            f"{url} answers {answer.status_code}, and not as this server does: check the proxy in front of it, its "
            "upstream, and DNS",
        )
    drift = _drift(answer.headers.get("date"))
    if drift is not None and abs(drift) > _CLOCK_SECONDS:
        return look(subject, f"{url} has a clock that differs by {drift:.0f} s: synchronize the machines (NTP)")
    return ok(subject, f"{url} leads here")


async def _tried(subject: str, work: Awaitable[Finding]) -> Finding:
    try:
        return await work
    except RelayError as error:
        return broken(subject, str(error))


async def _database(relay: Relay) -> Finding:
    await relay.database.write(readiness.write_something)
    size = await relay.database.read(condition.size)
    return ok("database", f"can be written, has every migration, {_size(size)}")


def _files(database: Path | None, data_dir: Path) -> list[Finding]:
    findings = []
    if database is not None:
        log = database.with_name(database.name + "-wal")
        size = log.stat().st_size if log.exists() else 0
        findings.append(
            look("write-ahead log", f"{_size(size)}: a reader has held it for long; restart processes that hang")
            if size > _WAL_BYTES
            else ok("write-ahead log", _size(size))
        )
    places = {data_dir, *([database.parent] if database else [])}
    disks = [_disk(place, shutil.disk_usage(place).free) for place in sorted(places) if place.exists()]
    return findings + disks


def _disk(place: Path, free: int) -> Finding:
    subject = "disk"
    if free < _DISK_FULL_BYTES:
        return broken(subject, f"{_size(free)} left at {place}: make room now, nothing can be stored soon")
    if free < _DISK_LEFT_BYTES:
        return look(subject, f"{_size(free)} left at {place}: make room")
    return ok(subject, f"{_size(free)} left at {place}")


async def _keys(relay: Relay) -> Finding:
    found = await look_at_secrets(relay)
    if found.problem:
        rows = {f"{sealed.table}.{sealed.column}" for sealed in found.unopened}
        return broken("keys", f"{found.problem} ({', '.join(sorted(rows))})")
    if found.of_older_keys:
        return look(
            "keys", f"{found.of_older_keys} secrets are sealed with an older key: run manage.py key rotate-encryption"
        )
    if found.spare_keys:
        return look("keys", f"{', '.join(found.spare_keys)} in ENCRYPTION_KEYS seals nothing: it may go")
    return ok("keys", f"all {found.total} stored secrets open, with the key {relay.vault.fingerprints[0]}")


async def _storage(relay: Relay) -> Finding:
    key = f"doctor/{secrets.token_hex(12)}"
    try:
        stored = await relay.store.store(key, _once(b"tried"), "text/plain")
        content = b"".join([chunk async for chunk in relay.store.read(key)])
        await relay.store.link(key, 60)
    finally:
        with contextlib.suppress(RelayError):
            await relay.store.remove(key)
    if (content, stored.size) != (b"tried", 5):
        return broken("recordings", "what was written was not read: check the bucket, or the disk")
    try:
        await relay.store.size(key)
    except FileNotFoundError:
        return ok("recordings", "can be written, read, linked to and removed")
    return broken("recordings", "cannot be removed: give the key of the bucket the right to delete objects")


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _stored(relay: Relay) -> Finding:
    keys = await relay.database.read(lambda: condition.newest_recordings(_RECORDINGS_TRIED))
    missing = 0
    for key in keys:
        try:
            await relay.store.size(key)
        except FileNotFoundError:
            missing += 1
    if missing:
        return broken(
            "recordings",
            f"{missing} of the newest {len(keys)} are not in the store: check R2_BUCKET and DATA_DIR, or restore them",
        )
    return ok("recordings", f"the newest {len(keys)} are in the store")


async def _clock(relay: Relay) -> Finding:
    before = time.time()
    there = await relay.database.read(condition.clock)
    drift = None if there is None else there - (before + time.time()) / 2
    if drift is not None and abs(drift) > _CLOCK_SECONDS:
        return look("clock", f"the database's differs by {drift:.0f} s: synchronize the machines (NTP)")
    return ok("clock", "agrees with the database's" if drift is not None else "is the database's own")


def _drift(date: str | None) -> float | None:
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return None


# Each organization's vendors


async def _texts(relay: Relay, subject: str, config: SmsConfig) -> Finding:
    provider = relay.text_provider(config.provider, relay.vault.open_document(config.credentials_sealed))
    if config.provider == "console":
        return look(subject, "go to the log and to nobody: the console provider is for development")
    check: Callable[[], Awaitable[None]] | None = getattr(provider, "check", None)
    if check is None:
        return ok(
            subject, f"{config.provider}: the credentials are complete; only a text shows whether they are accepted"
        )
    try:
        await check()
    except ProviderError as error:
        return broken(subject, f"{config.provider} does not accept the credentials ({error.reason}): set them anew")
    return ok(subject, f"{config.provider} accepts the credentials")


async def _elevenlabs(relay: Relay, subject: str, config: VoiceAiConfig) -> Finding:
    elevenlabs = relay.elevenlabs(relay.vault.open(str(config.elevenlabs_api_key_sealed)))
    if relay.rules.public_url is None:
        return look(
            subject, "PUBLIC_URL is not set, so no finished call is reported: set it and save the configuration"
        )
    try:
        found = await elevenlabs.find_webhook(relay.rules.public_url + WEBHOOK_PATH)
    except ProviderError as error:
        return broken(subject, f"the workspace cannot be asked ({error.reason}): check the API key")
    if found is None:
        return broken(subject, "has no webhook that leads here: save the configuration again")
    if found.id != config.webhook_id:
        return broken(subject, "has a webhook that is not the one set up here: save the configuration again")
    if found.is_disabled or found.is_auto_disabled:
        return broken(
            subject,
            "has switched our webhook off after failed deliveries: see the log, then save the configuration again",
        )
    return ok(subject, "accepts the API key, and its webhook leads here")


def _size(size: int) -> str:
    return f"{size / _MEGABYTE:,.0f} MB"
