"""The audit log, for reading."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from actions.read_audit import AuditLine, audit_entries
from commands.opening import run
from commands.printing import one_line, out
from domain.audit import AuditAction

audit = typer.Typer()


@audit.command("audit")
def show(
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
            print(one_line(asdict(entry)), flush=True)  # noqa: T201
        else:
            out.print(_audited(entry), soft_wrap=True)


def _audited(entry: AuditLine) -> Text:
    line = Text(f"{entry.at}  ", style="dim").append(f"{entry.action:<22}", style="bold cyan")
    facts = [entry.who, entry.client, entry.subject, *(f"{name}={value}" for name, value in entry.details.items())]
    return line.append("  ".join(fact for fact in facts if fact), style="default")
