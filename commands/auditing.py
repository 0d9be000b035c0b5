"""The audit log, for reading."""

from dataclasses import asdict
from typing import Annotated

import typer

from actions.read_audit import AuditLine, audit_entries
from commands.opening import run
from commands.terminal import show_json, show_parts
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
            show_json(asdict(entry))
        else:
            _show_audited(entry)


def _show_audited(entry: AuditLine) -> None:
    facts = [entry.who, entry.client, entry.subject, *(f"{name}={value}" for name, value in entry.details.items())]
    said = "  ".join(fact for fact in facts if fact)
    show_parts((f"{entry.at}  ", "dim"), (f"{entry.action:<22}", "bold cyan"), (said, "default"))
