"""Databases with organizations, users and their tokens in them, made once and copied for every run."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from domain.identifiers import new_id
from keyring.tokens import Tokens, shared_key
from persistence.database import open_database
from persistence.models import Organization, User

SECRET = "only for measurements on the loopback address"
_LIFETIME = 3600
_ROWS = 500


@dataclass(frozen=True)
class Tenants:
    """A database to be copied; `tokens` is a file with a token in each line, the organizations taking turns."""

    url: str
    folder: Path
    organizations: list[str]
    tokens: Path

    @contextlib.contextmanager
    def copy(self) -> Iterator[str]:
        """Yield the URL of a copy, which is gone afterwards."""
        if self.url.startswith("postgresql"):
            from tests.support import postgresql

            url = postgresql.create(self.url)
            try:
                yield url
            finally:
                postgresql.drop(url)
            return
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        shutil.copy(self.folder / "template.db", folder / "relay.db")
        try:
            yield f"sqlite:///{folder}/relay.db"
        finally:
            shutil.rmtree(folder)


async def sqlite(folder: Path, organizations: int, users: int) -> Tenants:
    """Make organizations with that many users in all, in a file in `folder`."""
    return await _populate(f"sqlite:///{folder}/template.db", folder, organizations, users)


async def postgresql(folder: Path, organizations: int, users: int) -> Tenants:
    """Make the same on PostgreSQL: the server at TEST_DATABASE_URL, or a throw-away one."""
    from tests.support import postgresql as servers

    return await _populate(servers.create(), folder, organizations, users)


async def _populate(url: str, folder: Path, organizations: int, users: int) -> Tenants:
    await asyncio.to_thread(folder.mkdir, parents=True)
    database = open_database(url)
    database.migrate()
    issuer = Tokens([shared_key(SecretStr(SECRET))])

    def unit() -> tuple[list[str], list[str]]:
        ids = [Organization.create(name=f"Bench {number}").id for number in range(organizations)]
        staff = [_user(ids[number % organizations]) for number in range(users)]
        User.bulk_create(staff, _ROWS)
        return ids, [user.id for user in staff]

    ids, user_ids = await database.write(unit)
    database.close()
    tokens = folder / "tokens"
    tokens.write_text("".join(f"{issuer.issue(user_id, 0, _LIFETIME)}\n" for user_id in user_ids))
    return Tenants(url, folder, ids, tokens)


def _user(organization_id: str) -> User:
    key = new_id()
    return User(
        id=key, organization=organization_id, email=key, full_name="Robin Example", password_hash="none", role="agent"
    )
