"""Whether this process lives and can serve, for load balancers and for whoever runs it at night."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from actions.check_readiness import Readiness
from actions.relay import Relay


class Health:
    """Answers `/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, relay: Relay, registry: CollectorRegistry) -> None:
        self._version = relay.rules.version
        self._readiness = Readiness(relay)
        self._registry = registry

    async def healthz(self, _: Request) -> Response:
        """Say that the process is alive; nothing else is asked."""
        return JSONResponse({"status": "ok", "version": self._version})

    async def readyz(self, _: Request) -> Response:
        """Say whether database and recording store can be used and stored secrets open; 503 if not."""
        found = await self._readiness.check()
        checks = {name: problem or "ok" for name, problem in found.problems.items()}
        body = {"status": "ready" if found.is_ready else "unavailable", "checks": checks}
        return JSONResponse(body, status_code=200 if found.is_ready else 503)

    async def metrics(self, _: Request) -> Response:
        """Return what Prometheus collects."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
