"""Users: who they are, and their access tokens."""

import sys
from typing import Annotated

import typer
from pydantic import SecretStr
from rich.table import Column

from actions import administer, control_access
from actions.relay import Relay
from commands.opening import in_organization, run
from commands.terminal import show, show_table
from domain.principals import Role
from persistence import users
from persistence.models import User

Force = Annotated[bool, typer.Option("--force", help="Even if no active superadmin is left.")]

user = typer.Typer(help="Users and their access tokens.", no_args_is_help=True)


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
        lambda relay: in_organization(
            relay,
            organization,
            lambda found: administer.create_user(
                relay, found.id, email=email, full_name=full_name, password=SecretStr(password), role=role
            ),
        )
    )
    show(f"Created {created.email} with the id {created.id}.")


@user.command("token")
def user_token(
    email: str, days: Annotated[float, typer.Option(min=0, max=3650, help="How long it is good for.")] = 1
) -> None:
    """Print an access token (JWT) for the user."""
    token = run(lambda relay: administer.issue_token(relay, email, days * 86_400))
    show(token.get_secret_value())


@user.command("list")
def user_list(
    organization: Annotated[str | None, typer.Argument(help="Only of this organization.")] = None,
    removed: Annotated[bool, typer.Option("--removed", help="Also those who were removed.")] = False,
) -> None:
    """List the users, what they may do, and whether they may sign in."""

    async def act(relay: Relay) -> list[User]:
        if organization is None:
            return await relay.database.read(lambda: users.everyone(removed=removed))
        return await in_organization(
            relay, organization, lambda found: relay.database.read(lambda: users.everyone(found.id, removed=removed))
        )

    columns = (Column("email", overflow="fold"), "name", "role", "status", Column("id", no_wrap=True), "organization")
    found = run(act)
    show_table(
        columns, [(one.email, one.full_name, one.role, one.status, one.id, one.organization_id) for one in found]
    )


@user.command("password")
def user_password(
    email: str,
    password: Annotated[
        str, typer.Option(envvar="RELAY_PASSWORD", prompt=True, confirmation_prompt=True, hide_input=True)
    ] = "",
    revoke_keys: Annotated[
        bool | None,
        typer.Option(
            "--revoke-keys/--keep-keys",
            help="Revoke the API keys too; asked at a terminal.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Change the user's password; every token they have stops working, and on request every API key."""
    if revoke_keys is None:
        revoke_keys = sys.stdin.isatty() and typer.confirm("Revoke the user's API keys too?", default=False)
    left = run(
        lambda relay: administer.change_password(relay, email, SecretStr(password), revoke_keys=bool(revoke_keys))
    )
    show(f"Changed the password of {email} and signed them out everywhere. {_keys(left)}")


@user.command("sign-out")
def user_sign_out(
    email: str,
    keys: Annotated[bool, typer.Option("--keys", help="Revoke the user's API keys too.")] = False,
) -> None:
    """Make every token of the user worthless, with --keys every API key too."""
    left = run(lambda relay: administer.sign_out_user(relay, email, revoke_keys=keys))
    show(f"Signed {email} out everywhere. {_keys(left)}")


@user.command("disable")
def user_disable(email: str, force: Force = False) -> None:
    """Keep a user out: their tokens, API keys and sockets stop working within seconds."""
    run(lambda relay: control_access.disable_user(relay, email, force=force))
    show(f"Disabled {email}. No password, token or API key of theirs works until `user enable`.")


@user.command("enable")
def user_enable(email: str) -> None:
    """Let a disabled user in again: password and API keys work, earlier tokens do not."""
    run(lambda relay: control_access.enable_user(relay, email))
    show(f"Enabled {email}. Their password and API keys work again; they have to sign in anew.")


@user.command("remove")
def user_remove(email: str, force: Force = False) -> None:
    """Remove a user for good. The audit log and what they wrote stay; name, address and password go."""
    revoked = run(lambda relay: control_access.remove_user(relay, email, force=force))
    show(f"Removed {email} and revoked {revoked} API keys. What they wrote and the audit log stay.")


@user.command("role")
def user_role(email: str, role: Role, force: Force = False) -> None:
    """Change what a user may do; it counts from their next request on."""
    run(lambda relay: control_access.change_role(relay, email, role, force=force))
    show(f"{email} is now {role.value}.")


def _keys(left: list[str]) -> str:
    if not left:
        return "They have no API key."
    count = "1 API key still works" if len(left) == 1 else f"{len(left)} API keys still work"
    return f"{count}: {', '.join(left)}. `key revoke` ends them."
