"""Which addresses lead back to this host, whichever interface they are on and however public they are.

The kernel's routing table decides, because it also decides where a connection goes: it knows the addresses of every
interface and the networks that are routed to this host as a whole. Where it cannot be read (not Linux, or a sandbox
without netlink), an address counts as the host's own if a socket can be bound to it. With `ip_nonlocal_bind` every
address can be bound, so binding alone would refuse the whole internet.
"""

import socket
import struct

from domain.addresses import Address

# Source: linux/netlink.h and linux/rtnetlink.h. Headers are in the byte order of the machine.
_MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, destination's length in bits, …, type of the route, flags
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_GET_ROUTE, _NEW_ROUTE = 26, 24
_REQUEST = 1
_DESTINATION = 1
_TO_THIS_HOST = frozenset({2, 4})  # RTN_LOCAL, RTN_ANYCAST


def leads_here(address: Address) -> bool:
    """Tell whether a connection to `address` would end at this host."""
    try:
        kind = _route_type(address)
    except OSError:
        kind = None
    return _can_bind(address) if kind is None else kind in _TO_THIS_HOST


def _route_type(address: Address) -> int | None:
    """Return the type of the route to `address`, or None if the kernel knows no route."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    route = _ROUTE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    destination = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _DESTINATION) + address.packed
    length = _MESSAGE.size + len(route) + len(destination)
    question = _MESSAGE.pack(length, _GET_ROUTE, _REQUEST, 1, 0) + route + destination
    answer = _ask_kernel(question)
    _, kind, *_ = _MESSAGE.unpack_from(answer)
    return int(_ROUTE.unpack_from(answer, _MESSAGE.size)[7]) if kind == _NEW_ROUTE else None


def _ask_kernel(question: bytes) -> bytes:
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError("there is no netlink on this system")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.setblocking(False)  # the answer is there when `send` returns
        kernel.send(question)
        return kernel.recv(4096)


def _can_bind(address: Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
