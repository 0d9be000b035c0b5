"""Planting faults, one at a time, in copies of the tree, and running the tests that must notice each."""

import contextlib
import json
import os
import queue
import re
import select
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
from tests.support.waiting import slowness

# Failing so says that the code could not be loaded, not that a promise was broken.
_UNLOADABLE = re.compile(r"(failed on \w+ with \")?(ImportError|ModuleNotFoundError|SyntaxError|NameError)\b")
_COLLECTION = "collection failure"
_GOODBYE_SECONDS = 10

# There is one time limit here, so that a hang is told from a failure. With a fault planted a wait in vain ends before,
# after 30 s on an idle machine. Without a fault it ends after as long as in any other run.
_TIMES = {"PYTEST_TIMEOUT": "0"}
_PATIENCE = str(slowness() / 2)


class Verdict(StrEnum):
    """What became of a planted fault."""

    CAUGHT = "caught"
    SURVIVED = "survived"
    HUNG = "ended by the time limit"
    BROKEN = "failed for the wrong reason"
    UNFIT = "its tests fail without it"
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

    def is_of(self, test: str) -> bool:
        """Tell whether `test` names the test that failed, or the file or class it stands in."""
        failed, named = _path(self.test), _path(test)
        return failed == named or failed.startswith((f"{named}[", f"{named}/"))

    def __str__(self) -> str:
        return f"{self.test}: {self.message}"


def _path(test: str) -> str:
    return test.replace(".py", "").replace("::", "/")


@dataclass(frozen=True)
class Ending:
    """How a run of pytest ended; `status` is None when it was ended by the time limit."""

    status: int | None
    failures: list[Failure]
    output: str


class UnfitTests(Exception):
    """Raised when the tests cannot be run without any fault; the message says why."""


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


class Pytest:
    """Runs pytest in one process after the other; `libraries` are loaded once for all of them."""

    def __init__(self, libraries: Sequence[str] = ()) -> None:
        self._zygote = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._write(["pytest", *libraries])

    def close(self) -> None:
        """Let go of the process that forks."""
        self._zygote.communicate()

    def run(self, tree: Path, arguments: Sequence[str], seconds: float, **environment: str) -> Ending:
        """Run pytest in the tree, for at most so many seconds."""
        report, output = tree.with_name(f"{tree.name}.xml"), tree.with_name(f"{tree.name}.out")
        report.unlink(missing_ok=True)
        options = ["-q", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}"]
        # No test needs Schemathesis' plugin, and what is loaded already cannot be rewritten.
        options += ["-p", "no:schemathesis", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        self._write(
            {
                "arguments": [*options, *arguments],
                "environment": _TIMES | environment,
                "folder": str(tree),
                "output": str(output),
            }
        )
        process = self._read()
        assert process is not None
        status = self._read(seconds)
        if status is None:
            self._end(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        return Ending(status, _failures(report), output.read_text(errors="replace"))

    def _end(self, process: int) -> None:
        # Interrupted, it takes down what it has started; what is left is killed with it.
        os.kill(process, signal.SIGINT)
        if self._read(_GOODBYE_SECONDS) is None:
            os.killpg(process, signal.SIGKILL)
            self._read()

    def _write(self, message: object) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(message).encode() + b"\n")

    def _read(self, seconds: float | None = None) -> int | None:
        """Return the next number, None when it does not come in time."""
        assert self._zygote.stdout is not None
        if not select.select([self._zygote.stdout], [], [], seconds)[0]:
            return None
        return int(self._zygote.stdout.readline())


def named_tests(faults: Iterable[Fault]) -> list[str]:
    """Return every test of `faults` once."""
    return sorted({test for fault in faults for test in fault.tests})


def run_without_faults(pytest: Pytest, tree: Path, named: Sequence[str], seconds: float, workers: int) -> list[Failure]:
    """Run the named tests once on the tree as it is, and return those that fail.

    Raises:
        UnfitTests: if they do not run to their end.
    """
    whole = {test for test in named if "::" not in test}
    tests = [test for test in named if test in whole or test.partition("::")[0] not in whole]
    together = ["--numprocesses", str(workers), "--dist", "loadfile"] if workers > 1 else []
    ending = pytest.run(tree, [*together, *tests], seconds) if tests else Ending(0, [], "")
    if ending.status not in (0, 1):
        raise UnfitTests("\n".join(map(str, ending.failures)) or ending.output[-4000:] or "no end in sight")
    return ending.failures


def unfit(faults: Iterable[Fault], failures: Sequence[Failure]) -> list[Result]:
    """Return a result for each fault of which a test fails anyway: such a test proves nothing."""
    return [
        Result(fault, Verdict.UNFIT, str(reasons[0]))
        for fault in faults
        if (reasons := [failure for failure in failures if any(map(failure.is_of, fault.tests))])
    ]


def libraries(tree: Path) -> list[str]:
    """Return what the tree's own code loads besides itself."""
    code = (
        "import json, os, sys, app, commands.serving, tests.support.api, tests.support.vendors\n"
        "files = {name: getattr(module, '__file__', None) or '' for name, module in sys.modules.items()}\n"
        "print(json.dumps([name for name, file in files.items() if file and not file.startswith(os.getcwd())]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tree, check=True, capture_output=True, text=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return [name for name in found if name != "__main__"]


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


def judge(pytest: Pytest, tree: Path, fault: Fault, seconds: float) -> Result:
    """Plant the fault in the tree, run its tests, and take it out again."""
    started = time.monotonic()
    with _planted(tree / fault.file, fault):
        ending = pytest.run(tree, ["-x", *fault.tests], seconds, PYTHONDONTWRITEBYTECODE="1", TEST_PATIENCE=_PATIENCE)
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
    sound: Path,
    faults: Sequence[Fault],
    *,
    seconds: float,
    deadline: float,
    workers: int,
    libraries: Sequence[str] = (),
) -> Iterator[Result]:
    """Judge every fault, several at once, each in a copy of `sound`; after `deadline` no further one is begun."""
    desks = queue.SimpleQueue[tuple[Pytest, Path]]()

    def work(fault: Fault) -> Result:
        if time.monotonic() > deadline:
            return Result(fault, Verdict.NOT_RUN)
        pytest, tree = desks.get()
        try:
            return judge(pytest, tree, fault, seconds)
        finally:
            desks.put((pytest, tree))

    with contextlib.ExitStack() as stack:
        for number in range(min(workers, len(faults))):
            pytest = stack.enter_context(contextlib.closing(Pytest(libraries)))
            desks.put((pytest, shutil.copytree(sound, sound.with_name(f"copy-{number}"))))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for done in as_completed([pool.submit(work, fault) for fault in faults]):
            yield done.result()
