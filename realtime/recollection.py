"""What a broadcaster remembers of its database from one run to the next, in a file beside it.

A backup that is restored while everything is stopped, file over file, is in the same place and looks like the database
it was taken from. Only something outside of it can tell that it went back.
"""

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

import structlog

from domain import documents
from domain.errors import InvalidRequest
from persistence.continuity import Witnessed

log = structlog.get_logger()


class Remembered(NamedTuple):
    """A checkpoint, the marks one of which it has, the newest generation of epochs, and the newest events, by place."""

    checkpoint_id: str
    marks: list[str]
    generation: int
    witnessed: list[Witnessed]


class Recollection:
    """Keeps one broadcaster's memory at `path`; a second broadcaster that is given the same path has none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = self._acquire()

    @property
    def is_kept(self) -> bool:
        """Whether anything is remembered here."""
        return self._lock is not None

    def load(self) -> Remembered | None:
        """Return what was saved last, None without it or if it cannot be read."""
        if self._lock is None:
            return None
        try:
            checkpoint_id, marks, generation, witnessed = documents.load(self._path.read_bytes())
            events = [Witnessed(str(whose), int(sequence), str(at)) for whose, sequence, at in witnessed]
            return Remembered(str(checkpoint_id), [str(mark) for mark in marks], int(generation), events)
        except (OSError, InvalidRequest, TypeError, ValueError):
            return None

    def save(self, remembered: Remembered) -> None:
        """Replace what was saved; without room on the disk, nothing is remembered."""
        if self._lock is None:
            return
        written = self._path.with_suffix(".new")
        try:
            with open(written, "wb", opener=_private) as file:
                file.write(documents.dump(list(remembered)))
            written.replace(self._path)
        except OSError as error:
            log.warning("log.not_remembered", path=str(self._path), reason=str(error))

    def close(self) -> None:
        """Let another broadcaster have the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _acquire(self) -> int | None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            log.warning("log.not_remembered", path=str(self._path), reason=str(error))
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        return lock


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
