"""Query, path, header and cookie parameters: read from the request, typed as the document says, validated.

Arrays and objects arrive in the styles OpenAPI 3.0 names: repeated or separated by commas, spaces or pipes, and
`name[key]` for deep objects. Query parameters the document does not know are ignored, unless the operation says
`x-unknown-parameters: refused`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, unquote

from domain import documents
from domain.errors import InvalidRequest
from openapi.document import Operation
from openapi.media import json_of
from openapi.references import Document, follow
from openapi.schemas import Schemas
from openapi.serving.findings import Finding, InvalidValues, findings

Scope = Mapping[str, Any]
Given = Mapping[str, Sequence[str]]

_INTEGER = re.compile(r"[-+]?[0-9]{1,40}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?")
_SEPARATORS = {"spaceDelimited": " ", "pipeDelimited": "|"}
_ABSENT = object()


class Parameters:
    """The parameters of one operation, compiled."""

    def __init__(
        self, document: Document, operation: Operation, schemas: Schemas, names: Mapping[tuple[str, str], str]
    ) -> None:
        self._parameters = [
            _Parameter(document, node, schemas, names[node["in"], node["name"]]) for node in operation.parameters
        ]
        self._places = {parameter.place for parameter in self._parameters}
        refuses_unknown = operation.definition.get("x-unknown-parameters") == "refused"
        in_query = [node["name"] for node in operation.parameters if node["in"] == "query"]
        self._known = frozenset(in_query) if refuses_unknown else None

    def read(self, scope: Scope) -> dict[str, Any]:
        """Return every declared parameter by its keyword; an absent one is its default, or None.

        Raises:
            InvalidRequest: when one is missing or does not match the document.
        """
        if not self._parameters:
            return {}
        given = {place: _given(place, scope) for place in self._places}
        if self._known is not None and (unknown := sorted(given["query"].keys() - self._known)):
            raise InvalidValues([Finding((unknown[0][:40],), "unknown", "is not known")], "query parameter")
        return {parameter.keyword: parameter.read(given[parameter.place]) for parameter in self._parameters}


def _given(place: str, scope: Scope) -> Given:
    if place == "path":
        return {name: [value] for name, value in scope.get("path_params", {}).items()}
    if place == "query":
        return _grouped(_query(scope))
    headers = [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope.get("headers", [])]
    if place == "header":
        return _grouped(headers)
    return _cookies(value for key, value in headers if key == "cookie")


def _query(scope: Scope) -> list[tuple[str, str]]:
    try:
        text = scope.get("query_string", b"").decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError as error:
        raise InvalidRequest("The query string cannot be read") from error


def _cookies(headers: Iterable[str]) -> Given:
    try:
        return {name: [unquote(morsel.value)] for header in headers for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _grouped(pairs: Iterable[tuple[str, str]]) -> Given:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


class _Parameter:
    def __init__(self, document: Document, node: Mapping[str, Any], schemas: Schemas, keyword: str) -> None:
        self.place: str = node["in"]
        self.keyword = keyword
        self._name: str = node["name"].lower() if self.place == "header" else node["name"]
        self._shown: str = node["name"]
        self._required: bool = bool(node.get("required"))
        self._document = document
        described = json_of(node.get("content", {}))
        self._is_json = described is not None
        self._schema = follow(document, node.get("schema", {}) if described is None else described)
        self._validator = schemas.compile(self._schema, "request")
        self._style: str = node.get("style") or ("form" if self.place in ("query", "cookie") else "simple")
        self._explode: bool = node.get("explode", self._style == "form")

    def read(self, given: Given) -> Any:
        raw = self._raw(given)
        if raw is _ABSENT:
            if self._required:
                raise self._refusal(Finding((self._shown,), "required", "is required"))
            return self._schema.get("default")
        value = self._typed(raw, self._schema)
        found = findings(self._validator, value)
        if found or _has_nul(value):
            rule = found[0].rule if found else "must not contain the character U+0000"
            raise self._refusal(Finding((self._shown, *(found[0].place if found else ())), "invalid", rule))
        return value

    def _refusal(self, finding: Finding) -> InvalidValues:
        return InvalidValues([finding], f"{self.place} parameter")

    def _raw(self, given: Given) -> Any:
        if self._is_json or self._schema.get("type") not in ("array", "object"):
            values = given.get(self._name, ())
            return values[-1] if values else _ABSENT
        if self._schema["type"] == "array":
            return self._raw_array(given.get(self._name))
        return self._raw_object(given)

    def _raw_array(self, values: Sequence[str] | None) -> Any:
        if values is None:
            return _ABSENT
        if self._explode and self._style == "form":
            return list(values)
        return [part for value in values for part in value.split(_SEPARATORS.get(self._style, ","))]

    def _raw_object(self, given: Given) -> Any:
        if self._style == "deepObject":
            prefix = f"{self._name}["
            found = {name[len(prefix) : -1]: values[-1] for name, values in given.items() if name.startswith(prefix)}
        elif self._explode and self._style == "form":
            found = {name: given[name][-1] for name in self._schema.get("properties", {}) if name in given}
        else:
            parts = [part for value in given.get(self._name, ()) for part in value.split(",")]
            pairs = [part.split("=", 1) for part in parts if "=" in part] if self._explode else _pairs(parts)
            found = dict(pairs)
        return found or _ABSENT

    def _typed(self, raw: Any, schema: Mapping[str, Any]) -> Any:
        if self._is_json and isinstance(raw, str):
            return self._document_in(raw)
        if isinstance(raw, list):
            item = follow(self._document, schema.get("items", {}))
            return [self._typed(value, item) for value in raw]
        if isinstance(raw, dict):
            properties = schema.get("properties", {})
            return {
                name: self._typed(value, follow(self._document, properties.get(name, {})))
                for name, value in raw.items()
            }
        return _primitive(raw, schema.get("type"))

    def _document_in(self, raw: str) -> Any:
        try:
            return documents.load(raw)
        except InvalidRequest as error:
            raise self._refusal(Finding((self._shown,), "invalid", "must be valid JSON")) from error


def _pairs(parts: Sequence[str]) -> list[list[str]]:
    return [list(pair) for pair in zip(parts[::2], parts[1::2], strict=False)]


def _primitive(text: str, kind: str | None) -> Any:
    # A text that is no number stays text, and the validator says what it should have been.
    if kind == "integer" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "number" and _NUMBER.fullmatch(text):
        return _finite(text)
    return {"true": True, "false": False}.get(text, text) if kind == "boolean" else text


def _finite(text: str) -> Any:
    number = float(text)
    return text if number in (float("inf"), float("-inf")) else number


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_nul(child) for child in children)
