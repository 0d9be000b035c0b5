"""Whether this process lives and can serve, for load balancers and for whoever runs it at night."""

import asyncio
import time
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

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


class Health:
    """Answers `/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, relay: Relay, registry: CollectorRegistry) -> None:
        self._relay = relay
        self._registry = registry
        self._evaluation: asyncio.Task[tuple[bool, dict[str, Any]]] | None = None
        self._evaluated_at = 0.0
        self._stored_secrets: StoredSecrets | None = None
        self._secrets_tried_at = 0.0

    async def healthz(self, _: Request) -> Response:
        """Say that the process is alive; nothing else is asked."""
        return JSONResponse({"status": "ok", "version": self._relay.rules.version})

    async def readyz(self, _: Request) -> Response:
        """Say whether database and recording store can be used and stored secrets open; 503 if not.

        It is found out at most once a second, however often it is asked: the answer is everybody's until then.
        """
        now = time.monotonic()
        if self._evaluation is None or (self._evaluation.done() and now - self._evaluated_at >= _GOOD_FOR_SECONDS):
            self._evaluation, self._evaluated_at = asyncio.create_task(self._evaluated()), now
        is_ready, body = await asyncio.shield(self._evaluation)
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def _evaluated(self) -> tuple[bool, dict[str, Any]]:
        checks = {"database": await self._database(), "recordings": await self._recordings()}
        ready = all(problem is None for problem in checks.values())
        secrets = await self._secrets() if checks["database"] is None else None
        checks["secrets"] = secrets.problem if secrets else None
        # One organization's credentials that do not open leave the others served; if nothing opens, the keys are wrong.
        ready = ready and not (secrets and secrets.problem and not any(secrets.by_key.values()))
        body = {
            "status": "ready" if ready else "unavailable",
            "checks": {name: problem or "ok" for name, problem in checks.items()},
        }
        return ready, body

    async def metrics(self, _: Request) -> Response:
        """Return what Prometheus collects."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

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
