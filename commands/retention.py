"""How long organizations keep what, and letting go of what is older."""

from dataclasses import replace
from typing import Annotated

import typer
from rich.table import Column

from actions.apply_retention import MAX_DAYS, Due, apply_retention, due, read_retention, set_retention
from actions.relay import Relay
from commands.opening import in_organization, run
from commands.organizations import org
from commands.terminal import progress, show, show_table
from persistence.models import Organization
from persistence.retention import Retention

retention = typer.Typer()

Days = Annotated[int | None, typer.Option(min=0, max=MAX_DAYS, metavar="DAYS", help="0 keeps them for good.")]


@org.command("retention")
def org_retention(organization: str, recordings: Days = None, transcripts: Days = None, events: Days = None) -> None:
    """Say for how many days the organization keeps what, counted from when it was stored; show it without options."""

    async def act(relay: Relay, found: Organization) -> Retention:
        given = {"recordings": recordings, "transcripts": transcripts, "events": events}
        changes = {name: days or None for name, days in given.items() if days is not None}
        if changes:
            await set_retention(relay, found.id, replace(await read_retention(relay, found.id), **changes))
        return await read_retention(relay, found.id)

    kept = run(lambda relay: in_organization(relay, organization, lambda found: act(relay, found)))
    show(f"recordings   {_days(kept.recordings, 'for good')}")
    show(f"transcripts  {_days(kept.transcripts, 'for good')}")
    show(f"events       {_days(kept.events, 'as long as EVENT_RETENTION_HOURS says')}")


@retention.command("retention")
def retention_run(
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this it is only counted.")] = False,
) -> None:
    """Find what organizations no longer want to keep, and remove it if asked to; finish interrupted erasures."""

    async def act(relay: Relay) -> list[Due]:
        found = await due(relay)
        if apply:
            await _apply(relay, found)
        return found

    found = run(act)
    _show(found)
    if not apply and any(one.total for one in found):
        show("Nothing was removed; --apply does it.")


async def _apply(relay: Relay, found: list[Due]) -> None:
    with progress() as bar:
        for one in found:
            if one.total:
                task = bar.add_task(one.name, total=one.total)
                async for removed in apply_retention(relay, one):
                    bar.advance(task, removed)


def _days(days: int | None, otherwise: str) -> str:
    return otherwise if days is None else f"{days} days"


def _show(found: list[Due]) -> None:
    numbers = [
        Column(name, justify="right")
        for name in ("recordings", "transcripts", "requests", "events", "tool calls", "erasures", "left")
    ]
    counts = [_counts(one) for one in found]
    rows = [(one.name, *map(str, numbers)) for one, numbers in zip(found, counts, strict=True)]
    show_table(("organization", *numbers), rows)


def _counts(one: Due) -> tuple[int, ...]:
    return (one.recordings, one.transcripts, one.requests, one.events, one.tool_calls, one.erasures, one.left)
