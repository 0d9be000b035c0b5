"""A file of SQLite for every test, copied from one that was migrated once."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from persistence.database import open_database


def create(folder: Path) -> str:
    """Make a migrated database with nothing in it in `folder`, and return its URL."""
    return _url(Path(shutil.copy2(_migrated(), folder)))


@cache
def _migrated() -> Path:
    """Return the template; closing it has put everything into the one file."""
    folder = Path(tempfile.mkdtemp(prefix="relay-sqlite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    template = folder / "relay.db"
    database = open_database(_url(template))
    database.migrate()
    database.close()
    return template


def _url(path: Path) -> str:
    return f"sqlite:///{path}"
