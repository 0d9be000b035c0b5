"""Organizations: their numbers, region, SMS provider and contacts."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from actions import administer
from actions.quotas import Usage, own_limits, set_own_limits, usage
from actions.relay import Relay
from commands.opening import in_organization, run
from commands.terminal import show, show_table
from domain.errors import ConfigurationError
from persistence import organizations, phone_numbers
from persistence.models import Organization
from persistence.quotas import Own

Quota = Annotated[int | None, typer.Option("--recordings", min=0, metavar="BYTES", help="0 is no limit.")]

org = typer.Typer(help="Organizations: their numbers, region and SMS provider.", no_args_is_help=True)


@org.command("add")
def org_add(
    name: str, region: Annotated[str | None, typer.Option(help="Where national numbers are read: CA, GB …")] = None
) -> None:
    """Create an organization."""
    created = run(lambda relay: administer.create_organization(relay, name, region))
    show(f"Created {created.name} with the id {created.id}.")


@org.command("list")
def org_list() -> None:
    """List the organizations and their numbers."""
    found = run(lambda relay: relay.database.read(_everyone))
    show_table(
        ("id", "name", "region", "numbers"),
        [(one.id, one.name, one.default_region or "", ", ".join(numbers)) for one, numbers in found],
    )


@org.command("region")
def org_region(organization: str, region: str) -> None:
    """Set the region in which the organization's national phone numbers are read."""
    run(
        lambda relay: in_organization(
            relay, organization, lambda found: administer.set_default_region(relay, found.id, region)
        )
    )
    show(f"National numbers are now read as numbers of {region.upper()}.")


@org.command("number")
def org_number(
    organization: str,
    number: str,
    label: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Send texts from it unless another was called.")] = False,
) -> None:
    """Give the organization a phone number."""
    added = run(
        lambda relay: in_organization(
            relay,
            organization,
            lambda found: administer.add_phone_number(relay, found.id, number, label=label, is_default=default),
        )
    )
    show(f"Added {added.number}.")


@org.command("limits")
def org_limits(
    organization: str,
    recording_bytes: Quota = None,
    requests: Annotated[int | None, typer.Option(min=0, metavar="PER_MINUTE", help="0 is no limit.")] = None,
    sockets: Annotated[int | None, typer.Option(min=0, metavar="COUNT", help="0 is no limit.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="First let everybody's limits count again.")] = False,
) -> None:
    """Set what the organization may use at most, in place of the ORG_ settings; show it without options."""

    async def act(relay: Relay, found: Organization) -> Usage:
        own = Own(None, None, None) if reset else await own_limits(relay, found.id)
        given = {"recording_bytes": recording_bytes, "requests_per_minute": requests, "sockets": sockets}
        changes = {name: limit for name, limit in given.items() if limit is not None}
        if changes or reset:
            await set_own_limits(relay, found.id, own._replace(**changes))
        return await usage(relay, found.id)

    used = run(lambda relay: in_organization(relay, organization, lambda found: act(relay, found)))
    limits = used.limits
    show(f"recordings  {_limit(limits.recording_bytes, 'bytes')}, {used.recording_bytes} are used")
    show(f"requests    {_limit(limits.requests_per_minute, 'a minute')}")
    show(f"sockets     {_limit(limits.sockets, 'at once')}, {used.open_sockets} are open")


def _limit(limit: int, unit: str) -> str:
    return f"{limit} {unit}" if limit else "no limit"


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
        lambda relay: in_organization(
            relay, organization, lambda found: administer.configure_sms(relay, found.id, provider, document)
        )
    )
    show(f"Texts now go through {provider}.")


@org.command("contact")
def org_contact(organization: str, number: str, name: str) -> None:
    """Add a contact."""
    added = run(
        lambda relay: in_organization(
            relay, organization, lambda found: administer.add_contact(relay, found.id, number, name)
        )
    )
    show(f"Added {added.name} with the id {added.id}.")


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
