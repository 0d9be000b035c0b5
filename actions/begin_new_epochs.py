"""Telling every listener that the logs are not the continuation of what it has seen."""

from persistence import continuity
from persistence.database import Database


async def begin_new_epochs(database: Database) -> None:
    """Give the log of every organization a new epoch; call it once a backup was restored into the database.

    Broadcasters that run notice within a second and tell their listeners; those who come back later are told then.
    """
    await database.write(continuity.begin_new_epochs)
