"""Files written all or none, whatever ends the program.

New contents are written beside their targets, into one folder inside `openapi/`, and only then does a journal appear in
it, by one rename. From then on the change is decided: each file is renamed to its target, and a program that was killed
in between is finished by the next one. What people changed in the meantime is not overwritten: then the change is
undone instead. Before the journal there is nothing to undo but the folder. A lock on `openapi/` itself lets one program
at a time do this, and leaves no file behind.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_FOLDER = Path("openapi", ".update")
_JOURNAL = "journal.json"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file of a change: its target, the names of its new and its former content, and their digests."""

    target: str
    new: str
    former: str | None
    after: str
    before: str | None


@contextlib.contextmanager
def locked(root: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other programs that change the contract of the tree at `root` waiting; `shared` lets those in that read."""
    handle = os.open(root / "openapi", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def is_pending(root: Path) -> bool:
    """Tell whether an earlier change was cut short and has yet to be finished or undone."""
    return (root / _FOLDER).exists()


def recover(root: Path) -> None:
    """Finish or undo an earlier change that was cut short; call this under the lock."""
    folder = root / _FOLDER
    if (folder / _JOURNAL).exists():
        entries = [_Entry(**entry) for entry in json.loads((folder / _JOURNAL).read_bytes())]
        if all(_can_be_finished(root, entry) for entry in entries):
            _apply(root, entries)
        else:
            _undo(root, entries)
    _clear(folder)


def write(root: Path, files: Mapping[Path, bytes]) -> None:
    """Give every file its content, or none of them; call this under the lock.

    Raises:
        OSError: when one cannot be written; those before it are put back.
    """
    folder = root / _FOLDER
    if not files:
        return
    try:
        entries = _stage(root, files)
    except BaseException:
        _clear(folder)
        raise
    try:
        _apply(root, entries)
    except BaseException:
        # If even this fails the journal stays, and the next program tries again.
        _undo(root, entries)
        _clear(folder)
        raise
    _clear(folder)


def _stage(root: Path, files: Mapping[Path, bytes]) -> list[_Entry]:
    folder = root / _FOLDER
    folder.mkdir()
    entries = [_staged(root, number, path, content) for number, (path, content) in enumerate(files.items())]
    draft = folder / "draft.json"
    _put(draft, json.dumps([asdict(entry) for entry in entries]).encode())
    _sync(folder)
    draft.replace(folder / _JOURNAL)
    _sync(folder)
    return entries


def _staged(root: Path, number: int, path: Path, content: bytes) -> _Entry:
    folder, new, former = root / _FOLDER, f"{number}.new", f"{number}.former"
    _put(folder / new, content, path.stat().st_mode & 0o777 if path.exists() else 0o644)
    if path.exists():
        _put(folder / former, path.read_bytes(), path.stat().st_mode & 0o777)
    return _Entry(
        str(path.relative_to(root)),
        new,
        former if path.exists() else None,
        hashlib.sha256(content).hexdigest(),
        _digest(path),
    )


def _apply(root: Path, entries: list[_Entry]) -> None:
    for entry in entries:
        staged, target = root / _FOLDER / entry.new, root / entry.target
        if staged.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)
            _sync(target.parent)


def _can_be_finished(root: Path, entry: _Entry) -> bool:
    present = _digest(root / entry.target)
    return present == entry.after or (present == entry.before and (root / _FOLDER / entry.new).exists())


def _undo(root: Path, entries: list[_Entry]) -> None:
    for entry in entries:
        target = root / entry.target
        if _digest(target) != entry.after or entry.after == entry.before:
            continue
        if entry.former is None:
            target.unlink()
        elif (root / _FOLDER / entry.former).exists():
            (root / _FOLDER / entry.former).replace(target)


def _clear(folder: Path) -> None:
    # The journal goes first: without it there is nothing to finish.
    if folder.exists():
        (folder / _JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(folder)


def _put(path: Path, content: bytes, mode: int = 0o600) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(mode)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
