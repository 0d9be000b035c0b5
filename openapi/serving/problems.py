"""Any error, answered in the operation's own envelope.

What an answer looks like is read from the document, where `x-error-field` says it (see `openapi/envelopes.py`), once,
at start; a status that cannot say an error stops the server there.
"""

from collections.abc import Mapping
from http import HTTPStatus

from domain import documents, errors
from openapi.document import Operation
from openapi.envelopes import PHRASES, Envelope, Words
from openapi.exchange import NotWritten
from openapi.serving.answers import Answer
from openapi.serving.findings import InvalidValues

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

_NOT_UNDERSTOOD = "Sorry, I could not understand that request."


class MethodNotAllowed(errors.RelayError):
    """Raised when a path exists but not with this method; `allowed` are the methods it has."""

    code = "METHOD_NOT_ALLOWED"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(PHRASES[405])
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
    """Answers every error of one operation, in the envelopes its document declares."""

    def __init__(self, operation: Operation, envelopes: Mapping[int, Envelope]) -> None:
        self._operation = operation
        self._speakable: int | None = operation.definition.get("x-invalid-request")
        self._envelopes = envelopes

    def answer(self, error: Exception) -> Answer:
        """Return the answer to `error`; a status the document does not name becomes the nearest that it does."""
        spoken = self._spoken(error)
        if spoken is not None and self._speakable is not None:
            return self._fill(Words(spoken, getattr(error, "code", ""), self._speakable), {})
        wanted = _status(error)
        status = self._documented(wanted)
        words = Words(
            _message(error, wanted),
            getattr(error, "code", "INTERNAL_ERROR"),
            status,
            details=getattr(error, "details", None) if status == 400 else None,
        )
        return self._fill(words, _headers(error, wanted))

    def _spoken(self, error: Exception) -> str | None:
        if isinstance(error, InvalidValues):
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

    def _fill(self, words: Words, headers: Mapping[str, str]) -> Answer:
        envelope = self._envelopes[words.status]
        if envelope.media_type is None:
            return Answer(words.status, b"", None, headers)
        return Answer(words.status, documents.dump(envelope.body(words)), envelope.media_type, headers)


# Words and headers


def _message(error: Exception, status: int) -> str:
    said = str(error)
    # Above 499 the reason is ours to know.
    return PHRASES.get(status, HTTPStatus(status).phrase) if status >= 500 or not said else said[:500]


def _headers(error: Exception, status: int) -> dict[str, str]:
    if isinstance(error, MethodNotAllowed):
        return {"allow": ", ".join(error.allowed)}
    if status == 401:
        return {"www-authenticate": "Bearer"}
    if status in (429, 503):
        return {"retry-after": str(max(0, round(getattr(error, "retry_after", _RETRY_AFTER))))}
    return {}
