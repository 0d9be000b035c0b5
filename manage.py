"""The command line. `python manage.py --help` lists what it can do."""

# ruff: noqa: E402 - the filter has to be there before Connexion is imported

import warnings

# Connexion imports Starlette's test client, which warns everybody about a client it would rather use.
warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import structlog
import typer
import uvicorn
import uvloop
from cryptography.fernet import Fernet
from pydantic import SecretStr
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from actions import administer
from actions.authenticate import identify
from actions.read_audit import AuditLine, audit_entries
from actions.relay import Relay
from actions.set_up_demo import set_up_demo
from actions.text_caller import recover_stranded
from app import create_app, open_relay
from commands.opening import read_settings, run
from commands.upkeep import upkeep
from config import Settings, load_settings
from domain.audit import AuditAction
from domain.errors import ConfigurationError, NotFound, RelayError
from domain.principals import Role
from handlers.protocol import HttpProtocol
from openapi.commands import contract
from persistence import organizations, phone_numbers, users
from persistence.database import open_database
from persistence.models import Organization, User
from realtime import client as realtime_client
from realtime import server as realtime_server
from supervisor import Supervisor

R = TypeVar("R")

_DEMO_FILE = "demo.json"
_DEMO_KEYS = {"superadminEmail", "superadminPassword", "apiKey", "toolSecret", "contactPhone", "organizationPhone"}
_TOKEN_DAYS = 30
_START_SECONDS = 30
_GRACE_SECONDS = 8
_HOUSEKEEPING_SECONDS = 60

log = structlog.get_logger()

out = Console(highlight=False, markup=False)
cli = typer.Typer(
    help="Tether Relay: the voice slice of Tether's API, self-hosted.",
    no_args_is_help=True,
    # A traceback that shows variables shows secrets.
    pretty_exceptions_show_locals=False,
)
org = typer.Typer(help="Organizations: their numbers, region and SMS provider.", no_args_is_help=True)
user = typer.Typer(help="Users and their access tokens.", no_args_is_help=True)
key = typer.Typer(help="API keys, tool secrets and encryption keys.", no_args_is_help=True)
cli.add_typer(org, name="org")
cli.add_typer(user, name="user")
cli.add_typer(key, name="key")
cli.add_typer(contract, name="contract")
cli.add_typer(upkeep)


