"""Web origins: which pages may use the relay from a browser (RFC 6454)."""

from collections.abc import Iterable
from urllib.parse import urlsplit

ANY = "*"

# The value of Strict-Transport-Security: for a year, and for this host alone. Its neighbours speak for themselves.
HTTPS_ONLY = "max-age=31536000"

_WEB = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAMED = ("localhost", "127.0.0.1")
_LOCAL = (*_NAMED, "[::1]")


def origin_of(url: str) -> str | None:
    """Return the origin of pages at `url`, as browsers write it; None if it cannot have any."""
    try:
        parts = urlsplit(url)
        scheme, host, port = _WEB.get(parts.scheme.lower()), parts.hostname, parts.port
    except ValueError:
        return None
    if scheme is None or not host:
        return None
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS[scheme]) else f"{scheme}://{host}:{port}"


def local_origins(port: int) -> list[str]:
    """Return the origins of pages that this machine serves to itself on `port`, in every spelling."""
    return [f"http://{host}:{port}" for host in _LOCAL]


def socket_origins(url: str) -> list[str]:
    """Return the origins that reach the broadcaster at `url`; a page of this machine may use any of its local names.

    A content security policy has no IPv6 addresses (CSP 3, host-source), so none is returned for a local address.
    """
    parts = urlsplit(url)
    if not parts.hostname:
        return []
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return [f"{parts.scheme}://{name}{port}" for name in (_NAMED if host in _LOCAL else (host,))]


def normalised(origins: Iterable[str]) -> frozenset[str]:
    """Return the origins as browsers write them; `*` stays, and what is no origin matches nothing."""
    return frozenset(ANY if one == ANY else origin_of(one) or one for one in origins)


def is_allowed(origin: str, allowed: frozenset[str], host: str = "") -> bool:
    """Tell whether pages of `origin` are allowed: listed, or served from the very `host` (header) they ask."""
    if ANY in allowed or origin in allowed:
        return True
    scheme = origin.partition("://")[0]
    return bool(host) and scheme in _DEFAULT_PORTS and origin == origin_of(f"{scheme}://{host}")
