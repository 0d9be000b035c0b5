"""Whose request it is: behind a proxy, the client's address and scheme as the proxy tells them."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from domain.addresses import Proxies

_SCHEMES = frozenset({"http", "https"})


class ClientAddresses:
    """Puts the client into the scope where a trusted proxy forwarded the request; otherwise the peer is the client."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # noqa: D102 - ASGI
        peer = scope.get("client")
        if scope["type"] == "http" and peer and self._proxies.has(peer[0]):
            self._read(scope, peer[0])
        return self._app(scope, receive, send)

    def _read(self, scope: Scope, peer: str) -> None:
        forwarded = []
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                forwarded.append(value.decode("latin-1"))
            elif name == b"x-forwarded-proto" and (scheme := value.decode("latin-1").strip()) in _SCHEMES:
                scope["scheme"] = scheme
        client = self._proxies.client(peer, forwarded)
        if client != peer:
            scope["client"] = (client, 0)
