"""Planting faults, one at a time, in copies of the tree, and running the tests that must notice each."""

import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree

from tests.mutants.faults import Fault

# Failing so says that the code could not be loaded, not that a promise was broken.
_UNLOADABLE = re.compile(r"(failed on \w+ with \")?(ImportError|ModuleNotFoundError|SyntaxError|NameError)\b")
_COLLECTION = "collection failure"
_GOODBYE_SECONDS = 10


class Verdict(StrEnum):
    """What became of a planted fault."""

    CAUGHT = "caught"
    SURVIVED = "survived"
    HUNG = "ended by the time limit"
    BROKEN = "failed for the wrong reason"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Result:
    """A fault, its verdict, and the test that failed or what else there is to say."""

    fault: Fault
    verdict: Verdict
    told: str = ""
    seconds: float = 0.0

    @property
    def is_caught(self) -> bool:
        """Whether the tests noticed the fault in the way the list says."""
        return self.verdict is (Verdict.HUNG if self.fault.hangs else Verdict.CAUGHT)


@dataclass(frozen=True)
class Failure:
    """A test that failed, or a file that could not be collected."""

    test: str
    message: str

    @property
    def is_unloadable(self) -> bool:
        """Whether the code could not be loaded."""
        return self.message == _COLLECTION or _UNLOADABLE.match(self.message) is not None

    def __str__(self) -> str:
        return f"{self.test}: {self.message}"


@dataclass(frozen=True)
class Ending:
    """How a run of pytest ended; `status` is None when it was ended by the time limit."""

    status: int | None
    failures: list[Failure]
    output: str


class UnfitTests(Exception):
    """Raised when tests fail without any fault; the message names them."""


@contextlib.contextmanager
def copied(root: Path, files: Iterable[Path]) -> Iterator[Path]:
    """Copy the files, given relative to `root`, to a folder that is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as folder:
        tree = Path(folder) / "sound"
        for file in files:
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / file, tree / file)
        yield tree


def tracked(root: Path) -> list[Path]:
    """Return every file of the working tree at `root` that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    paths = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if (root / path).is_file()]


def insist_on_sound_tests(tree: Path, faults: Iterable[Fault], seconds: float, workers: int) -> int:
    """Run all tests of `faults` once on the tree as it is; return how many were named.

    Raises:
        UnfitTests: if one fails.
    """
    named = sorted({test for fault in faults for test in fault.tests})
    whole = {test for test in named if "::" not in test}
    tests = [test for test in named if test in whole or test.partition("::")[0] not in whole]
    together = ["--numprocesses", str(workers), "--dist", "loadfile"] if workers > 1 else []
    ending = run_tests(tree, [*together, *tests], seconds) if tests else Ending(0, [], "")
    if ending.status != 0:
        told = "\n".join(str(failure) for failure in ending.failures) or ending.output[-4000:] or "no end in sight"
        raise UnfitTests(told)
    return len(named)


def run_tests(tree: Path, arguments: Sequence[str], seconds: float, **environment: str) -> Ending:
    """Run pytest in the tree, for at most so many seconds."""
    report = tree.with_name(f"{tree.name}.xml")
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}"]
    # No test needs Schemathesis' plugin, and loading it takes as long as everything else together. There is one time
    # limit here, so that a hang is told from a failure.
    command += ["-p", "no:schemathesis", "-o", "timeout=0", *arguments]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, cwd=tree, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
        output.seek(0)
        return Ending(status, _failures(report), output.read().decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        # Interrupted, it takes down what it has started; what is left is killed with it.
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GOODBYE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failures(report: Path) -> list[Failure]:
    try:
        cases = ElementTree.parse(report).iter("testcase")
    except (OSError, ElementTree.ParseError):
        return []
    return [
        Failure(_node_id(case), (problem.get("message") or "").partition("\n")[0][:160])
        for case in cases
        for problem in [*case.findall("failure"), *case.findall("error")]
    ]


def _node_id(case: ElementTree.Element) -> str:
    module = case.get("classname") or case.get("name") or ""
    file = f"{module.replace('.', '/')}.py"
    return f"{file}::{case.get('name')}" if case.get("classname") else file


# Planting


def judge(tree: Path, fault: Fault, seconds: float) -> Result:
    """Plant the fault in the tree, run its tests, and take it out again."""
    started = time.monotonic()
    with _planted(tree / fault.file, fault):
        ending = run_tests(tree, ["-x", *fault.tests], seconds, PYTHONDONTWRITEBYTECODE="1")
    verdict, told = _verdict(ending)
    return Result(fault, verdict, told, time.monotonic() - started)


@contextlib.contextmanager
def _planted(path: Path, fault: Fault) -> Iterator[None]:
    text, times = path.read_text("utf-8"), path.stat()
    try:
        path.write_text(fault.planted(text), "utf-8")
        # Compiled code goes by the time of its source, in whole seconds.
        os.utime(path, (times.st_atime, times.st_mtime + 2))
        yield
    finally:
        path.write_text(text, "utf-8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _verdict(ending: Ending) -> tuple[Verdict, str]:
    if ending.status is None:
        return Verdict.HUNG, ""
    if ending.status == 0:
        return Verdict.SURVIVED, ""
    right = [failure for failure in ending.failures if not failure.is_unloadable]
    if ending.status == 1 and right:
        return Verdict.CAUGHT, str(right[0])
    return Verdict.BROKEN, str(ending.failures[0]) if ending.failures else " ".join(ending.output[-400:].split())


def judge_all(
    sound: Path, faults: Sequence[Fault], *, seconds: float, deadline: float, workers: int
) -> Iterator[Result]:
    """Judge every fault, several at once, each in a copy of `sound`; after `deadline` no further one is begun."""
    trees = queue.SimpleQueue[Path]()
    for number in range(min(workers, len(faults))):
        trees.put(shutil.copytree(sound, sound.with_name(f"copy-{number}")))

    def work(fault: Fault) -> Result:
        if time.monotonic() > deadline:
            return Result(fault, Verdict.NOT_RUN)
        tree = trees.get()
        try:
            return judge(tree, fault, seconds)
        finally:
            trees.put(tree)

    with ThreadPoolExecutor(workers) as pool:
        for done in as_completed([pool.submit(work, fault) for fault in faults]):
            yield done.result()
