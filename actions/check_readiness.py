"""Whether this process can serve, as `/readyz` says: the database takes writes, recordings are kept, secrets open."""

import asyncio
import time
from dataclasses import dataclass

import structlog

from actions.relay import Relay
from actions.stored_secrets import StoredSecrets, look_at_secrets
from domain.errors import RelayError, facts_of
from persistence import readiness

# A database that takes longer has a lock on it, or more to do than it can.
_PATIENCE_SECONDS = 3
_GOOD_FOR_SECONDS = 1
# Each costs some microseconds to open, and only a restart brings other keys.
_SECRETS_GOOD_FOR_SECONDS = 600

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ready:
    """Whether the process can serve, and what is wrong with each thing that was tried, None if nothing is."""

    is_ready: bool
    problems: dict[str, str | None]


class Readiness:
    """Finds it out at most once a second, however often it is asked: the answer is everybody's until then."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._evaluation: asyncio.Task[Ready] | None = None
        self._evaluated_at = 0.0
        self._stored_secrets: StoredSecrets | None = None
        self._secrets_tried_at = 0.0

    async def check(self) -> Ready:
        """Return whether the process can serve."""
        now = time.monotonic()
        if self._evaluation is None or (self._evaluation.done() and now - self._evaluated_at >= _GOOD_FOR_SECONDS):
            self._evaluation, self._evaluated_at = asyncio.create_task(self._evaluated()), now
        return await asyncio.shield(self._evaluation)

    async def _evaluated(self) -> Ready:
        problems = {"database": await self._database(), "recordings": await self._recordings()}
        is_ready = all(problem is None for problem in problems.values())
        secrets = await self._secrets() if problems["database"] is None else None
        problems["secrets"] = secrets.problem if secrets else None
        # One organization's credentials that do not open leave the others served; if nothing opens, the keys are wrong.
        is_ready = is_ready and not (secrets and secrets.problem and not any(secrets.by_key.values()))
        return Ready(is_ready, problems)

    async def _database(self) -> str | None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._relay.database.write(readiness.write_something)
            pending = self._relay.database.pending_migrations()
        except Exception as error:
            log.error("readiness.database", **facts_of(error))
            return "the database cannot be written"
        return "migrations are pending: run manage.py migrate" if pending else None

    async def _secrets(self) -> StoredSecrets | None:
        now = time.monotonic()
        if self._stored_secrets is None or now - self._secrets_tried_at >= _SECRETS_GOOD_FOR_SECONDS:
            try:
                self._stored_secrets, self._secrets_tried_at = await look_at_secrets(self._relay), now
            except RelayError as error:
                log.error("readiness.secrets", **facts_of(error))
        return self._stored_secrets

    async def _recordings(self) -> str | None:
        try:
            await self._relay.store.check()
        except RelayError as error:
            log.error("readiness.recordings", **facts_of(error))
            return "the recording store cannot be used"
        return None
