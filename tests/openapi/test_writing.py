"""All or nothing: a change of several files, ended at every step by what cannot be caught."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from openapi.generating import writing

ROOT = Path(writing.__file__).resolve().parents[2]

BEFORE = {"openapi/models.py": b"old models", "handlers/calls.py": b"written by hand", "openapi/same.py": b"same"}
AFTER = BEFORE | {
    "openapi/models.py": b"new models",
    "handlers/calls.py": b"written by hand, and a stub",
    "handlers/leads.py": b"a stub",
}

# Ends its own process, by a signal that cannot be caught, at the n-th thing it does to the file system.
_KILLED = """
import os, signal, sys
from pathlib import Path
from openapi.generating import writing

root, left = Path(sys.argv[1]), int(sys.argv[2])
EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "open", "shutil.rmtree"}

def step(event, given):
    global left
    if event in EVENTS and str(root) in str(given[0]):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

files = {root / name: Path(sys.argv[3], name).read_bytes() for name in sys.argv[4:]}
with writing.locked(root):
    sys.addaudithook(step)
    writing.write(root, files)
"""


def fill(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def files_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def changed(root: Path) -> dict[Path, bytes]:
    return {root / name: content for name, content in AFTER.items() if BEFORE.get(name) != content}


def killed(root: Path, new: Path, steps: int) -> bool:
    """Tell whether the change of the tree at `root` was killed after so many steps; it ended by itself otherwise."""
    names = [str(path.relative_to(root)) for path in changed(root)]
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(root), str(steps), str(new), *names], cwd=ROOT, capture_output=True
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


def recover(root: Path) -> dict[str, bytes]:
    with writing.locked(root):
        writing.recover(root)
    assert not writing.is_pending(root)
    return files_in(root)


@pytest.mark.processes
def test_change_killed_at_any_step_is_finished_or_undone(tmp_path: Path) -> None:
    """After the next run the files are all new or all old, and nothing else is there."""
    new = fill(tmp_path / "new", AFTER)
    outcomes, steps = [], 0
    while killed(root := fill(tmp_path / f"tree{steps}", BEFORE), new, steps):
        outcomes.append(recover(root))
        steps += 1

    assert files_in(root) == AFTER
    assert [each for each in outcomes if each not in (BEFORE, AFTER)] == []
    # It is decided once, in between: what was killed before is undone, what was killed later is finished.
    assert outcomes == sorted(outcomes, key=lambda each: each == AFTER)
    assert BEFORE in outcomes
    assert AFTER in outcomes


@pytest.mark.processes
def test_change_that_people_went_on_from_is_undone(tmp_path: Path) -> None:
    """What was edited between a kill and the next run stays; what the killed run had already written is put back."""
    new = fill(tmp_path / "new", AFTER)
    outcomes, steps = [], 0
    while killed(root := fill(tmp_path / f"tree{steps}", BEFORE), new, steps):
        was_decided = (root / "openapi" / ".update" / "journal.json").exists()
        (root / "handlers" / "calls.py").write_bytes(b"edited")
        outcomes.append((was_decided, recover(root)))
        steps += 1

    mine = {"handlers/calls.py": b"edited"}
    finished = [files for was_decided, files in outcomes if was_decided]
    assert finished
    assert [files for files in finished if files != BEFORE | mine] == []


def test_change_that_fails_puts_everything_back(tmp_path: Path) -> None:
    """A file that cannot be written leaves those before it as they were, with their permissions, and no draft."""
    root = fill(tmp_path / "tree", BEFORE)
    (root / "openapi" / "models.py").chmod(0o640)
    (root / "handlers" / "leads.py" / "child").mkdir(parents=True)

    with pytest.raises(OSError, match=r"leads\.py"):
        writing.write(root, changed(root))

    assert files_in(root) == BEFORE
    assert (root / "openapi" / "models.py").stat().st_mode & 0o777 == 0o640
    assert not writing.is_pending(root)


def test_permissions_of_a_file_survive(tmp_path: Path) -> None:
    """Generating changes what is in a file, not who may read it."""
    root = fill(tmp_path / "tree", BEFORE)
    (root / "openapi" / "models.py").chmod(0o600)
    writing.write(root, changed(root))

    assert files_in(root) == AFTER
    assert (root / "openapi" / "models.py").stat().st_mode & 0o777 == 0o600


def test_two_changes_at_once_follow_each_other(tmp_path: Path) -> None:
    """The second waits for the first; the lock leaves no file behind."""
    root = fill(tmp_path / "tree", BEFORE)
    order: list[str] = []
    with writing.locked(root):
        second = threading.Thread(target=lambda: _note_under_lock(root, order))
        second.start()
        _wait_until_blocked(root)
        order.append("first")
    second.join()

    assert order == ["first", "second"]
    assert files_in(root) == BEFORE


def _note_under_lock(root: Path, order: list[str]) -> None:
    with writing.locked(root):
        order.append("second")


def _wait_until_blocked(root: Path) -> None:
    """Wait until somebody waits for the lock on the folder, as the kernel tells."""
    inode = (root / "openapi").stat().st_ino
    while not any("->" in line and f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines()):
        os.sched_yield()
