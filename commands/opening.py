"""What every command begins with: the settings, log lines that look as they say, and the relay built from them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from actions.relay import Relay
from app import open_relay
from commands import private_files
from config import Settings, existing_settings, load_settings
from domain.errors import ConfigurationError, NotFound
from logs import configure_logging
from persistence import organizations
from persistence.database import Database
from persistence.models import Organization
from version import VERSION

R = TypeVar("R")


def read_settings() -> Settings:
    """Read the settings and have everything logged as they say."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    private_files.narrow(settings.data_dir)
    return settings


def look_at_settings() -> Settings:
    """Read the settings and have everything logged as they say, without writing anything."""
    settings = existing_settings()
    configure_logging(settings.log_level, settings.log_format)
    return settings


def run(act: Callable[[Relay], Awaitable[R]]) -> R:
    """Build the relay, do `act` with it, and let go of it.

    Raises:
        ConfigurationError: when the database has not had every migration.
    """
    settings = read_settings()

    async def inside() -> R:
        async with open_relay(settings) as relay:
            refuse_newer(relay.database)
            if relay.database.pending_migrations():
                raise ConfigurationError("The database is not up to date; run `manage.py migrate` first.")
            return await act(relay)

    return asyncio.run(inside())


def refuse_newer(database: Database) -> None:
    """Refuse a database that a newer version has migrated.

    Raises:
        ConfigurationError: if it has had a migration that this version does not know.
    """
    unknown = database.unknown_migrations()
    if unknown:
        raise ConfigurationError(
            f"The database was migrated by a newer version than {VERSION} (it has {unknown[-1]}). "
            "Run that version, or restore a backup that was made before the upgrade."
        )


async def in_organization(relay: Relay, organization: str, act: Callable[[Organization], Awaitable[R]]) -> R:
    """Do `act` with the organization of that id or name.

    Raises:
        NotFound: when there is none.
    """
    found = await relay.database.read(lambda: organizations.get(organization) or organizations.by_name(organization))
    if found is None:
        raise NotFound(f"There is no organization {organization!r}; `manage.py org list` shows them all.")
    return await act(found)
