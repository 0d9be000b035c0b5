"""API keys, tool secrets and encryption keys."""

from typing import Annotated

import typer
from cryptography.fernet import Fernet
from pydantic import SecretStr

from actions import administer
from actions.relay import Relay
from commands.opening import in_organization, run
from commands.terminal import show, show_table
from domain.errors import NotFound
from persistence import users

key = typer.Typer(help="API keys, tool secrets and encryption keys.", no_args_is_help=True)


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

    show(run(act).get_secret_value())


@key.command("tool")
def key_tool(organization: str) -> None:
    """Make a fresh tool secret; the one before it keeps working for the overlap."""
    secret = run(
        lambda relay: in_organization(relay, organization, lambda found: administer.new_tool_secret(relay, found.id))
    )
    show(secret.get_secret_value())


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
