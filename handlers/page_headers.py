"""What browsers are told about everything that is not an answer of the API: pages, documents, health and metrics.

A page runs its own scripts and no others, connects to the API and the broadcaster alone, is shown in no frame, and
gives away no address it was reached by.
"""

import base64
import hashlib
import re
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from domain.origins import socket_origins

_API = "/api/"
_INLINE_SCRIPT = re.compile(rb"<script(?: type=\"module\")?>(.*?)</script>", re.DOTALL)
_ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]

# Swagger UI styles its elements itself, and shows images that are part of its style sheet.
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' "
    "data:; connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageHeaders:
    """Adds the headers to whatever lies outside of the API; what lies in it is passed on untouched."""

    def __init__(self, app: ASGIApp, realtime_url: str) -> None:
        self._app = app
        self._policy = _POLICY.replace("{connect}", " ".join(["'self'", *socket_origins(realtime_url)]))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # noqa: D102 - ASGI
        if scope["type"] != "http" or scope["path"].startswith(_API):
            return self._app(scope, receive, send)
        return self._app(scope, receive, _Guarded(send, self._policy))


class _Guarded:
    """Sends one answer with the headers; it waits for the body, whose scripts the policy names."""

    def __init__(self, send: Send, policy: str) -> None:
        self._send = send
        self._policy = policy
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is not None:
            await self._send(_guarded(self._start, message.get("body", b""), self._policy))
            self._start = None
        await self._send(message)


def _guarded(start: Message, body: bytes, policy: str) -> Message:
    headers = [*start.get("headers", ()), *_ALWAYS]
    content_type = next((value for name, value in headers if name.lower() == b"content-type"), b"")
    if content_type.startswith(b"text/html"):
        headers.append((b"content-security-policy", _filled(policy, body)))
    return {**start, "headers": headers}


def _filled(policy: str, page: bytes) -> bytes:
    digests = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page))
    scripts = ["'self'", *(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)]
    return policy.replace("{scripts}", " ".join(scripts)).encode()
