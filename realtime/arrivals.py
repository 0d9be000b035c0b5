"""Connections whose client has shown no token yet: a bounded number of them, in all and from one address.

One too many ends the oldest, not the newest. A request that is answered at once, such as a health check, therefore
always gets a connection, and a listener that sends its token is in before a flood of others has pushed it out.
"""

from collections.abc import Iterator

from prometheus_client import Counter

from domain.addresses import network_of
from realtime.session import Peer


class Arrivals:
    """Every connection from its first byte until its token has been verified, or until its end."""

    def __init__(self, most: int, most_per_address: int, dropped: Counter) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._dropped = dropped
        self._addresses: dict[Peer, str | None] = {}
        self._by_address: dict[str, dict[Peer, None]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._addresses))

    def add(self, peer: Peer, address: str | None) -> None:
        """Take in a connection; `address` is None while only its proxy is known."""
        self._addresses[peer] = None
        if len(self._addresses) > self._most:
            self._drop(self._addresses)
        self.locate(peer, address)

    def locate(self, peer: Peer, address: str | None) -> None:
        """Count a connection for its client's address from here on."""
        if peer not in self._addresses or address is None:
            return
        network = network_of(address)
        self._leave_address(peer)
        self._addresses[peer] = network
        neighbours = self._by_address.setdefault(network, {})
        neighbours[peer] = None
        if len(neighbours) > self._most_per_address:
            self._drop(neighbours)

    def remove(self, peer: Peer) -> None:
        """Stop counting a connection: its token was verified, or it is over."""
        self._leave_address(peer)
        self._addresses.pop(peer, None)

    def _drop(self, peers: dict[Peer, str | None] | dict[Peer, None]) -> None:
        oldest = next(iter(peers))
        self.remove(oldest)
        self._dropped.inc()
        oldest.transport.abort()

    def _leave_address(self, peer: Peer) -> None:
        network = self._addresses.get(peer)
        if network is None:
            return
        neighbours = self._by_address[network]
        del neighbours[peer]
        if not neighbours:
            del self._by_address[network]
