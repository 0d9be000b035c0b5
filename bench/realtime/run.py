"""What it costs to tell everybody, ours and the peers', interleaved: `python -m bench.realtime.run`.

Prints one table in Markdown. `bench/README.md` says how it measures. Peers come from npm (`npm install` in
bench/realtime, or NODE_PEERS naming a folder), the load generator and the floor from a C compiler.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from bench.realtime import scenarios, tenants
from bench.realtime.processes import CORES, HERE, TOOLS
from bench.realtime.scenarios import Age, Flow, Steady
from bench.realtime.tenants import Tenants

CAPTIONS = {"ws": "Node ws", "joined": "Node ws, joined", "socketio": "socket.io", "floor": "bare C loop"}
R = TypeVar("R")

HEAD = "| what | ours | rival | rival's | ratio: median (lowest to highest) | goal | reached |"


class Beside(NamedTuple):
    """A rival, its figure, and the ratio of the two."""

    rival: str
    figure: str
    ratio: str


NOBODY = Beside("", "", "")


@dataclass
class Bench:
    """How long and how often to measure, where, and what came of it."""

    rounds: int
    seconds: float
    memory: Path
    disk: Path
    rows: list[str] = field(default_factory=list)

    def add(self, what: str, ours: str, goal: str = "", reached: bool | None = None, beside: Beside = NOBODY) -> None:
        """Add a row to the table, and say it at once."""
        verdict = "" if reached is None else "yes" if reached else "no"
        self.rows.append(f"| {' | '.join((what, ours, *beside, goal, verdict))} |")
        print(self.rows[-1], flush=True)


async def throughput(bench: Bench) -> None:
    """Compare deliveries a second; in memory, because a peer's events are on no disk either."""
    one = await tenants.sqlite(bench.memory / "one", 1, 1)
    bursts = {"ws": 3.0, "socketio": 3.5, "joined": 0.9}
    await _compare(bench, one, "bursts of 16, 1,000 listeners", bursts, listeners=1000, batch=16)
    await _compare(bench, one, "bursts of 16, 5,000 listeners", {"ws": 3.5}, listeners=5000, batch=16)
    single = {"ws": 1.1, "floor": 0.85}
    await _compare(bench, one, "single events, 1,000 listeners", single, listeners=1000, batch=1)


async def _compare(
    bench: Bench, tenant: Tenants, what: str, goals: dict[str, float], *, listeners: int, batch: int
) -> None:
    flows: dict[str, list[Flow]] = {name: [] for name in ("ours", *goals)}
    for number in range(bench.rounds):
        for name in flows if number % 2 == 0 else reversed(flows):
            run = partial(scenarios.flat_out, name, tenant, listeners=listeners, batch=batch, seconds=bench.seconds)
            flows[name].append(await attempt(run))
    for name, goal in goals.items():
        pairs = list(zip(flows["ours"], flows[name], strict=True))
        rates = [mine.rate / other.rate for mine, other in pairs]
        beside = Beside(CAPTIONS[name], _rate(flows[name]), _spread(rates))
        bench.add(what, _rate(flows["ours"]), f"≥ {goal}", statistics.median(rates) >= goal, beside)
        costs = [other.microseconds / mine.microseconds for mine, other in pairs]
        beside = Beside(CAPTIONS[name], _cost(flows[name]), _spread(costs))
        bench.add("… processor time for each delivery", _cost(flows["ours"]), beside=beside)
    busiest = max(flow.client for each in flows.values() for flow in each)
    print(f"(the load generator used at most {busiest:.0%} of its core)", flush=True)


async def ages(bench: Bench) -> None:
    """Measure from the commit to every listener, and from the moment an event is due, the durable commit included."""
    for engine, make in (("SQLite", tenants.sqlite), ("PostgreSQL", tenants.postgresql)):
        one = await make(bench.disk / f"{engine}-one", 1, 1)
        fifty = await make(bench.disk / f"{engine}-fifty", 50, 50)
        what = f"commit → arrival, {engine}"
        await _age(bench, f"{what}: 1 × 1,000 listeners, 100/s", 10, one, 100)
        await _age(bench, f"{what}: 50 × 20, 200/s", 3, fifty, 200)
        await _age(bench, f"{what}: 50 × 20, 200/s, no wake-up", 80, fifty, 200, wakes=False)


