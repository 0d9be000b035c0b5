"""The command line of the contract: `python manage.py contract …`.

It knows the documents and the text of the handlers, and imports neither handlers nor generated code: it must run when
those do not fit together, because it is what mends them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from commands.terminal import Part, complain, show, show_json, show_parts, show_table
from openapi import document
from openapi.document import Contract
from openapi.generating import generate
from openapi.generating.differences import Change, Severity, compare
from openapi.generating.generate import Report, UnfitUpdate
from openapi.references import InvalidDocument

T = TypeVar("T")

contract = typer.Typer(help="The contract: take a new one, generate code, look for drift.", no_args_is_help=True)

_ROOT = Path(__file__).resolve().parent.parent
_COLOURS = {Severity.BREAKING: "red", Severity.ADDITIVE: "green", Severity.TEXT: "dim"}

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and write nothing.")]


@contract.command()
def update(
    new: Annotated[Path, typer.Argument(help="The newly published OpenAPI document.")],
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Take a newly published document: replace ours, generate code, add stubs, and report."""
    _run(lambda: generate.update(_ROOT, _bytes(new), new.name, is_preview=dry_run), as_json, is_preview=dry_run)


@contract.command(name="generate")
def generate_command(as_json: AsJson = False, dry_run: DryRun = False) -> None:
    """Generate models, operations and missing stubs from the documents as they are."""
    _run(lambda: generate.generate(_ROOT, is_preview=dry_run), as_json, is_preview=dry_run)


@contract.command()
def check(as_json: AsJson = False) -> None:
    """Fail when generated code has drifted, something is left to do, or what is published is not what is served."""
    report = _run(lambda: generate.check(_ROOT), as_json, checks=True)
    if report.drift or report.complaints:
        raise typer.Exit(1)


@contract.command()
def diff(as_json: AsJson = False) -> None:
    """Show what the served document changes about the published one, and why."""
    loaded = _or_exit(document.load, as_json)
    changes = compare(loaded.published, loaded.served)
    if as_json:
        show_json({"changes": [_change(change) for change in changes], "actions": list(_actions(loaded))})
        return
    actions = [(action["target"], action["reason"]) for action in _actions(loaded)]
    show_table(("Where", "Why"), actions, title="The overlay's actions", lines=True)
    _print_changes(changes)


@contract.command(name="show")
def show_command() -> None:
    """Print the served document as JSON."""
    show_json(_or_exit(document.load, False).served, indent=2)


def _run(work: Callable[[], Report], as_json: bool, *, checks: bool = False, is_preview: bool = False) -> Report:
    report = _or_exit(work, as_json)
    if as_json:
        show_json(report.to_json(), indent=2)
    else:
        _print(report, checks=checks, is_preview=is_preview)
    return report


def _or_exit(work: Callable[[], T], as_json: bool) -> T:
    try:
        return work()
    except UnfitUpdate as error:
        changes = [_change(change) for change in error.changes]
        if as_json:
            show_json({"error": str(error), "broken": error.broken, "changes": changes}, indent=2)
        else:
            _print_changes(error.changes, "Published changes")
        complain("The overlay does not fit the new document:")
        for broken in error.broken:
            complain(f"  {broken}")
        raise typer.Exit(1) from error
    except (InvalidDocument, OSError) as error:
        if as_json:
            show_json({"error": str(error)})
        complain(str(error))
        raise typer.Exit(1) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidDocument(f"{path} cannot be read: {error.strerror}.") from error


def _actions(loaded: Contract) -> Iterator[dict[str, str]]:
    return ({"target": action.target, "reason": action.reason} for action in loaded.actions)


def _change(change: Change) -> dict[str, str]:
    return {"severity": change.severity, "place": change.place, "what": change.what, "particulars": change.particulars}


# On a terminal


def _print(report: Report, *, checks: bool, is_preview: bool) -> None:
    _print_changes(report.published, "Published changes")
    _print_changes(report.changes, "Served changes")
    if not checks:
        _print_list("Would write" if is_preview else "Wrote", report.written)
    _print_list("New stubs", report.created)
    renames = [f"{r.operation} is now {r.operation_id}, served by {r.handler}" for r in report.renames]
    _print_list("Renamed", renames)
    _print_list("Orphans", [f"{o.file}:{o.line} {o.handler}" for o in report.orphans])
    left = [*report.drift, *report.complaints] if checks else report.complaints
    if left:
        title, style = ("Not in order", "red") if checks else ("Left to do", "yellow")
        _print_list(title, left, style)
    elif not report.written:
        show("The generated code is what the contract makes it.")


def _print_changes(changes: list[Change], title: str = "Changes") -> None:
    if changes:
        show_table(("", "Where", "What"), [_row(change) for change in changes], title=title)


def _row(change: Change) -> tuple[Part, str, str]:
    particulars = f" ({change.particulars})" if change.particulars else ""
    return (change.severity, _COLOURS[change.severity]), change.place, change.what + particulars


def _print_list(title: str, lines: list[str], style: str = "") -> None:
    if lines:
        show_parts((title, style), (":", ""))
        show(*(f"  {line}" for line in lines))


if __name__ == "__main__":
    contract()
