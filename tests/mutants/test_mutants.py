"""What plants faults is itself tested, on a tree of two files."""

import contextlib
import time
from pathlib import Path

import pytest

from tests.mutants import faults
from tests.mutants.faults import Fault
from tests.mutants.running import (
    Pytest,
    UnfitTests,
    Verdict,
    copied,
    judge_all,
    named_tests,
    run_without_faults,
    unfit,
)

pytestmark = pytest.mark.processes

CODE = "def double(number):\n    return 2 * number\n"
TESTS = """
from room.code import double

def test_three_is_doubled():
    assert double(3) == 6

def test_nothing_is_said_about_four():
    double(4)
"""


def fault(replace: str, test: str = "", **more: object) -> Fault:
    named = f"tests/test_code.py{test and '::'}{test}"
    return Fault("room", replace, "room/code.py", "", "2 * number", replace, (named,), **more)  # type: ignore[arg-type]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two files; the plugins of this repository have no part in it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name, text in (("room/code.py", CODE), ("tests/test_code.py", TESTS)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


FILES = (Path("room/code.py"), Path("tests/test_code.py"))


def test_every_ending_is_told_apart(tree: Path) -> None:
    endless = "sum(1 for _ in iter(int, 1))"
    expected = {
        fault("3 * number"): (Verdict.CAUGHT, True),
        fault("3 * number", "test_nothing_is_said_about_four"): (Verdict.SURVIVED, False),
        fault("nothing * number"): (Verdict.BROKEN, False),
        fault("__import__('nowhere')"): (Verdict.BROKEN, False),
        fault("2 * number\nimport nowhere"): (Verdict.BROKEN, False),
        fault(endless): (Verdict.HUNG, False),
        fault(endless, hangs=True): (Verdict.HUNG, True),
    }
    with copied(tree, FILES) as sound:
        with contextlib.closing(Pytest()) as runner:
            assert run_without_faults(runner, sound, named_tests(expected), 60, workers=1) == []
        results = list(judge_all(sound, list(expected), seconds=3, deadline=time.monotonic() + 60, workers=2))
    assert {result.fault: (result.verdict, result.is_caught) for result in results} == expected
    assert [result.told for result in results if result.verdict is Verdict.CAUGHT] == [
        "tests/test_code.py::test_three_is_doubled: assert 9 == 6"
    ]


def test_a_test_that_fails_anyway_proves_nothing(tree: Path) -> None:
    (tree / "room/code.py").write_text(CODE.replace("2", "3"))
    planted = [fault("4 * number"), fault("5 * number", "test_nothing_is_said_about_four")]
    with copied(tree, FILES) as sound, contextlib.closing(Pytest()) as runner:
        failures = run_without_faults(runner, sound, named_tests(planted), 60, workers=1)
    (result,) = unfit(planted, failures)
    assert (result.fault, result.verdict, result.is_caught) == (planted[0], Verdict.UNFIT, False)
    assert result.told == "tests/test_code.py::test_three_is_doubled: assert 9 == 6"


def test_tests_that_cannot_be_loaded_end_the_run(tree: Path) -> None:
    (tree / "room/code.py").write_text("import nowhere\n")
    with (
        copied(tree, FILES) as sound,
        contextlib.closing(Pytest()) as runner,
        pytest.raises(UnfitTests, match="test_code"),
    ):
        run_without_faults(runner, sound, named_tests([fault("4 * number")]), 60, workers=1)


def test_after_the_deadline_no_fault_is_planted(tree: Path) -> None:
    with copied(tree, FILES) as sound:
        (result,) = judge_all(sound, [fault("3 * number")], seconds=3, deadline=0, workers=1)
    assert result.verdict is Verdict.NOT_RUN
    assert not result.is_caught


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (fault("3 * number", "test_gone"), "there is no test tests/test_code.py::test_gone."),
        (Fault("room", "n", "room/code.py", "", "number", "x", ("tests/test_code.py",)), "occurs 2 times"),
        (Fault("room", "n", "room/gone.py", "", "number", "x", ("tests/test_code.py",)), "there is no file"),
        (Fault("attic", "n", "room/code.py", "", "2 * number", "0", ("tests/test_code.py",)), "another room"),
        (fault("2 *"), "does not compile"),
        (fault("nothing * number"), "names that room/code.py does not have: nothing."),
        (Fault("room", "n", "room/code.py", "", "2 * number", "0"), "give either the tests"),
    ],
)
def test_a_fault_that_cannot_be_planted_is_named(tree: Path, wrong: Fault, complaint: str) -> None:
    assert complaint in " ".join(faults.complaints([wrong], tree))


def test_a_good_fault_is_not_complained_about(tree: Path) -> None:
    found = list(faults.complaints([fault("3 * number")], tree))
    assert not [complaint for complaint in found if complaint.startswith("room: 3 * number")]
