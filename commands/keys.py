"""API keys, tool secrets and encryption keys."""

from typing import Annotated

import typer
from cryptography.fernet import Fernet
from pydantic import SecretStr

from actions import administer, control_access
from actions.relay import Relay
from commands.opening import in_organization, run
from commands.terminal import complain, show, show_table
from domain.errors import InvalidRequest
from domain.principals import KeyKind
from persistence.models import Organization

key = typer.Typer(help="API keys, tool secrets and encryption keys.", no_args_is_help=True)


Name = Annotated[str | None, typer.Option(help="Which key; without it the one that GET /api/user/api-key shows.")]


@key.command("api")
def key_api(
    email: str,
    name: Name = None,
    kind: Annotated[KeyKind, typer.Option(help="What a new key with a name opens.")] = KeyKind.BOTH,
    expires: Annotated[
        str | None, typer.Option(help="When a new key with a name ends: 2027-05-15T09:10:00Z.", metavar="MOMENT")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Make a new secret; the old one stops working.")] = False,
    overlap: Annotated[
        float | None,
        typer.Option(min=0, metavar="MINUTES", help="How long the old secret keeps working; API_KEY_OVERLAP_MINUTES."),
    ] = None,
) -> None:
    """Print the user's API key, made on first use; with --name make another one, which is shown this once."""
    seconds = None if overlap is None else overlap * 60
    if name is None and (kind is not KeyKind.BOTH or expires is not None):
        raise InvalidRequest("The first key opens everything and has no end; give the key a --name")

    async def act(relay: Relay) -> SecretStr:
        if name is None:
            return await control_access.first_key(relay, email, renew=renew, overlap=seconds)
        made = await control_access.named_key(
            relay, email, name, kind=kind, expires_at=expires, renew=renew, overlap=seconds
        )
        return made.secret

    show(run(act).get_secret_value())


@key.command("list")
def key_list(email: str) -> None:
    """List the user's API keys, without their secrets."""
    found = run(lambda relay: control_access.keys_of(relay, email))
    rows = [
        (one.name, one.kind.value, one.created_at, one.last_used_at or "never", one.expires_at or "") for one in found
    ]
    show_table(("name", "kind", "made", "last used", "ends"), rows)


@key.command("revoke")
def key_revoke(
    email: str,
    name: Annotated[str | None, typer.Option(help="Which key.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every key of the user.")] = False,
) -> None:
    """Revoke an API key of the user, or all of them; requests and sockets with it end within seconds."""
    if (name is None) is not every:
        raise InvalidRequest("Say which key with --name, or --all")
    revoked = run(lambda relay: control_access.revoke_keys(relay, email, name))
    show(f"Revoked {', '.join(revoked)}." if revoked else f"{email} has no API key.")


@key.command("tool")
def key_tool(organization: str) -> None:
    """Make a fresh tool secret, also at ElevenLabs if agents are connected; the one before it works for the overlap."""

    async def act(relay: Relay) -> tuple[SecretStr, str | None]:
        async def renewed(found: Organization) -> tuple[SecretStr, str | None]:
            secret = await administer.new_tool_secret(relay, found.id)
            return secret, await administer.tool_secret_problem(relay, found.id)

        return await in_organization(relay, organization, renewed)

    secret, problem = run(act)
    show(secret.get_secret_value())
    if problem is not None:
        complain(f"ElevenLabs has not taken the new secret: {problem}. The one before it goes on working.")


@key.command("tool-secrets")
def key_tool_secrets(organization: str) -> None:
    """List the tool secrets that work: since when, until when, and when each was last used."""
    found = run(
        lambda relay: in_organization(relay, organization, lambda one: administer.list_tool_secrets(relay, one.id))
    )
    rows = [(one.id, one.created_at, one.expires_at or "", one.last_used_at or "never") for one in found]
    show_table(("id", "made", "ends", "last used"), rows)


@key.command("end-tool-secrets")
def key_end_tool_secrets(
    organization: str,
    secret: Annotated[str | None, typer.Option("--id", help="This one only, even the newest.")] = None,
) -> None:
    """End every replaced tool secret at once; the newest keeps working."""
    ended = run(
        lambda relay: in_organization(
            relay, organization, lambda one: administer.end_tool_secrets(relay, one.id, secret)
        )
    )
    show(f"Ended {ended} tool secrets.")


@key.command("encryption")
def key_encryption() -> None:
    """Print a new key for ENCRYPTION_KEYS."""
    show(Fernet.generate_key().decode())
