"""What the broadcaster counts, for `/metrics`; every server has a registry of its own."""

import time
from collections.abc import Callable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

Number = Callable[[], float]

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)


class Metrics:
    """Counters and gauges of one broadcaster process."""

    def __init__(
        self,
        *,
        listeners: Number,
        unauthenticated: Number,
        behind: Number,
        tail_idle: Number,
        version: str = "",
    ) -> None:
        self._registry = CollectorRegistry()
        Info("relay_build", "What runs here.", registry=self._registry).info({"version": version})
        self.lag_seconds = 0.0
        self.events = self._counter("events", "Events read from the outbox")
        self.deliveries = self._counter("deliveries", "Event frames written to live listeners")
        self.held = self._counter("held", "Listeners taken out of live delivery because their write buffer was full")
        self.replays = self._counter("replay_pages", "Pages replayed", ["source"])
        self.heartbeats = self._counter("heartbeats", "Pings sent to listeners")
        self.pongs = self._counter("pongs", "Pings of listeners that were answered")
        self.gaps = self._counter("gaps", "Gaps told: something was pruned or missing, or a log was replaced")
        self.replaced = self._counter("logs_replaced", "Logs whose epoch changed while this process was running")
        self.refused = self._counter("refused", "Connections refused before or instead of a hello", ["reason"])
        self.dropped = self._counter("dropped", "Connections without a token ended because newer ones came")
        self.quota_refused = self._counter("quota_refused", "Connections refused because of a quota")
        self.closed = self._counter("closed", "Connections closed by us", ["code"])
        self._lag = Histogram(
            "realtime_lag_seconds", "From an event's time to its write", buckets=_LAG_BUCKETS, registry=self._registry
        )
        self._gauge("realtime_listeners", "Authenticated listeners", listeners)
        self._gauge("realtime_unauthenticated", "Connections that have shown no token yet", unauthenticated)
        self._gauge("realtime_listeners_behind", "Listeners that are catching up", behind)
        self._gauge("realtime_tail_idle_seconds", "Seconds since the outbox was last read", tail_idle)

    def delivered(self, count: int, at: str) -> None:
        """Count frames that were written just now; the oldest is of the time `at`."""
        self.deliveries.inc(count)
        self.lag_seconds = max(0.0, time.time() - datetime.fromisoformat(at).timestamp())
        self._lag.observe(self.lag_seconds)

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"realtime_{name}", text, labels or [], registry=self._registry)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(read)
