"""The only way to the terminal: everything a command says goes through here, with control characters written out.

What is stored was said by callers, vendors and people who tried to sign in. A character that moves the cursor, ends a
line or turns the direction of writing is shown as an escape, and Rich's markup is shown as it stands.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

from domain.errors import ConfigurationError

_out = Console(highlight=False, markup=False)
# Wider than any line: what reads a report from a file or a pipe cannot put a broken path together again.
_pipe = Console(highlight=False, markup=False, width=1_000_000)
_errors = Console(stderr=True, highlight=False, markup=False)

# A part of a line, and its style.
Part = tuple[str, str]


def printable(text: str) -> str:
    """Return `text` with everything written out (as in JSON) that is not a visible character or a plain space."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def one_line(document: Mapping[str, Any]) -> str:
    """Return `document` as one line of JSON that is safe to print."""
    return printable(json.dumps(document, ensure_ascii=False))


def show(*lines: str) -> None:
    """Print lines for people and scripts, as long as they are."""
    for line in lines:
        _out.print(Text(printable(line)), soft_wrap=True)


def show_parts(*parts: Part) -> None:
    """Print one line of parts that each have a style."""
    line = Text()
    for text, style in parts:
        line.append(printable(text), style=style)
    _out.print(line, soft_wrap=True)


def show_json(document: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Print JSON for programs, without a style even at a terminal; it stays the same JSON."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    # Within a text JSON writes the end of a line out by itself; those that are left belong to the indentation.
    sys.stdout.write("\n".join(printable(line) for line in text.split("\n")) + "\n")
    sys.stdout.flush()


def show_table(
    columns: Sequence[Column | str],
    rows: Iterable[Sequence[str | Part]],
    *,
    title: str | None = None,
    lines: bool = False,
) -> None:
    """Print a table; a cell is a text, or a text with its style. Off a terminal no cell is cut or broken."""
    table = Table(*columns, title=title, title_justify="left", show_lines=lines)
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    (_out if _out.is_terminal else _pipe).print(table)


def _cell(cell: str | Part) -> Text:
    return Text(printable(cell)) if isinstance(cell, str) else Text(printable(cell[0]), style=cell[1])


def complain(line: str, *, style: str = "") -> None:
    """Print a line on standard error."""
    _errors.print(Text(printable(line), style=style), soft_wrap=True)


@contextlib.contextmanager
def bytes_out() -> Iterator[BinaryIO]:
    """Write bytes to standard output, for the next program in a pipe.

    Raises:
        ConfigurationError: if standard output is a terminal.
    """
    if sys.stdout.isatty():
        raise ConfigurationError("The output is not text. Give a file, or send it into a pipe.")
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


def discard_the_rest() -> None:
    """Print nothing more: Python would complain about a reader that has gone when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Bars(Progress):
    """Progress bars whose descriptions are safe to print."""

    def add_task(self, description: str, *given: Any, **named: Any) -> TaskID:
        """Add a bar."""
        return super().add_task(printable(description), *given, **named)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Show progress bars on standard error while the context lasts."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with _Bars(*columns, console=_errors) as bars:
        yield bars


class Meter:
    """Shows how much of something is done, in bytes."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def report(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what)
        self._bars.update(self._tasks[what], completed=done, total=total)


@contextlib.contextmanager
def meter() -> Iterator[Meter]:
    """Show how far something is, on standard error, while the context lasts."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    with _Bars(*columns, console=_errors) as bars:
        yield Meter(bars)
