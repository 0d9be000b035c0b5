"""How large the database is, and what time its server has."""

from typing import Any

from peewee import SqliteDatabase

from persistence.models import Recording
from persistence.units import engine


def size() -> int:
    """Return the size of the database in bytes, a write-ahead log of its own not included."""
    if isinstance(engine(), SqliteDatabase):
        query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    else:
        query = "SELECT pg_database_size(current_database())"
    return int(engine().execute_sql(query).fetchone()[0])


def clock() -> float | None:
    """Return the time of the server in Unix seconds, or None if the database has no clock of its own."""
    if isinstance(engine(), SqliteDatabase):
        return None
    return float(engine().execute_sql("SELECT EXTRACT(EPOCH FROM clock_timestamp())").fetchone()[0])


def newest_recordings(limit: int) -> list[str]:
    """Return the keys of the recordings that were stored last."""
    query: Any = Recording.select(Recording.key).order_by(Recording.id.desc()).limit(limit)
    return [key for (key,) in query.tuples()]
