"""A value of a schema: the document's own example, or one made of what the schema requires."""

from functools import cache
from typing import Any

from hypothesis import find, settings, strategies

from openapi.references import Document, follow

_QUIET = settings(database=None, derandomize=True)
_TEXTS = {
    "date-time": "2026-01-01T00:00:00.000Z",
    "date": "2026-01-01",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "a@example.com",
    "uri": "https://example.com/",
}


def sample(document: Document, schema: Any) -> Any:
    """Return a value of `schema`."""
    node = follow(document, schema)
    for key in ("example", "default"):
        if key in node:
            return node[key]
    if "enum" in node:
        return node["enum"][0]
    if "allOf" in node:
        parts = [
            sample(document, part)
            for part in [*node["allOf"], {key: value for key, value in node.items() if key != "allOf"}]
        ]
        return {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
    for key in ("oneOf", "anyOf"):
        if node.get(key) and "properties" not in node:
            return sample(document, node[key][0])
    return _of_kind(document, node)


def _of_kind(document: Document, node: Any) -> Any:
    kind = node.get("type", "object")
    if kind == "object":
        properties = node.get("properties", {})
        return {name: sample(document, properties.get(name, {})) for name in node.get("required", [])}
    if kind == "array":
        return [sample(document, node.get("items", {})) for _ in range(node.get("minItems", 0))]
    if kind in ("integer", "number"):
        return node.get("minimum", node.get("maximum", 0))
    return False if kind == "boolean" else _text(node)


def _text(node: Any) -> str:
    if "pattern" not in node:
        return str(_TEXTS.get(node.get("format", ""), "x" * max(1, node.get("minLength", 1))))
    return _matching(node["pattern"], node.get("minLength", 0), node.get("maxLength", 1 << 20))


@cache
def _matching(pattern: str, shortest: int, longest: int) -> str:
    texts = strategies.from_regex(pattern, alphabet=strategies.characters(codec="ascii"))
    return str(find(texts, lambda text: shortest <= len(text) <= longest and text.isprintable(), settings=_QUIET))
