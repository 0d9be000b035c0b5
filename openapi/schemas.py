"""Schemas of the document as compiled validators.

OpenAPI 3.0 schemas are close to JSON Schema Draft 4: an integer is written without a fraction, `exclusiveMinimum` is a
flag, and what stands beside a `$ref` does not count. What differs is translated once, at start: `nullable`, number
formats, discriminators, and properties that travel one way only.
"""

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from uuid import UUID

import jsonschema_rs

from openapi.references import Document, follow, lookup

Direction = Literal["request", "response"]
Validator = jsonschema_rs.Draft4Validator

# The rule about texts that have no other: PostgreSQL cannot hold U+0000, so no engine may.
NUL_FREE = "^[^\\u0000]*$"

_REFERENCE = "#/components/schemas/"
_IGNORED = frozenset({"example", "examples", "default", "nullable", "discriminator", "xml", "externalDocs", "id"})
_BOUNDS = {"int32": 1 << 31, "int64": 1 << 63}


class Schemas:
    """Compiles the schemas of one document; each travels one way, with a request or with a response."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._translated: dict[tuple[Direction, str], Document] = {}
        self._compiled: dict[tuple[Direction, str], Validator] = {}

    def compile(self, schema: Mapping[str, Any], direction: Direction) -> Validator:
        """Return the validator of `schema`, with everything it refers to; of a component there is only one."""
        reference = schema.get("$ref")
        if reference is None:
            return self._compile(schema, direction)
        if (direction, reference) not in self._compiled:
            self._compiled[direction, reference] = self._compile(schema, direction)
        return self._compiled[direction, reference]

    def _compile(self, schema: Mapping[str, Any], direction: Direction) -> Validator:
        root = self._translate(schema, direction)
        needed: dict[str, Document] = {}
        self._gather(root, direction, needed)
        return Validator(
            {**root, "components": {"schemas": needed}}, validate_formats=True, formats=_FORMATS, offline=True
        )

    def _gather(self, schema: Any, direction: Direction, needed: dict[str, Document]) -> None:
        for reference in _references(schema):
            name = reference.removeprefix(_REFERENCE)
            if name not in needed:
                needed[name] = self._component(name, direction)
                self._gather(needed[name], direction, needed)

    def _component(self, name: str, direction: Direction) -> Document:
        place = (direction, name)
        if place not in self._translated:
            self._translated[place] = self._translate(lookup(self._document, _REFERENCE + name), direction)
        return self._translated[place]

    def _translate(self, schema: Any, direction: Direction) -> Document:
        if "$ref" in schema:
            return {"$ref": schema["$ref"]}
        result = {key: self._keyword(key, value, direction) for key, value in schema.items() if _counts(key, schema)}
        if result.get("pattern") == NUL_FREE:
            # The reader of JSON has refused it, here and in what has no schema.
            del result["pattern"]
        if schema.get("nullable") is True and "type" in schema:
            result["type"] = [schema["type"], "null"]
        if schema.get("format") in _BOUNDS and schema.get("type") in ("integer", "number"):
            bound = _BOUNDS[schema["format"]]
            result["allOf"] = [*result.get("allOf", []), {"minimum": -bound, "maximum": bound - 1}]
        if "discriminator" in schema:
            self._discriminate(schema, result)
        self._one_way(schema, result, direction)
        return result

    def _keyword(self, key: str, value: Any, direction: Direction) -> Any:
        if key == "properties":
            return {name: self._translate(schema, direction) for name, schema in value.items()}
        if key in ("allOf", "anyOf", "oneOf"):
            return [self._translate(schema, direction) for schema in value]
        if key in ("items", "not", "additionalProperties") and isinstance(value, dict):
            return self._translate(value, direction)
        return value

    def _discriminate(self, schema: Document, result: Document) -> None:
        """Let the discriminating property choose the alternative, so that only one of them is ever tried in earnest."""
        name, mapping = schema["discriminator"]["propertyName"], schema["discriminator"].get("mapping", {})
        for keyword in ("oneOf", "anyOf"):
            references = [option["$ref"] for option in result.get(keyword, []) if "$ref" in option]
            if references and len(references) == len(result[keyword]):
                result[keyword] = [_chosen_by(name, reference, mapping) for reference in references]

    def _one_way(self, schema: Document, result: Document, direction: Direction) -> None:
        elsewhere = "readOnly" if direction == "request" else "writeOnly"
        properties = {name: follow(self._document, node) for name, node in schema.get("properties", {}).items()}
        needed = [name for name in schema.get("required", []) if not properties.get(name, {}).get(elsewhere)]
        if needed != schema.get("required", []):
            # Draft 4 has no empty list of required properties.
            result.pop("required")
            result.update({"required": needed} if needed else {})


def large_text_of(document: Document, schema: Mapping[str, Any]) -> str | None:
    """Return the property of a body that is marked `x-large-text`, and a text without further rules."""
    properties = follow(document, schema).get("properties", {})
    for name, node in properties.items():
        rules = {key for key in node if key not in _IGNORED and not key.startswith("x-")} - {"description", "title"}
        if node.get("x-large-text") is True and node.get("type") == "string" and rules == {"type"}:
            return str(name)
    return None


def _counts(key: str, schema: Mapping[str, Any]) -> bool:
    # A flag about a bound says nothing where there is no bound.
    if key in ("exclusiveMinimum", "exclusiveMaximum"):
        return key.removeprefix("exclusive").lower() in schema
    return key not in _IGNORED and not key.startswith("x-")


def _chosen_by(name: str, reference: str, mapping: Mapping[str, str]) -> Document:
    implied = reference.removeprefix(_REFERENCE)
    words = [word for word, target in mapping.items() if target in (reference, implied)]
    known = [*words, *([] if implied in mapping else [implied])]
    return {"allOf": [{"$ref": reference}], "required": [name], "properties": {name: {"enum": known}}}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        else:
            for key, value in node.items():
                if key != "enum":
                    yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


_FORMATS = {"uuid": _is_uuid, "byte": _is_base64}
