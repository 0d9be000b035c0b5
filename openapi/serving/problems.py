"""Any error, answered in the operation's own envelope.

Tether publishes a different error envelope for each family of operations. What an answer looks like is therefore read
from the schema the document declares for that status, once, at start; a status whose schema cannot be filled stops the
server there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from domain import documents, errors
from openapi.document import Operation
from openapi.exchange import NotWritten
from openapi.media import is_json
from openapi.references import Document, follow
from openapi.schemas import Schemas
from openapi.serving.answers import Answer
from openapi.serving.findings import Refused

_RETRY_AFTER = 5

STATUSES: Mapping[type[Exception], int] = {
    errors.InvalidRequest: 400,
    errors.RecordingRejected: 400,
    errors.Speakable: 400,
    errors.Unauthenticated: 401,
    errors.NotFound: 404,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    errors.StorageUnavailable: 500,
    NotWritten: 501,
}

_PHRASES = {
    400: "Invalid request",
    401: "Missing or invalid token",
    404: "Not found",
    405: "Method not allowed",
    413: "Request body is too large",
    415: "Request body must be sent as application/json",
    429: "Too many requests",
    500: "Internal server error",
    501: "This operation is not available yet",
    503: "Temporarily unavailable, please try again",
}

_NOT_UNDERSTOOD = "Sorry, I could not understand that request."


class MethodNotAllowed(errors.RelayError):
    """Raised when a path exists but not with this method; `allowed` are the methods it has."""

    code = "METHOD_NOT_ALLOWED"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(_PHRASES[405])
        self.allowed = allowed


def unrouted(error: Exception) -> Answer:
    """Answer a request that belongs to no operation."""
    status = _status(error)
    body = {"success": False, "error": _message(error, status)}
    return Answer(status, documents.dump(body), headers=_headers(error, status))


def _status(error: Exception) -> int:
    if isinstance(error, MethodNotAllowed):
        return 405
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def is_expected(error: Exception) -> bool:
    """Tell whether `error` is one the product raises on purpose, and not a fault of ours."""
    return isinstance(error, MethodNotAllowed) or any(kind in STATUSES for kind in type(error).__mro__)


class Problems:
    """Answers every error of one operation."""

    def __init__(self, document: Document, operation: Operation, schemas: Schemas) -> None:
        self._document = document
        self._operation = operation
        self._speakable: int | None = operation.definition.get("x-invalid-request")
        self._envelopes = {status: self._envelope(status, schemas) for status in self._statuses()}

    def _statuses(self) -> Iterator[int]:
        declared = {int(status) for status in self._operation.responses if status.isdigit()}
        yield from sorted({status for status in declared if status >= 400} | set(_PHRASES))
        if self._speakable is not None:
            yield self._speakable

    def answer(self, error: Exception) -> Answer:
        """Return the answer to `error`; a status the document does not name becomes the nearest that it does."""
        spoken = self._spoken(error)
        if spoken is not None and self._speakable is not None:
            return self._fill(self._speakable, _Words(spoken, getattr(error, "code", ""), speakable=True), {})
        wanted = _status(error)
        status = self._documented(wanted)
        words = _Words(
            _message(error, wanted),
            getattr(error, "code", "INTERNAL_ERROR"),
            details=getattr(error, "details", None) if status == 400 else None,
        )
        return self._fill(status, words, _headers(error, wanted))

    def _spoken(self, error: Exception) -> str | None:
        if isinstance(error, Refused):
            return error.spoken
        if isinstance(error, errors.Speakable):
            return str(error)
        return _NOT_UNDERSTOOD if isinstance(error, errors.InvalidRequest) else None

    def _documented(self, status: int) -> int:
        # A caller's mistake never becomes a fault of ours, whatever the document forgot to name.
        if self._operation.response(status) is not None or status in (401, 404, 405):
            return status
        nearest = 400 if status < 500 else 500
        return nearest if self._operation.response(nearest) is not None else status

    def _fill(self, status: int, words: "_Words", headers: Mapping[str, str]) -> Answer:
        media_type, schema = self._envelopes[status]
        if media_type is None:
            return Answer(status, b"", None, headers)
        return Answer(status, documents.dump(_body(self._document, schema, status, words)), media_type, headers)

    def _envelope(self, status: int, schemas: Schemas) -> tuple[str | None, Mapping[str, Any]]:
        """Find the shape of `status` and make sure that it can be filled.

        Raises:
            ConfigurationError: when it cannot.
        """
        media_type, schema = self._declared(status)
        if media_type is None:
            return media_type, schema
        validator = schemas.compile(schema, "response")
        for words in (_SAMPLE, _Words("a sentence", "CODE", speakable=status == self._speakable)):
            if not validator.is_valid(_body(self._document, schema, status, words)):
                raise errors.ConfigurationError(
                    f"{self._operation.key} declares an answer {status} that no error of this server can fill."
                )
        return media_type, schema

    def _declared(self, status: int) -> tuple[str | None, Mapping[str, Any]]:
        response = self._operation.response(status)
        if response is None:
            failures = [r for key, r in sorted(self._operation.responses.items(), reverse=True) if key[:1] in "45d"]
            response = next((r for r in failures if _json(r)), {"content": {"application/json": {"schema": _PLAIN}}})
        return _json(response) or (None, {})


def _json(response: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    for media_type, described in response.get("content", {}).items():
        if is_json(media_type):
            return media_type, described.get("schema", _PLAIN)
    return None


_PLAIN: Mapping[str, Any] = {
    "type": "object",
    "properties": {"success": {"type": "boolean", "enum": [False]}, "error": {"type": "string"}},
}


# Words and headers


@dataclass(frozen=True, slots=True)
class _Words:
    message: str
    code: str
    details: list[dict[str, Any]] | None = None
    speakable: bool = False


_SAMPLE = _Words("a sentence", "CODE", details=[{"field": "x", "code": "y", "message": "z"}])


def _message(error: Exception, status: int) -> str:
    said = str(error)
    # Above 499 the reason is ours to know.
    return _PHRASES.get(status, HTTPStatus(status).phrase) if status >= 500 or not said else said[:500]


def _headers(error: Exception, status: int) -> dict[str, str]:
    if isinstance(error, MethodNotAllowed):
        return {"allow": ", ".join(error.allowed)}
    if status == 401:
        return {"www-authenticate": "Bearer"}
    if status in (429, 503):
        return {"retry-after": str(max(0, round(getattr(error, "retry_after", _RETRY_AFTER))))}
    return {}


# Filling a schema

_TOP = frozenset({"success", "error"})


def _body(document: Document, schema: Mapping[str, Any], status: int, words: _Words) -> Any:
    """Return a body of `schema` that says `words`."""
    properties, required = _flattened(document, schema)
    wanted = _TOP | required | ({"message"} if words.speakable or "error" not in properties else set())
    return {name: _value(document, node, name, status, words) for name, node in properties.items() if name in wanted}


def _flattened(document: Document, schema: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    node = follow(document, schema)
    properties: dict[str, Any] = {}
    required: set[str] = set()
    for part in [*node.get("allOf", []), *node.get("oneOf", [])[:1], *node.get("anyOf", [])[:1]]:
        more, needed = _flattened(document, part)
        properties |= more
        required |= needed
    return properties | node.get("properties", {}), required | set(node.get("required", []))


def _value(document: Document, schema: Mapping[str, Any], name: str, status: int, words: _Words) -> Any:
    node = follow(document, schema)
    if "oneOf" in node or "anyOf" in node:
        node = _option(document, [*node.get("oneOf", []), *node.get("anyOf", [])], words)
    if "enum" in node:
        return False if False in node["enum"] else node["enum"][0]
    kind = node.get("type") or ("object" if "properties" in node or "allOf" in node else "string")
    if kind == "object":
        return _nested(document, node, status, words)
    if kind == "array":
        return words.details or [] if name in ("details", "errors") else []
    if kind in ("integer", "number"):
        return status
    return False if kind == "boolean" else _text(name, words)


def _option(document: Document, options: list[Any], words: _Words) -> Mapping[str, Any]:
    followed = [follow(document, option) for option in options]
    structured = [option for option in followed if option.get("type") == "object"]
    plain = [option for option in followed if option.get("type") != "object"]
    preferred: list[Mapping[str, Any]] = [*structured, *plain] if words.details is not None else [*plain, *structured]
    return preferred[0]


def _nested(document: Document, node: Mapping[str, Any], status: int, words: _Words) -> dict[str, Any]:
    properties, required = _flattened(document, node)
    wanted = {"code", "message"} | required | ({"details"} if words.details else set())
    return {name: _value(document, part, name, status, words) for name, part in properties.items() if name in wanted}


def _text(name: str, words: _Words) -> str:
    return words.code if name in ("code", "type") else words.message
