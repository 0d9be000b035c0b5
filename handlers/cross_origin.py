"""Which pages of other origins may use the API from a browser (CORS, Fetch standard 3.2).

Tokens are sent by pages themselves, not by the browser, so no credentials are allowed along.
"""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.origins import is_allowed

_API = "/api/"
_TOO_MANY = 429
_EXPOSED = (b"access-control-expose-headers", b"X-Request-Id, Retry-After")
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, X-Request-Id"),
    (b"access-control-max-age", b"600"),
]


class CrossOrigin:
    """Tells browsers that pages of the `allowed` origins may use the API; other origins get no such header."""

    def __init__(self, app: ASGIApp, allowed: frozenset[str]) -> None:
        self._app = app
        self._allowed = allowed

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # noqa: D102 - ASGI
        if scope["type"] != "http" or not scope["path"].startswith(_API):
            return self._app(scope, receive, send)
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if not origins:
            return self._app(scope, receive, send)
        headers = [(b"vary", b"Origin")]
        if len(origins) == 1 and is_allowed(origins[0].decode("latin-1"), self._allowed):
            headers += [(b"access-control-allow-origin", origins[0]), _EXPOSED]
        if scope["method"] == "OPTIONS" and _asks_for_method(scope):
            # Passed on all the same, so that it counts like every other request.
            return self._app(scope, receive, _Preflight([*headers, *(_PREFLIGHT if len(headers) > 1 else [])], send))
        return self._app(scope, receive, _adding(headers, send))


def _asks_for_method(scope: Scope) -> bool:
    return any(name == b"access-control-request-method" for name, _ in scope["headers"])


class _Preflight:
    """Answers a preflight in the place of whatever the path answers; a refusal for asking too often stays."""

    def __init__(self, headers: list[tuple[bytes, bytes]], send: Send) -> None:
        self._headers = headers
        self._send = send
        self._is_refused = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_refused = message["status"] == _TOO_MANY
            kept = message.get("headers", ()) if self._is_refused else ()
            status = _TOO_MANY if self._is_refused else 204
            await self._send({**message, "status": status, "headers": [*kept, *self._headers]})
        elif self._is_refused or not message.get("more_body", False):
            await self._send(message if self._is_refused else {"type": "http.response.body", "body": b""})


def _adding(headers: list[tuple[bytes, bytes]], send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return sending
