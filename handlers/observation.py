"""What is seen of every request: its id, one log line, and the figures Prometheus collects."""

import re
import secrets
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from functools import cache
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Asked every few seconds by machines; what they are told is in the figures.
_PROBED = frozenset({"/healthz", "/readyz", "/metrics"})

Header = tuple[bytes, bytes]

log = structlog.get_logger()


class Observation:
    """Wraps the application. A caller's `X-Request-Id` is kept when it is a plain token, otherwise one is made.

    `headers` are added to every answer.

    What is not routed to an operation counts as "none", so that a scanner cannot make a metric per path.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry, headers: Sequence[Header] = ()) -> None:
        self._app = app
        self._headers = tuple(headers)
        labels = ("operation", "status")
        requests = Counter("relay_requests", "Requests answered.", labels, registry=registry)
        seconds = Histogram(
            "relay_request_seconds", "Time to the last byte.", ("operation",), buckets=_BUCKETS, registry=registry
        )
        # Looking a metric up by its labels costs more than counting; there are only so many operations and statuses.
        self._requests = cache(lambda operation, status: requests.labels(operation, str(status)))
        self._seconds = cache(lambda operation: seconds.labels(operation))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        headers = (*self._headers, (b"x-request-id", request_id.encode()))
        status, started = 0, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        bound = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._note(scope, status, time.perf_counter() - started)
            structlog.contextvars.reset_contextvars(**bound)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        operation = scope["state"].get("operation") or "none"
        self._requests(operation, status).inc()
        self._seconds(operation).observe(seconds)
        tell = log.debug if scope["path"] in _PROBED else log.info
        tell(
            "request",
            method=scope["method"],
            path=scope["path"],
            operation=operation,
            status=status,
            milliseconds=round(seconds * 1000, 2),
        )


class Refusals(Collector):
    """Shows how often something was refused, by one label; unless told otherwise vendors' signatures, by vendor."""

    def __init__(
        self,
        counts: Mapping[str, int],
        name: str = "relay_signatures_refused",
        words: str = "Deliveries refused because their signature proves nothing.",
        label: str = "vendor",
    ) -> None:
        self._counts = counts
        self._family = (name, words)
        self._label = label

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return what was counted up to now."""
        family = CounterMetricFamily(*self._family, labels=(self._label,))
        for value, count in self._counts.items():
            family.add_metric((value,), count)
        yield family


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.match(value):
            return str(value.decode())
    return secrets.token_hex(16)
