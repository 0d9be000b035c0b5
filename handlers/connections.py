"""How many connections a server keeps at once, in all and from one address."""

from collections import Counter

import structlog

from domain.addresses import Proxies, network_of
from domain.repetition import Repetition

log = structlog.get_logger()


class Connections:
    """Counts the open connections of one listening socket; 0 is no limit.

    A peer that is one of `proxies` stands for many clients, so only the limit of all connections applies to it.
    `refused` counts what was refused, by the limit that was reached: of all connections, or of one address.
    """

    def __init__(self, limit: int = 0, per_address: int = 0, proxies: Proxies | None = None) -> None:
        self._limit = limit
        self._per_address = per_address
        self._proxies = proxies or Proxies()
        self._open = 0
        self._by_address: Counter[str] = Counter()
        self.refused: Counter[str] = Counter({"all": 0, "address": 0})
        self._repetition = Repetition()

    def admit(self, peer: str | None) -> bool:
        """Count a connection from `peer` and return True, or return False if there is no room for it."""
        address = network_of(peer)
        reached = self._reached(address, peer)
        if reached is not None:
            self.refused[reached] += 1
            if refusals := self._repetition.count():
                log.warning("connections.refused", connections=refusals, open=self._open)
            return False
        self._open += 1
        self._by_address[address] += 1
        return True

    def count(self) -> int:
        """Return how many connections are open."""
        return self._open

    def release(self, peer: str | None) -> None:
        """Discount a connection that was admitted."""
        address = network_of(peer)
        self._open -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def _reached(self, address: str, peer: str | None) -> str | None:
        """Return the limit that leaves no room for one more connection of the peer, if there is one."""
        if self._limit and self._open >= self._limit:
            return "all"
        is_full = 0 < self._per_address <= self._by_address.get(address, 0) and not self._proxies.has(peer or "")
        return "address" if is_full else None