async def _age(bench: Bench, what: str, goal: float, tenant: Tenants, rate: float, *, wakes: bool = True) -> None:
    run = partial(scenarios.steady, tenant, rate=rate, seconds=3)
    names = ("ours", "floor") if len(tenant.organizations) == 1 else ("ours",)
    found: dict[str, list[Steady]] = {name: [] for name in names}
    for number in range(bench.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(await attempt(partial(run, name, wakes=wakes)))
    ages = [each.since_commit for each in found["ours"]]
    p99 = statistics.median(age.p99 for age in ages)
    beside = NOBODY
    if "floor" in found:
        floor = [each.since_commit for each in found["floor"]]
        ratios = [mine.p99 / other.p99 for mine, other in zip(ages, floor, strict=True)]
        beside = Beside(CAPTIONS["floor"], _ages(floor), _spread(ratios))
    bench.add(what, _ages(ages), f"p99 ≤ {goal:.0f} ms", p99 <= goal, beside)
    bench.add("… from the moment it was due, with the commit", _ages([each.since_due for each in found["ours"]]))


def _ages(found: list[Age]) -> str:
    p50 = statistics.median(age.p50 for age in found)
    p99s = sorted(age.p99 for age in found)
    return f"p50 {p50:.1f}, p99 {statistics.median(p99s):.1f} ms ({p99s[0]:.1f} to {p99s[-1]:.1f})"


async def storms(bench: Bench) -> None:
    """Measure listeners that come back at once."""
    two = await tenants.sqlite(bench.disk / "two", 2, 10_000)
    found = [await attempt(lambda: scenarios.storm(two, listeners=5000, missed=100)) for _ in range(bench.rounds)]
    seconds = statistics.median(one.seconds for one in found)
    figure = f"{seconds:.2f} s, {statistics.median(one.busy for one in found):.2f} s of processor time"
    bench.add("5,000 back at once, 100 events missed each: all caught up", figure, "≤ 3 s", seconds <= 3)
    others = statistics.median(one.others.p99 for one in found)
    bench.add("… what others got meanwhile", f"p99 {others:.0f} ms", "p99 ≤ 100 ms", others <= 100)


async def sleepers(bench: Bench) -> None:
    """Measure what is kept for listeners that stop reading."""
    one = await tenants.sqlite(bench.disk / "asleep", 1, 1)
    found = await attempt(lambda: scenarios.sleepers(one, listeners=40, megabytes=10))
    kept = found.process <= 10 and found.kernel <= 10
    figure = f"process {found.process:+.1f} MB, kernel {found.kernel:+.1f} MB"
    bench.add("20 of 40 stop reading while 10 MB pass: kept for them", figure, "≤ 10 MB each", kept)
    bench.add("… resumed later without a hole", f"{found.resumed} of 20", "20", found.resumed == 20)


async def idle(bench: Bench) -> None:
    """Measure ten thousand listeners to whom nothing happens."""
    one = await tenants.sqlite(bench.disk / "idle", 1, 10_000)
    found = await attempt(lambda: scenarios.idle(one, listeners=10_000, seconds=120))
    bench.add("10,000 idle listeners, two minutes", f"{found.core:.1%} of a core", "≤ 5 %", found.core <= 0.05)
    bench.add("… heartbeats answered by each", f"{found.pings:.1f}", "≥ 5", found.pings >= 5)
    bench.add("… memory of each, authenticated", f"{found.kilobytes:.1f} KB", "≤ 18 KB", found.kilobytes <= 18)


async def attempt(run: Callable[[], Awaitable[R]]) -> R:
    """Run it, and once more when it fails: on a crowded machine a process may be starved past our patience."""
    try:
        return await run()
    except (AssertionError, OSError) as error:
        print(f"({type(error).__name__}: {error}; once more)", flush=True)
        return await run()


PARTS = {"throughput": throughput, "ages": ages, "storms": storms, "sleepers": sleepers, "idle": idle}


async def measure(bench: Bench, names: Iterable[str]) -> None:
    """Run parts, and print the whole table at the end."""
    began, load = time.monotonic(), os.getloadavg()
    print(HEAD, "| --- | --- | --- | --- | --- | --- | --- |", sep="\n", flush=True)
    for name in names:
        try:
            await PARTS[name](bench)
        except (AssertionError, OSError) as error:
            bench.add(name, f"could not be measured: {error}")
    print(
        f"\n{bench.rounds} rounds, {time.monotonic() - began:.0f} s in all; load average {load[0]:.1f} at the start.\n"
    )
    print(HEAD, "| --- | --- | --- | --- | --- | --- | --- |", *bench.rows, sep="\n")


def main() -> None:
    """Build the tools, take the last core, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of our own below it
    in_memory, on_disk = (Path(tempfile.mkdtemp(prefix="bench-realtime-", dir=where)) for where in (memory, None))
    TOOLS.mkdir()
    try:
        for tool in ("swarm", "floor"):
            subprocess.run(["cc", "-O2", "-o", str(TOOLS / tool), str(HERE / f"{tool}.c")], check=True)
        os.sched_setaffinity(0, {CORES[-1]})
        asyncio.run(measure(Bench(given.rounds, given.seconds, in_memory, on_disk), given.only))
    finally:
        for folder in (TOOLS, in_memory, on_disk):
            shutil.rmtree(folder, ignore_errors=True)


def _rate(flows: list[Flow]) -> str:
    return f"{statistics.median(flow.rate for flow in flows):,.0f} /s"


def _cost(flows: list[Flow]) -> str:
    return f"{statistics.median(flow.microseconds for flow in flows):.2f} µs"


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
