"""Looking after what is stored: recordings that belong to no call, and moving to another database."""

import sys
from typing import Annotated

import typer
from rich.progress import TaskID
from rich.table import Column

from actions.copy_database import Compared, compare_databases, copy_database, prepare_target
from actions.relay import Relay
from actions.sweep_recordings import Swept, sweep_recordings
from commands.opening import refuse_newer, run
from commands.terminal import progress, show, show_table
from persistence.database import Database, open_database

_DIGITS = 12  # so that a line with two of them fits a terminal of 80 columns

upkeep = typer.Typer()


@upkeep.command()
def sweep(
    apply: Annotated[bool, typer.Option("--apply", help="Remove them; without it they are only counted.")] = False,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="MINUTES", help="Leave younger ones alone: their call may be under way.")
    ] = 60,
) -> None:
    """Find recordings that belong to no call, and remove them if asked to."""

    async def act(relay: Relay) -> Swept:
        return await sweep_recordings(relay, older_than=older_than * 60, apply=apply)

    swept = run(act)
    show(f"{swept.objects} recordings, {swept.orphans} without a call, {swept.removed} removed.")
    if swept.left:
        show(f"{swept.left} recordings of erased contacts{' removed' if apply else ' are left'}.")
    if (swept.orphans or swept.left) and not apply:
        show("Nothing was removed; --apply does it.")


@upkeep.command("copy-to")
def copy_to(
    url: Annotated[str, typer.Argument(envvar="COPY_TO_URL", help="The database to copy to: postgresql://…")],
) -> None:
    """Copy everything to another database and compare the two; run again, it goes on where it stopped.

    Stop the servers first: nothing may write meanwhile. Exits with 1 when the two differ in the end.
    """

    async def act(relay: Relay) -> list[Compared]:
        target = open_database(url)
        try:
            refuse_newer(target)
            await prepare_target(relay.database, target)
            return await _copy(relay.database, target)
        finally:
            target.close()

    compared = run(act)
    _show(compared)
    if not all(table.is_equal for table in compared):
        show("The two differ.")
        sys.exit(1)


async def _copy(source: Database, target: Database) -> list[Compared]:
    tasks: dict[str, TaskID] = {}
    with progress() as bar:
        async for step in copy_database(source, target):
            if step.table not in tasks:
                tasks[step.table] = bar.add_task(step.table)
            bar.update(tasks[step.table], completed=step.copied, total=step.rows)
    return await compare_databases(source, target)


def _show(compared: list[Compared]) -> None:
    columns = (
        Column("table", no_wrap=True),
        Column("rows", justify="right"),
        Column("copied", justify="right"),
        Column("digest", no_wrap=True),
        Column("", no_wrap=True),
    )
    show_table(columns, [_row(one) for one in compared])


def _row(one: Compared) -> tuple[str, ...]:
    verdict = "equal" if one.is_equal else f"differs: {one.target_digest[:_DIGITS]}"
    return one.table, str(one.source_rows), str(one.target_rows), one.source_digest[:_DIGITS], verdict
