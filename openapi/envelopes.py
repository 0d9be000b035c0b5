"""Where an error's message belongs in the body of an answer.

Tether publishes a different error envelope for each family of operations. The overlay says by `x-error-field` on the
schema of such a body what is to be filled in where: a mapping from a place (`error.message`) to a word (`message`,
`code`, `details`, `status`) or a constant (`false`); a list of such mappings offers several forms, of which an error
with details takes the first that has room for them. Each form is proved against its schema, once: whether it has the
place, and whether a body of nothing else is valid.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from openapi.document import Operation
from openapi.media import is_json
from openapi.references import Document, follow
from openapi.schemas import Schemas

FIELD = "x-error-field"

# The statuses any operation may have to answer, whatever its document declares, and what an error without words says.
PHRASES = {
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

_PLAIN: Mapping[str, Any] = {
    "type": "object",
    "properties": {"success": {"type": "boolean", "enum": [False]}, "error": {"type": "string"}},
    FIELD: {"success": False, "error": "message"},
}
_WORDS = frozenset({"message", "code", "details", "status"})


@dataclass(frozen=True, slots=True)
class Words:
    """What an error has to say; `details` is None when it has none."""

    message: str
    code: str
    status: int
    details: list[dict[str, Any]] | None = None

    def say(self, what: object) -> object:
        """Return the word `what` names, or the constant it is."""
        if not isinstance(what, str):
            return what
        return {"message": self.message, "code": self.code, "status": self.status, "details": self.details or []}[what]


_SAMPLES = (Words("a sentence", "CODE", 400), Words("a sentence", "CODE", 400, [{"field": "x", "message": "z"}]))

Form = Mapping[tuple[str, ...], object]


class Envelope(NamedTuple):
    """The body of one status: its media type (None when it has no body), and its forms."""

    media_type: str | None
    forms: tuple[Form, ...] = ()

    def body(self, words: Words) -> dict[str, Any]:
        """Return the body that says `words`."""
        roomy = [form for form in self.forms if "details" in form.values()] if words.details is not None else []
        filled: dict[str, Any] = {}
        for place, what in [*roomy, *self.forms][0].items():
            inner = filled
            for name in place[:-1]:
                inner = inner.setdefault(name, {})
            inner[place[-1]] = words.say(what)
        return filled


class Envelopes:
    """The error envelopes of one document; each schema is proved once."""

    def __init__(self, document: Document, schemas: Schemas) -> None:
        self._document = document
        self._schemas = schemas
        self._proved: dict[int, tuple[tuple[Form, ...], str]] = {}

    def of(self, operation: Operation) -> dict[int, Envelope]:
        """Return the envelope of every status that may have to say an error."""
        declared = {status: _declared(operation, status) for status in _statuses(operation)}
        return {
            status: Envelope(media_type, self._forms(schema)[0] if media_type else ())
            for status, (media_type, schema) in declared.items()
        }

    def complaints(self, operations: Iterable[Operation]) -> list[str]:
        """Return why answers of `operations` cannot say an error, one sentence a schema."""
        affected: dict[str, list[str]] = {}
        for operation in operations:
            for status in _statuses(operation):
                media_type, schema = _declared(operation, status)
                complaint = self._forms(schema)[1] if media_type else ""
                if complaint:
                    named = schema.get("$ref", f"The schema of {operation.key} {status}")
                    affected.setdefault(f"{named} {complaint}", []).append(f"{operation.key} {status}")
        return [
            f"{complaint} ({places[0]}" + (f" and {len(places) - 1} more)" if len(places) > 1 else ")")
            for complaint, places in affected.items()
        ]

    def _forms(self, schema: Mapping[str, Any]) -> tuple[tuple[Form, ...], str]:
        node = follow(self._document, schema)
        if id(node) not in self._proved:
            said = node.get(FIELD)
            forms = tuple(_forms(said)) if _is_said(said) else ()
            self._proved[id(node)] = forms, self._complaint(schema, forms)
        return self._proved[id(node)]

    def _complaint(self, schema: Mapping[str, Any], forms: tuple[Form, ...]) -> str:
        if not forms:
            return f"has no `{FIELD}` that says where the message of an error belongs"
        if any("message" not in form.values() for form in forms):
            return f"has an `{FIELD}` without a place for the message"
        lost = [".".join(place) for form in forms for place in form if not self._has(schema, place)]
        if lost:
            return f"has an `{FIELD}` that names what it does not have: {', '.join(lost)}"
        validator = self._schemas.compile(schema, "response")
        envelope = Envelope("application/json", forms)
        if not all(validator.is_valid(envelope.body(words)) for words in _SAMPLES):
            return f"requires more than its `{FIELD}` says, or other values"
        return ""

    def _has(self, schema: Mapping[str, Any], place: tuple[str, ...]) -> bool:
        if not place:
            return True
        node = follow(self._document, schema)
        options = [option for key in ("allOf", "oneOf", "anyOf") for option in node.get(key, [])]
        inner = node.get("properties", {}).get(place[0])
        return (inner is not None and self._has(inner, place[1:])) or any(self._has(each, place) for each in options)


def _is_said(said: object) -> bool:
    forms = said if isinstance(said, list) else [said]
    return bool(forms) and all(isinstance(form, dict) and form and _is_form(form) for form in forms)


def _is_form(form: Mapping[str, object]) -> bool:
    return all(what in _WORDS if isinstance(what, str) else isinstance(what, bool | int) for what in form.values())


def _forms(said: Any) -> Iterator[Form]:
    for form in said if isinstance(said, list) else [said]:
        yield {tuple(str(place).split(".")): what for place, what in form.items()}


def _statuses(operation: Operation) -> Iterator[int]:
    declared = {int(status) for status in operation.responses if status.isdigit()}
    yield from sorted({status for status in declared if status >= 400} | set(PHRASES))
    speakable = operation.definition.get("x-invalid-request")
    if speakable is not None:
        yield speakable


def _declared(operation: Operation, status: int) -> tuple[str | None, Mapping[str, Any]]:
    response = operation.response(status)
    if response is None:
        failures = [r for key, r in sorted(operation.responses.items(), reverse=True) if key[:1] in "45d"]
        response = next((r for r in failures if _json(r)), {"content": {"application/json": {"schema": _PLAIN}}})
    return _json(response) or (None, {})


def _json(response: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    for media_type, described in response.get("content", {}).items():
        if is_json(media_type):
            return media_type, described.get("schema", _PLAIN)
    return None
