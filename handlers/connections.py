"""How many connections a server keeps at once, in all and from one address."""

import time
from collections import Counter

import structlog

from domain.addresses import Proxies, network_of

_SECONDS_BETWEEN_LINES = 10.0

log = structlog.get_logger()


class Connections:
    """Counts the open connections of one listening socket; 0 is no limit.

    A peer that is one of `proxies` stands for many clients, so only the limit of all connections applies to it.
    """

    def __init__(self, limit: int = 0, per_address: int = 0, proxies: Proxies | None = None) -> None:
        self._limit = limit
        self._per_address = per_address
        self._proxies = proxies or Proxies()
        self._open = 0
        self._by_address: Counter[str] = Counter()
        self._refused = 0
        self._last_line = float("-inf")

    def admit(self, peer: str | None) -> bool:
        """Count a connection from `peer` and return True, or return False if there is no room for it."""
        address = network_of(peer)
        if self._is_full(address, peer):
            self._note_refusal()
            return False
        self._open += 1
        self._by_address[address] += 1
        return True

    def release(self, peer: str | None) -> None:
        """Discount a connection that was admitted."""
        address = network_of(peer)
        self._open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def _is_full(self, address: str, peer: str | None) -> bool:
        if self._limit and self._open >= self._limit:
            return True
        return 0 < self._per_address <= self._by_address[address] and not self._proxies.has(peer or "")

    def _note_refusal(self) -> None:
        # A line for each of them would be a second way to stop the server.
        self._refused += 1
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            log.warning("connections.refused", connections=self._refused, open=self._open)
            self._refused = 0
