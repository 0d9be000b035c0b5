"""The door to the database.

`read` and `write` take a *unit*: a plain function that uses the models. `write` returns only after the unit is durable.
What differs between engines is in `sqlite.py` and `postgresql.py`, and nowhere else.
"""

import contextlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol, TypeVar

from domain.errors import ConfigurationError
from persistence.sqlite import EmbeddedDatabase
from persistence.statements import Statement

R = TypeVar("R")


class Follower(Protocol):
    """Waits for commits of any process and reads what they hold; for one task at a time."""

    async def wait(self, seconds: float) -> Collection[str] | None:
        """Return as soon as something may have been committed, or after `seconds`; 0 looks without waiting.

        Returns:
            the organizations that may have new events, None if it may be any of them, and nobody when time is up.
        """
        ...

    async def rows(self, statement: Statement, /, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return all its rows."""
        ...


class Database(Protocol):
    """A database that units are run on."""

    async def read(self, unit: Callable[[], R]) -> R:
        """Run a unit that only reads, and return what it returns."""
        ...

    async def read_aside(self, unit: Callable[[], R]) -> R:
        """Run a reading unit that looks at very many rows, so that nobody else waits for it."""
        ...

    async def write(self, unit: Callable[[], R], *, of: str | None = None) -> R:
        """Run a unit in a transaction; return what it returns once it is durable.

        `of` is an organization. Its units run one after the other: each begins with the organization's row acquired,
        in every process, and sees what those before it committed. Those that wait may share a commit. A unit may be run
        more than once, but is kept once.

        Raises:
            Overloaded: when the database is locked, full or gone; nothing of the unit was kept.
        """
        ...

    def follow(self) -> contextlib.AbstractAsyncContextManager[Follower]:
        """Listen for commits of every process on this database."""
        ...

    async def place(self) -> str:
        """Return what tells this database from one that was put in its place: its file, or its server and timeline.

        Raises:
            Overloaded: when the database cannot say so just now.
        """
        ...

    async def scrub(self) -> None:
        """See to it that what was deleted or replaced stands in no file of an embedded database any more.

        Returns once it is so, or after a second at the latest; a reader may hold it up, and then it goes on by itself.
        A server's files are its own to clean (`VACUUM`).
        """
        ...

    def migrate(self) -> list[str]:
        """Bring the schema up to date; return the names of the migrations that were applied."""
        ...

    def pending_migrations(self) -> list[str]:
        """Return the names of the migrations that have yet to be applied."""
        ...

    def unknown_migrations(self) -> list[str]:
        """Return the names of the migrations that a newer version of this program has applied."""
        ...

    def close(self) -> None:
        """Finish the units that wait, and let go of the database."""
        ...


def open_database(url: str) -> Database:
    """Open the database at `url` (`sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://…`).

    Raises:
        ConfigurationError: when the URL names no engine we know or the database cannot be used.
    """
    scheme = url.partition("://")[0]
    path = embedded_path(url)
    if path is not None:
        return EmbeddedDatabase(path)
    if scheme in ("postgresql", "postgres"):
        from persistence.postgresql import ServerDatabase  # its driver is not needed otherwise

        return ServerDatabase(url)
    raise ConfigurationError(
        f"DATABASE_URL has the scheme {scheme!r}; use postgresql://… or sqlite:///path/to/file.db."
    )


def embedded_path(url: str) -> Path | None:
    """Return the file of the embedded database at `url`, or None if the URL names no file."""
    scheme, _, rest = url.partition("://")
    name = rest.removeprefix("/")
    return Path(name) if scheme == "sqlite" and name else None
