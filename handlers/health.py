"""Whether this process lives and can serve, for load balancers and for whoever runs it at night."""

import asyncio

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actions.relay import Relay
from domain.errors import RelayError, facts_of
from persistence import readiness

# A database that takes longer has a lock on it, or more to do than it can.
_PATIENCE_SECONDS = 3

log = structlog.get_logger()


class Health:
    """Answers `/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, relay: Relay, registry: CollectorRegistry) -> None:
        self._relay = relay
        self._registry = registry

    async def healthz(self, _: Request) -> Response:
        """Say that the process is alive; nothing else is asked."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """Say whether the database is there and up to date and the recording store can be used; 503 if not."""
        checks = {"database": await self._database(), "recordings": await self._recordings()}
        ready = all(problem is None for problem in checks.values())
        body = {
            "status": "ready" if ready else "unavailable",
            "checks": {name: problem or "ok" for name, problem in checks.items()},
        }
        return JSONResponse(body, status_code=200 if ready else 503)

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

    async def _recordings(self) -> str | None:
        try:
            await self._relay.store.check()
        except RelayError as error:
            log.error("readiness.recordings", **facts_of(error))
            return "the recording store cannot be used"
        return None
