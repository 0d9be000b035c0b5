"""Users: who they are, and their access tokens."""

from typing import Annotated

import typer
from pydantic import SecretStr
from rich.table import Column

from actions import administer
from actions.relay import Relay
from commands.opening import in_organization, run
from commands.terminal import show, show_table
from domain.principals import Role
from persistence import users
from persistence.models import User

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
def user_list(organization: Annotated[str | None, typer.Argument(help="Only of this organization.")] = None) -> None:
    """List the users and what they may do."""

    async def act(relay: Relay) -> list[User]:
        if organization is None:
            return await relay.database.read(users.everyone)
        return await in_organization(
            relay, organization, lambda found: relay.database.read(lambda: users.everyone(found.id))
        )

    columns = (Column("email", overflow="fold"), "name", "role", Column("id", no_wrap=True), "organization")
    found = run(act)
    show_table(columns, [(one.email, one.full_name, one.role, one.id, one.organization_id) for one in found])


@user.command("password")
def user_password(
    email: str,
    password: Annotated[
        str, typer.Option(envvar="RELAY_PASSWORD", prompt=True, confirmation_prompt=True, hide_input=True)
    ] = "",
) -> None:
    """Change the user's password; every token they have stops working."""
    run(lambda relay: administer.change_password(relay, email, SecretStr(password)))
    show(f"Changed the password of {email} and signed them out everywhere.")


@user.command("sign-out")
def user_sign_out(email: str) -> None:
    """Make every token of the user worthless; their API key stays."""
    run(lambda relay: administer.sign_out_user(relay, email))
    show(f"Signed {email} out everywhere.")
