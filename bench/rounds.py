"""What a cell is measured with: the folder, the rounds, and the rows of the table."""

import asyncio
import contextlib
import os
import random
import statistics
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import servers
from bench.load import Figures
from bench.servers import Installation, Server

Measure = Callable[[Server], Awaitable[Figures]]


@dataclass
class Row:
    """One line of the table: what was measured, ours and a rival's, and the ratio of every round."""

    what: str
    ours: list[float]
    unit: str
    rival: str = ""
    theirs: list[float] = field(default_factory=list)
    goal: str = ""
    busy: float = 0.0

    def columns(self) -> list[str]:
        ratios = [one / other for one, other in zip(self.ours, self.theirs, strict=False) if other]
        return [
            self.what,
            _shown(self.ours, self.unit),
            self.rival,
            _shown(self.theirs, self.unit),
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "",
            self.goal,
            f"{self.busy:.0%}" if self.busy else "",
        ]


def _shown(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    middle = statistics.median(values)
    text = f"{middle:,.0f}" if middle >= 100 else f"{middle:.1f}" if middle >= 10 else f"{middle:.2f}"
    return f"{text} {unit}"


@dataclass
class Bench:
    """Where and how long."""

    folder: Path
    rounds: int
    seconds: float
    is_smoke: bool = False
    run: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run
    _template: Installation | None = None
    _cell: str = ""

    def begin(self, cell: str) -> None:
        """Begin a cell; the load keeps off the servers' core."""
        self._cell = cell
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(0, {servers.LOAD_CORE})

    def installation(self, name: str) -> Installation:
        """Return a fresh embedded installation."""
        if self._template is None:
            self._template = servers.prepare(self.folder / "template")
        return servers.copy(self._template, self.folder / self._cell / name.replace(" ", "-"))

    def rounds_of(self, running: list[Server], measure: Measure) -> dict[str, list[Figures]]:
        """Measure every server once a round, in an order that changes; one short run beforehand warms them up."""
        figures: dict[str, list[Figures]] = {server.name: [] for server in running}
        for number in range(self.rounds + 1):
            for server in random.sample(running, len(running)):
                before = server.cpu()
                one: Figures = self.run(measure(server))  # type: ignore[arg-type]
                one.server_busy = (server.cpu() - before) / one.seconds if one.seconds else 0.0
                if one.refused:
                    raise RuntimeError(f"{server.name} refused {one.refused} requests")
                if number:
                    figures[server.name].append(one)
        return figures
