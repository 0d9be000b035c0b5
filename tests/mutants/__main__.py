"""The tests are tested: every fault of the list is planted, one at a time, and must be noticed.

`python -m tests.mutants [--only REGEX] [--seconds S] [--minutes M]` first runs all named tests on the tree as it is.
Then it runs each fault's own tests with the fault in place, and fails if fewer than 95 % of the faults are caught.
A fault of which a test fails without it is not planted, and counts as missed.
`--check` plants nothing and says whether every fault can be planted.
"""

import argparse
import contextlib
import os
import re
import sys
import time
from collections.abc import Sequence

from tests.mutants.faults import ROOMS, ROOT, Fault, complaints, read
from tests.mutants.running import (
    Pytest,
    Result,
    UnfitTests,
    Verdict,
    copied,
    judge_all,
    libraries,
    named_tests,
    run_without_faults,
    tracked,
    unfit,
)
from tests.support.waiting import slowness

_ENOUGH = 0.95


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Plant faults and run their tests.")
    parser.add_argument("--check", action="store_true", help="only say whether every fault can be planted")
    parser.add_argument("--only", default="", help="a regular expression of `room: name`")
    parser.add_argument("--seconds", type=float, default=120 * slowness(), help="the time limit of a fault's tests")
    parser.add_argument("--minutes", type=float, default=60, help="after these no further fault is planted")
    cores = len(os.sched_getaffinity(0))
    # More than there are cores: many tests notice their fault by a wait in vain, which takes no processor time.
    parser.add_argument("--workers", type=int, default=cores + (cores + 1) // 2)
    given = parser.parse_args()
    faults = read()
    if given.check:
        return _check(faults)
    chosen = [fault for fault in faults if re.search(given.only, str(fault))]
    started = time.monotonic()
    results = _run(chosen, given.seconds, started + given.minutes * 60, given.workers)
    _tell(chosen, results, time.monotonic() - started)
    return 0 if _share(results) >= _ENOUGH else 1


def _check(faults: Sequence[Fault]) -> int:
    found = list(complaints(faults))
    for complaint in found:
        _say(complaint)
    if not found:
        _say(f"{len(faults)} faults in {len(ROOMS)} rooms can be planted.")
    return 1 if found else 0


def _run(chosen: Sequence[Fault], seconds: float, deadline: float, workers: int) -> list[Result]:
    to_plant = [fault for fault in chosen if not fault.equivalent]
    named = named_tests(to_plant)
    with copied(ROOT, tracked(ROOT)) as sound:
        try:
            with contextlib.closing(Pytest()) as pytest:
                failures = run_without_faults(pytest, sound, named, max(deadline - time.monotonic(), 1), workers)
        except UnfitTests as reason:
            sys.exit(f"The tests do not run without any fault:\n{reason}")
        _say(f"{len(named)} tests are named; {len(failures)} fail without a fault.")
        results = unfit(to_plant, failures)
        for result in results:
            _report(result)
        fit = [fault for fault in to_plant if fault not in {result.fault for result in results}]
        limits = {"seconds": seconds, "deadline": deadline}
        for result in judge_all(sound, fit, **limits, workers=workers, libraries=libraries(sound)):
            results.append(result)
            _report(result)
    return results


def _report(result: Result) -> None:
    _say(f"{result.verdict:<10} {result.seconds:5.1f} s  {result.fault}\n{'':20}{result.told}".rstrip())


def _tell(chosen: Sequence[Fault], results: Sequence[Result], seconds: float) -> None:
    missed = [result for result in results if not result.is_caught]
    _say("\n" + "".join(f"{word:>12}" for word in ("room", "caught", "missed", "equivalent")))
    for room in (*ROOMS, "all"):
        caught = sum(result.is_caught for result in results if room in (result.fault.room, "all"))
        absent = sum(room in (result.fault.room, "all") for result in missed)
        equivalent = sum(bool(fault.equivalent) for fault in chosen if room in (fault.room, "all"))
        _say("".join(f"{cell:>12}" for cell in (room, caught, absent, equivalent)))
    for result in sorted(missed, key=lambda one: str(one.fault)):
        _say(f"{result.verdict}: {result.fault} ({result.fault.file})")
    late = sum(result.verdict is Verdict.NOT_RUN for result in results)
    _say(f"\n{_share(results):.1%} caught in {seconds / 60:.1f} minutes" + (f", {late} not run" if late else ""))


def _share(results: Sequence[Result]) -> float:
    return sum(result.is_caught for result in results) / len(results) if results else 1.0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
