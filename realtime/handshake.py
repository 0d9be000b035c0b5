"""What a request for a connection says, and plain HTTP answers on the same port. No I/O here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from domain import documents
from domain.errors import InvalidRequest
from domain.origins import is_allowed
from realtime import frames

PATHS = ("/", "/v1")
SUBPROTOCOL = "tether.v1"
_TOKEN_PREFIX = "bearer."
_MAX_PARAMETERS = 8


class Refused(Exception):
    """Raised when a request is answered with plain HTTP instead of an upgrade."""

    def __init__(self, status: HTTPStatus, message: str, *, reason: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.retry_after = retry_after

    def response(self) -> Response:
        """Return the answer: one JSON object with `code` and `message`."""
        answer = respond(self.status, "application/json", documents.dump({"code": self.reason, "message": str(self)}))
        if self.status is HTTPStatus.UNAUTHORIZED:
            answer.headers["WWW-Authenticate"] = "Bearer"
        if self.retry_after is not None:
            answer.headers["Retry-After"] = str(self.retry_after)
        return answer


@dataclass(frozen=True, slots=True)
class Handshake:
    """Where a connection wants to start, and the token it brought, if any.

    A token in a subprotocol comes from a browser, which is told of a refusal by a close code: it cannot see a status.
    """

    start: frames.Start
    header_token: str | None = field(default=None, repr=False)
    subprotocol_token: str | None = field(default=None, repr=False)


def read(request: Request) -> Handshake:
    """Read a request for a connection.

    Raises:
        Refused: when its path, query or `Authorization` header is not acceptable.
    """
    path, query = target(request)
    if path not in PATHS:
        raise Refused(HTTPStatus.NOT_FOUND, f"There is nothing here; connect to {PATHS[-1]}.", reason="not_found")
    try:
        start = frames.parse_query(parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    except (InvalidRequest, ValueError) as problem:
        sentence = str(problem) if isinstance(problem, InvalidRequest) else "The query cannot be read."
        raise Refused(HTTPStatus.BAD_REQUEST, sentence, reason="invalid_query") from None
    return Handshake(start, _header_token(request.headers), _subprotocol_token(request.headers))


def foreign_origin(request: Request, allowed: frozenset[str]) -> str | None:
    """Return the origin of the page that asks, if its pages may not connect.

    Browsers do not send tokens on their own, so a foreign page gains nothing without one; the list is a second fence.

    Raises:
        Refused: with 403 if the request names several origins, which no browser does.
    """
    given = request.headers.get_all("Origin")
    hosts = request.headers.get_all("Host")
    if len(given) > 1:
        raise Refused(HTTPStatus.FORBIDDEN, "A page has one origin.", reason="origin")
    if not given or is_allowed(given[0], allowed, hosts[0] if len(hosts) == 1 else ""):
        return None
    return given[0]


def target(request: Request) -> tuple[str, str]:
    """Return path and query of a request's target."""
    try:
        parts = urlsplit(request.path)
    except ValueError:
        return "", ""
    return parts.path, parts.query


def respond(status: HTTPStatus, content_type: str, body: bytes) -> Response:
    """Build a plain HTTP answer, after which the connection is closed."""
    headers = Headers(
        {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            # A page says itself what it may load; that nobody may frame it can only be said here.
            "Content-Security-Policy": "frame-ancestors 'none'",
            "Connection": "close",
        }
    )
    return Response(status.value, status.phrase, headers, body)


def select_subprotocol(_: object, offered: Sequence[str]) -> str | None:
    """Choose our subprotocol when it is offered; a token among the offers is never echoed."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def _header_token(headers: Headers) -> str | None:
    values = headers.get_all("Authorization")
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Refused(
            HTTPStatus.UNAUTHORIZED, "The Authorization header must be: Bearer <token>.", reason="unauthenticated"
        )
    return token.strip()


def _subprotocol_token(headers: Headers) -> str | None:
    offered = [item.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for item in value.split(",")]
    tokens = [item.removeprefix(_TOKEN_PREFIX) for item in offered if item.startswith(_TOKEN_PREFIX)]
    return tokens[0] if tokens else None
