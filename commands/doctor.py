"""Examining an installation: everything that can be wrong, one line each."""

import asyncio
import resource
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

import typer

from actions.examine import Finding, Verdict, broken, examine, examine_public_address, look, ok
from app import open_relay
from commands.opening import look_at_settings
from commands.terminal import complain, show_json, show_parts
from config import Settings
from domain.errors import ConfigurationError, RelayError
from persistence.database import embedded_path
from version import VERSION

_STYLES = {Verdict.OK: "green", Verdict.LOOK: "yellow", Verdict.BROKEN: "bold red"}

doctoring = typer.Typer()


@doctoring.command("doctor")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    vendors: Annotated[
        bool, typer.Option("--vendors/--no-vendors", help="Whether vendors and public addresses are asked.")
    ] = True,
) -> None:
    """Examine settings, database, keys, storage, vendors, clocks and addresses; change nothing.

    Each line is ok, look or broken, and says what to do. Exits with 1 if anything is broken.
    """
    verdicts = asyncio.run(_show(as_json=as_json, vendors=vendors))
    if Verdict.BROKEN in verdicts:
        sys.exit(1)


async def _show(*, as_json: bool, vendors: bool) -> list[Verdict]:
    verdicts = []
    async for finding in _findings(vendors=vendors):
        verdicts.append(finding.verdict)
        if as_json:
            show_json(asdict(finding))
        else:
            style = _STYLES[finding.verdict]
            show_parts((f"{finding.verdict:<7}", style), (f"{finding.subject}: {finding.what}", "default"))
    if not as_json:
        counts = {verdict: verdicts.count(verdict) for verdict in Verdict}
        complain(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + ".")
    return verdicts


async def _findings(*, vendors: bool) -> AsyncIterator[Finding]:
    try:
        settings = look_at_settings()
    except ConfigurationError as error:
        yield broken("settings", str(error))
        return
    for finding in _settings(settings):
        yield finding
    missing = _what_is_missing(settings)
    if missing is not None:
        yield missing
        return
    async for finding in _of_relay(settings, vendors=vendors):
        yield finding
    if vendors:
        for subject, url, expected in _public_addresses(settings):
            yield await examine_public_address(subject, url, expected)


def _settings(settings: Settings) -> list[Finding]:
    findings = [ok("version", VERSION)]
    if settings.data_dir.exists() and settings.data_dir.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        findings.append(look("settings", f"{settings.data_dir} is open to others: chmod 700 {settings.data_dir}"))
    if settings.public_url is None:
        findings.append(look("settings", "PUBLIC_URL is not set: ElevenLabs is not told where to report calls"))
    elif not settings.public_url.startswith("https:"):
        findings.append(look("settings", f"PUBLIC_URL is {settings.public_url}, without TLS: put a proxy in front"))
    if settings.public_url is not None and settings.is_embedded is False and settings.request_counters == "memory":
        findings.append(look("settings", "REQUEST_COUNTERS=memory: each process counts requests for itself"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < settings.max_connections:
        findings.append(
            look("descriptors", f"at most {most} for MAX_CONNECTIONS={settings.max_connections}: raise LimitNOFILE")
        )
    else:
        findings.append(ok("descriptors", "enough for MAX_CONNECTIONS"))
    return findings


def _what_is_missing(settings: Settings) -> Finding | None:
    database = embedded_path(settings.resolved_database_url)
    if database is not None and not database.exists():
        return broken("database", f"there is none at {database}: run manage.py migrate, or set DATA_DIR")
    if settings.encryption_keys is None:
        return broken("keys", f"{settings.secrets_file} is missing: restore it from a backup, or set ENCRYPTION_KEYS")
    return None


async def _of_relay(settings: Settings, *, vendors: bool) -> AsyncIterator[Finding]:
    try:
        async with open_relay(settings) as relay:
            unknown, pending = relay.database.unknown_migrations(), relay.database.pending_migrations()
            if unknown:
                yield broken("database", f"was migrated by a newer version (it has {unknown[-1]}): run that version")
            elif pending:
                yield broken("database", f"{len(pending)} migrations are pending: run manage.py migrate")
            else:
                database = embedded_path(settings.resolved_database_url)
                async for finding in examine(relay, database, settings.data_dir, vendors=vendors):
                    yield finding
    except RelayError as error:
        yield broken("database", str(error))


def _public_addresses(settings: Settings) -> list[tuple[str, str, str]]:
    found = []
    if settings.public_url is not None:
        found.append(("public address", f"{settings.public_url}/openapi.json", '"openapi"'))
    if settings.realtime_public_url is not None:
        root = settings.realtime_public_url.replace("ws", "http", 1).rpartition("/")[0]
        found.append(("public realtime address", f"{root}/events.json", '"asyncapi"'))
    return found
