"""Which processes use an embedded database: each shares a lock, and a process that replaces the file needs it alone.

SQLite's own locks belong to one file. A process that opens the database while it is replaced would go on with the file
that was there before, and what it writes would be lost. This lock is kept on a file of its own beside the database.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from domain.errors import ConfigurationError


class Presence:
    """Says that this process uses the database at `path`, until it is closed or the process ends."""

    def __init__(self, path: Path) -> None:
        """Share the lock.

        Raises:
            ConfigurationError: if the database is being replaced.
        """
        self._file = _opened(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise ConfigurationError(f"The database {path} is being restored. Try again when that is over.") from error

    def close(self) -> None:
        """Release the lock."""
        os.close(self._file)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep every other process from the database at `path`, which need not exist, while the context lasts.

    An existing database is left without a write-ahead log.

    Raises:
        ConfigurationError: if a process uses the database, be it ours or another program.
    """
    in_use = ConfigurationError(
        f"The database {path} is in use. Stop the API, the broadcaster and every other program that has it open."
    )
    file = _opened(path)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise in_use from error
        if _is_open_elsewhere(path):
            raise in_use
        yield
    finally:
        os.close(file)


def _opened(path: Path) -> int:
    return os.open(path.with_suffix(".in-use"), os.O_CREAT | os.O_RDWR, 0o600)


def _is_open_elsewhere(path: Path) -> bool:
    """Tell whether a program that does not share the lock has the database open: SQLite's own locks say so."""
    if not path.exists():
        return False
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            return "locked" in str(error)
        except sqlite3.DatabaseError:
            return False  # it is no database, so no program uses it as one
        connection.execute("ROLLBACK")
    return False
