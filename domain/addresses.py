"""Internet addresses: which of them belong to the public internet, and whose request came through a proxy.

The tables follow IANA's special-purpose address registries and are spelled out, because what Python's
`ipaddress.is_global` says depends on the Python patch release.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host, this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; also where one cloud keeps its metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's host agent, on an otherwise public address
        "169.254.0.0/16",  # link-local, and most clouds' metadata service
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # the former 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

# Only this block is handed out; loopback, unspecified, link-local, unique local, multicast and IPv4-mapped lie outside.
_GLOBAL_UNICAST_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Tell whether `address` belongs to a host on the public internet.

    An address behind the well-known NAT64 prefix counts as the IPv4 address it carries: on an IPv6-only network this is
    what every IPv4 host resolves to.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    if isinstance(carried := without_nat64(address), IPv4Address):
        return is_public(carried)
    return address in _GLOBAL_UNICAST_6 and not any(address in network for network in _NOT_PUBLIC_6)


def without_nat64(address: Address) -> Address:
    """Return the IPv4 address behind the well-known NAT64 prefix, and any other address unchanged."""
    is_carrier = isinstance(address, IPv6Address) and address in _NAT64
    return IPv4Address(int(address) & 0xFFFFFFFF) if is_carrier else address


class Proxies:
    """The proxies in front of a server: they alone are believed about where a request comes from.

    Each of them appends the address it was reached from to `X-Forwarded-For`. Whatever stands before the last address
    that a trusted proxy wrote, the client may have made up.
    """

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)
        self.has = lru_cache(maxsize=4096)(self._has)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the client's address: the nearest one that is not a trusted proxy's, or the farthest known.

        `forwarded` holds the values of every `X-Forwarded-For` header, in their order.
        """
        client = peer
        for hop in reversed(",".join(forwarded).rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            before = _address(hop.strip()) if self.has(client) else None
            if before is None:
                break
            client = str(before)
        return client

    def _has(self, peer: str) -> bool:
        """Tell whether `peer` is a trusted proxy."""
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)


_MAX_HOPS = 32


def _address(text: str) -> Address | None:
    """Read an address, with or without a port; what is no address is None."""
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    host = host.partition(":")[0] if host.count(":") == 1 else host
    try:
        return _unmapped(ip_address(host))
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    # A socket that listens on both versions shows IPv4 peers as ::ffff:192.0.2.1.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


@lru_cache(maxsize=4096)
def network_of(client: str | None) -> str:
    """Return what is counted as one client: an IPv4 address, or the network of 2^64 an IPv6 address is in."""
    try:
        address = _unmapped(ip_address(client or ""))
    except ValueError:
        return client or "unknown"
    return str(ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