def main() -> None:
    """Run the command; what goes wrong is one sentence and a non-zero exit."""
    try:
        cli()
    except RelayError as error:
        print(f"tether-relay: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


# Running


@cli.command()
def up() -> None:
    """Start the API and the broadcaster together, with a demo organization on first use."""
    settings = read_settings()
    for host, port, name in _addresses(settings):
        _bind(host, port, name).close()
    open_and_migrate(settings)
    credentials = asyncio.run(_demo(settings))
    with Supervisor([[__file__, "serve"], [__file__, "broadcast"]]) as supervisor:
        if _wait_until_ready(settings, lambda: supervisor.is_running):
            _show(credentials, settings)
        status = supervisor.wait()
    sys.exit(status)


@cli.command()
def serve() -> None:
    """Start the API."""
    settings = read_settings()
    listening = _bind(settings.api_host, settings.api_port, "API")
    uvloop.run(_serve(settings, listening))


@cli.command()
def broadcast() -> None:
    """Start the realtime broadcaster."""
    settings = read_settings()
    asyncio.run(_broadcast(settings))


@cli.command()
def migrate() -> None:
    """Bring the database up to date."""
    applied = open_and_migrate(read_settings())
    out.print(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")


@cli.command()
def listen(
    url: Annotated[str, typer.Option(help="The broadcaster; by default the one on this machine.")] = "",
    token: Annotated[str, typer.Option(envvar="RELAY_TOKEN", help="An API key or JWT.")] = "",
    since: Annotated[int | None, typer.Option(help="Begin after this sequence.")] = None,
    event: Annotated[list[str] | None, typer.Option(help="Only events of this name; may be repeated.")] = None,
    contact: Annotated[str | None, typer.Option(help="Only events about this contact.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Only events of this conversation.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each frame as one line of JSON.")] = False,
) -> None:
    """Print events as they happen, reconnecting and resuming by itself."""
    settings = load_settings()
    token = token or _demo_credentials(settings).get("apiKey", "")
    if not token:
        raise ConfigurationError("Give an API key or JWT with --token or in RELAY_TOKEN.")
    url = url or settings.local_realtime_url
    try:
        frames = realtime_client.listen(
            url, token, since=since, events=event, contact_id=contact, conversation_id=conversation, on_retry=_say_retry
        )
        asyncio.run(_print(frames, as_json=as_json))
    except KeyboardInterrupt:
        sys.exit(0)


# Organizations


@org.command("add")
def org_add(
    name: str, region: Annotated[str | None, typer.Option(help="Where national numbers are read: CA, GB …")] = None
) -> None:
    """Create an organization."""
    created = run(lambda relay: administer.create_organization(relay, name, region))
    out.print(f"Created {created.name} with the id {created.id}.")


@org.command("list")
def org_list() -> None:
    """List the organizations and their numbers."""
    table = Table("id", "name", "region", "numbers")
    for organization, numbers in run(lambda relay: relay.database.read(_everyone)):
        table.add_row(organization.id, organization.name, organization.default_region or "", ", ".join(numbers))
    out.print(table)


@org.command("region")
def org_region(organization: str, region: str) -> None:
    """Set the region in which the organization's national phone numbers are read."""
    run(lambda relay: _of(relay, organization, lambda found: administer.set_default_region(relay, found.id, region)))
    out.print(f"National numbers are now read as numbers of {region.upper()}.")


@org.command("number")
def org_number(
    organization: str,
    number: str,
    label: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Send texts from it unless another was called.")] = False,
) -> None:
    """Give the organization a phone number."""
    added = run(
        lambda relay: _of(
            relay,
            organization,
            lambda found: administer.add_phone_number(relay, found.id, number, label=label, is_default=default),
        )
    )
    out.print(f"Added {added.number}.")


@org.command("sms")
def org_sms(
    organization: str,
    provider: Annotated[str, typer.Argument(help="twilio, sinch, textgrid or console")],
    credentials: Annotated[
        Path | None, typer.Option(help="A JSON file with the credentials; - reads them here.")
    ] = None,
) -> None:
    """Choose the organization's SMS provider. Credentials come from a file, never from the command line."""
    document = _read_credentials(credentials)
    run(
        lambda relay: _of(
            relay, organization, lambda found: administer.configure_sms(relay, found.id, provider, document)
        )
    )
    out.print(f"Texts now go through {provider}.")


@org.command("contact")
def org_contact(organization: str, number: str, name: str) -> None:
    """Add a contact."""
    added = run(
        lambda relay: _of(relay, organization, lambda found: administer.add_contact(relay, found.id, number, name))
    )
    out.print(f"Added {added.name} with the id {added.id}.")


# Users and keys


@user.command("add")
def user_add(
    organization: str,
    email: str,
    full_name: Annotated[str, typer.Option("--name", help="The person's name.")],
    role: Annotated[Role, typer.Option(help="What the person may do.")] = Role.AGENT,
    password: Annotated[str, typer.Option(envvar="RELAY_PASSWORD", prompt=True, hide_input=True)] = "",
) -> None:
    """Create a user; the password is asked for or read from RELAY_PASSWORD."""
    created = run(
        lambda relay: _of(
            relay,
            organization,
            lambda found: administer.create_user(
                relay, found.id, email=email, full_name=full_name, password=SecretStr(password), role=role
            ),
        )
    )
    out.print(f"Created {created.email} with the id {created.id}.")


@user.command("token")
def user_token(
    email: str, days: Annotated[float, typer.Option(min=0, max=3650, help="How long it is good for.")] = 1
) -> None:
    """Print an access token (JWT) for the user."""
    token = run(lambda relay: administer.issue_token(relay, email, days * 86_400))
    out.print(token.get_secret_value(), soft_wrap=True)


@user.command("list")
def user_list(organization: Annotated[str | None, typer.Argument(help="Only of this organization.")] = None) -> None:
    """List the users and what they may do."""
    table = Table(Column("email", overflow="fold"), "name", "role", Column("id", no_wrap=True), "organization")

    async def act(relay: Relay) -> list[User]:
        if organization is None:
            return await relay.database.read(users.everyone)
        return await _of(relay, organization, lambda found: relay.database.read(lambda: users.everyone(found.id)))

    for found in run(act):
        table.add_row(found.email, found.full_name, found.role, found.id, found.organization_id)
    out.print(table)


@user.command("password")
def user_password(
    email: str,
    password: Annotated[
        str, typer.Option(envvar="RELAY_PASSWORD", prompt=True, confirmation_prompt=True, hide_input=True)
    ] = "",
) -> None:
    """Change the user's password; every token they have stops working."""
    run(lambda relay: administer.change_password(relay, email, SecretStr(password)))
    out.print(f"Changed the password of {email} and signed them out everywhere.")


@user.command("sign-out")
def user_sign_out(email: str) -> None:
    """Make every token of the user worthless; their API key stays."""
    run(lambda relay: administer.sign_out_user(relay, email))
    out.print(f"Signed {email} out everywhere.")


@key.command("api")
def key_api(
    email: str,
    renew: Annotated[bool, typer.Option("--renew", help="Make a new one; the old one stops working.")] = False,
) -> None:
    """Print the user's API key, made on first use."""

    async def act(relay: Relay) -> SecretStr:
        found = await relay.database.read(lambda: users.by_email(email))
        if found is None:
            raise NotFound(f"There is no user {email}.")
        return await administer.api_key_of(relay, found.organization_id, found.id, renew=renew)

    out.print(run(act).get_secret_value())


@key.command("tool")
def key_tool(organization: str) -> None:
    """Make a fresh tool secret; the one before it keeps working for the overlap."""
    secret = run(lambda relay: _of(relay, organization, lambda found: administer.new_tool_secret(relay, found.id)))
    out.print(secret.get_secret_value())


@key.command("encryption")
def key_encryption() -> None:
    """Print a new key for ENCRYPTION_KEYS."""
    out.print(Fernet.generate_key().decode())


# The audit log


@cli.command("audit")
def audit_command(
    organization: Annotated[str | None, typer.Option(help="Only of this organization.")] = None,
    action: Annotated[AuditAction | None, typer.Option(help="Only of this kind.")] = None,
    since: Annotated[str | None, typer.Option(help="From this moment on: 2026-05-15T09:10:00Z.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show who did what to secrets, recordings and people, newest first."""
    entries = run(lambda relay: audit_entries(relay, organization, action=action, since=since, limit=limit))
    for entry in entries:
        if as_json:
            print(_json(asdict(entry)), flush=True)  # noqa: T201
        else:
            out.print(_audited(entry), soft_wrap=True)


def _audited(entry: AuditLine) -> Text:
    line = Text(f"{entry.at}  ", style="dim").append(f"{entry.action:<22}", style="bold cyan")
    facts = [entry.who, entry.client, entry.subject, *(f"{name}={value}" for name, value in entry.details.items())]
    return line.append("  ".join(fact for fact in facts if fact), style="default")


# How commands work


def open_and_migrate(settings: Settings) -> list[str]:
    """Apply pending migrations and return their names."""
    database = open_database(settings.resolved_database_url)
    try:
        return database.migrate()
    finally:
        database.close()


async def _of(relay: Relay, organization: str, act: Callable[[Organization], Awaitable[R]]) -> R:
    found = await relay.database.read(lambda: organizations.get(organization) or organizations.by_name(organization))
    if found is None:
        raise NotFound(f"There is no organization {organization!r}; `manage.py org list` shows them all.")
    return await act(found)


def _everyone() -> list[tuple[Organization, list[str]]]:
    return [
        (organization, [number.number for number in phone_numbers.everyone(organization.id)])
        for organization in organizations.everyone()
    ]


def _read_credentials(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        document = json.loads(sys.stdin.read() if str(path) == "-" else path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The credentials cannot be read from {path}: {error}.") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} must hold one JSON object.")
    return document


# How servers work


def _addresses(settings: Settings) -> list[tuple[str, int, str]]:
    return [
        (settings.api_host, settings.api_port, "API"),
        (settings.realtime_host, settings.realtime_port, "REALTIME"),
    ]


def _bind(host: str, port: int, name: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no address"
        raise ConfigurationError(
            f"Cannot listen on {host}:{port}: {reason}. Set {name}_HOST and {name}_PORT to a free address."
        ) from error
    return listening


class _Server(uvicorn.Server):
    """Stops on SIGTERM and SIGINT like uvicorn's own, but returns, so that what we opened is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _serve(settings: Settings, listening: socket.socket) -> None:
    async with open_relay(settings) as relay:
        config = uvicorn.Config(
            create_app(relay),
            loop="none",
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        house = asyncio.create_task(_keep_house(relay))
        try:
            await _Server(config).serve(sockets=[listening])
        finally:
            house.cancel()


async def _keep_house(relay: Relay) -> None:
    while True:
        try:
            stranded = await recover_stranded(relay)
            if stranded:
                log.warning("sms.stranded", messages=stranded)
        except RelayError as error:
            log.warning("housekeeping.failed", reason=str(error))
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)


async def _broadcast(settings: Settings) -> None:
    async with open_relay(settings) as relay:
        await realtime_server.serve(
            relay.database,
            partial(identify, relay),
            host=settings.realtime_host,
            port=settings.realtime_port,
            allowed_origins=settings.realtime_allowed_origins,
            retention_hours=settings.event_retention_hours,
        )


async def _print(frames: AsyncIterator[dict[str, Any]], *, as_json: bool) -> None:
    async for frame in frames:
        if as_json:
            print(_json(frame), flush=True)  # noqa: T201
        else:
            out.print(_line(frame), soft_wrap=True)


def _line(frame: dict[str, Any]) -> Text:
    if frame["type"] != "event":
        facts = {name: value for name, value in frame.items() if name != "type"}
        return Text(f"{frame['type']}  {_json(facts)}", style="dim")
    line = Text(f"{frame['at']}  {frame['seq']:>6}  ", style="dim")
    line.append(f"{frame['event']:<22}", style="bold cyan")
    return line.append(_json(frame["data"]), style="default")


def _json(document: dict[str, Any]) -> str:
    # What a caller said must not command the terminal; JSON itself only escapes some of the control characters.
    text = json.dumps(document, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def _say_retry(seconds: float, reason: str) -> None:
    Console(stderr=True, highlight=False, markup=False).print(
        f"{reason}; trying again in {seconds:.1f} s", style="yellow"
    )


# The demo


def _demo_credentials(settings: Settings) -> dict[str, str]:
    path = settings.data_dir / _DEMO_FILE
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
        if not isinstance(found, dict) or (found and not found.keys() >= _DEMO_KEYS):
            raise ValueError("something is missing")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read; repair it, or remove it to go on without it.") from error
    return found


async def _demo(settings: Settings) -> dict[str, str]:
    async with open_relay(settings) as relay:
        made = await set_up_demo(relay)
        credentials = _demo_credentials(settings)
        if made is not None:
            credentials = {
                "superadminEmail": made.superadmin_email,
                "superadminPassword": made.superadmin_password.get_secret_value(),
                "apiKey": made.api_key.get_secret_value(),
                "toolSecret": made.tool_secret.get_secret_value(),
                "contactPhone": made.contact_phone,
                "organizationPhone": made.organization_phone,
            }
        if credentials:
            token = await administer.issue_token(relay, credentials["superadminEmail"], _TOKEN_DAYS * 86_400)
            credentials |= {
                "apiUrl": settings.local_url,
                "realtimeUrl": settings.local_realtime_url,
                "superadminToken": token.get_secret_value(),
            }
            _write_private(settings.data_dir / _DEMO_FILE, credentials)
    return credentials


def _write_private(path: Path, document: dict[str, str]) -> None:
    draft = path.with_suffix(".tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file, indent=2)
    draft.replace(path)


def _wait_until_ready(settings: Settings, is_running: Callable[[], bool]) -> bool:
    pages = [
        f"{settings.local_url}/healthz",
        str(httpx.URL(settings.local_realtime_url).copy_with(scheme="http", path="/healthz")),
    ]
    deadline = time.monotonic() + _START_SECONDS
    while is_running() and time.monotonic() < deadline:
        if all(_answers(page) for page in pages):
            return True
        time.sleep(0.1)
    return False


def _answers(page: str) -> bool:
    try:
        return httpx.get(page, trust_env=False, timeout=1).is_success
    except httpx.HTTPError:
        return False


def _show(demo: dict[str, str], settings: Settings) -> None:
    if not demo:
        print(f"\nTether Relay is running at {settings.local_url}. Ctrl-C stops it; its data stays.\n", flush=True)  # noqa: T201
        return
    api, tool, phone = demo["apiUrl"], demo["toolSecret"], demo["contactPhone"]
    tools = f"{api}/api/webhook/elevenlabs/tools"
    print(  # noqa: T201
        f"""
Tether Relay is running. Ctrl-C stops it; its data stays.

  API          {api}     (try it in a browser: {api}/docs)
  Realtime     {demo["realtimeUrl"]}
  Superadmin   {demo["superadminEmail"]} / {demo["superadminPassword"]}
  API key      {demo["apiKey"]}
  Tool secret  {tool}
  Contact      {phone}
  Our number   {demo["organizationPhone"]}

Save a note, as the agent does in the middle of a call:

{_curl(f"{tools}/create-note", tool, {"phone_number": phone, "note": "Wants a callback on Friday."})}

Text the caller (the demo's provider only writes to the log):

{_curl(f"{tools}/send-sms", tool, {"phone_number": phone, "message": "Here is the link we spoke about."})}

Ask for a person:

{_curl(f"{tools}/transfer", tool, {"reason": "Caller asked for a supervisor"})}

Push a finished call:

{_curl(f"{api}/api/calls/ingest", demo["apiKey"], _EXAMPLE_CALL)}

Configure voice AI:

{_curl(f"{api}/api/calls/voice-ai/config", demo["superadminToken"], {"sinchEstTrunkDomain": "example.sip.sinch.com"})}

Listen to what happens:

  {_python()} manage.py listen

The same for scripts: {settings.data_dir / _DEMO_FILE}
""",
        flush=True,
    )


def _python() -> str:
    relative = os.path.relpath(sys.executable)
    return sys.executable if relative.startswith("..") else relative


_EXAMPLE_CALL = {
    "direction": "outbound",
    "fromNumber": "+12362320246",
    "toNumber": "+14165550100",
    "duration": 0,
    "status": "no-answer",
    "externalCallId": "demo-call-1",
}


def _curl(url: str, token: str, body: dict[str, object]) -> str:
    return f"""  curl -s {url} \\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' \\
    -d '{json.dumps(body)}'"""


if __name__ == "__main__":
    main()
