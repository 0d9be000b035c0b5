"""The audit log: reading it, and proving that it is whole."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from actions.read_audit import AuditLine, audit_pages
from actions.relay import Relay
from actions.verify_audit import Verified, verify_audit
from commands.opening import run
from commands.terminal import show, show_json, show_parts
from domain.audit import AuditAction

audit = typer.Typer(invoke_without_command=True, help="The audit log: who did what; `verify` proves that it is whole.")


@audit.callback()
def entries(
    context: typer.Context,
    organization: Annotated[str | None, typer.Option(help="Only of this organization.")] = None,
    action: Annotated[AuditAction | None, typer.Option(help="Only of this kind.")] = None,
    since: Annotated[str | None, typer.Option(help="From this moment on: 2026-05-15T09:10:00Z.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 for all.")] = 50,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="In the order of their making.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show who did what to secrets, recordings and people, newest first; `verify` proves that the log is whole."""
    if context.invoked_subcommand is not None:
        return

    async def show_pages(relay: Relay) -> None:
        # Page by page: a log of years fits into no memory.
        pages = audit_pages(
            relay, organization, action=action, since=since, limit=limit or None, oldest_first=oldest_first
        )
        async for page in pages:
            for entry in page:
                if as_json:
                    show_json(asdict(entry))
                else:
                    _show_audited(entry)

    run(show_pages)


@audit.command("verify")
def verify(
    expect: Annotated[
        list[str] | None,
        typer.Option(metavar="DIGEST", help="A head that was printed before; an entry must still have it. Repeatable."),
    ] = None,
) -> None:
    """Prove that no entry is missing or changed; print the head of every chain, to be kept elsewhere.

    Exits with 1 if the log is not whole, or if no entry has an expected digest.
    """
    expected = set(expect or ())
    found = run(lambda relay: verify_audit(relay, expected))
    for one in found:
        show(_head(one))
    lost = expected - {digest for one in found for digest in one.found}
    for digest in sorted(lost):
        show(f"No entry has the expected digest {digest}.")
    if lost or any(one.problem for one in found):
        sys.exit(1)


def _head(one: Verified) -> str:
    return f"{one.name}: {one.entries} entries, {one.problem or 'whole'}. Head: {one.digest or 'none'}"


def _show_audited(entry: AuditLine) -> None:
    facts = [entry.who, entry.client, entry.subject, *(f"{name}={value}" for name, value in entry.details.items())]
    said = "  ".join(fact for fact in facts if fact)
    show_parts((f"{entry.at}  ", "dim"), (f"{entry.action:<22}", "bold cyan"), (said, "default"))
