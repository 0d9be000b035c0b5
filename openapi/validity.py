"""Whether a document is an OpenAPI 3.0 document this server can keep.

The shape is checked against the specification's own schema, and then what a schema cannot say: that every reference
leads somewhere, that operationIds and paths are unique, and that path parameters are declared. It takes milliseconds,
so it runs at every start; tests hold it against `openapi-spec-validator`.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import jsonschema_rs

from domain import documents
from domain.principals import TokenKind
from openapi.references import METHODS, Document, follow, lookup, operation_id

_SCHEMA = "openapi_spec_validator/resources/schemas/v3.0/schema.json"
_TEMPLATE = re.compile(r"\{([^{}]*)\}")


def problems(document: Document) -> list[str]:
    """Return what is wrong with `document`, each with its place; empty when it is usable."""
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith("3.0."):
        return [f"openapi: this server understands OpenAPI 3.0, not {version!r}"]
    shape = [f"{_place(error.instance_path)}: {_brief(error.message)}" for error in _schema().iter_errors(document)]
    return (
        shape[:20]
        or [*_dangling(document)]
        or [
            *_partial(document),
            *_circular(document),
            *_unclear_operations(document),
            *_unknown_tokens(document),
        ]
    )


@lru_cache(maxsize=1)
def _schema() -> jsonschema_rs.Draft4Validator:
    # The file alone: importing the package brings a second validator along, and its readers of references.
    found = distribution("openapi-spec-validator").locate_file(_SCHEMA)
    return jsonschema_rs.Draft4Validator(documents.load(Path(str(found)).read_bytes()))


def _place(path: list[str | int]) -> str:
    return "/".join(str(part) for part in path) or "root"


def _brief(message: str) -> str:
    return message if len(message) <= 200 else f"{message[:200]} …"


def _dangling(document: Document) -> Iterator[str]:
    for place, reference in _references(document, ()):
        try:
            lookup(document, reference)
        except LookupError:
            yield f"{'/'.join(place)}: the reference {reference} leads nowhere"


_SCHEMA_KEYS = frozenset({"schema", "items", "not", "additionalProperties"})
_SCHEMA_GROUPS = frozenset({"properties", "schemas", "allOf", "oneOf", "anyOf"})
_WHOLE_SCHEMA = re.compile(r"#/components/schemas/[^/]+")


def _partial(document: Document) -> Iterator[str]:
    """Yield references to schemas that are not components: a model is made of a component, and of nothing less."""
    for place, reference in _references(document, ()):
        is_schema = place[-1] in _SCHEMA_KEYS or (place[-2:-1] and place[-2] in _SCHEMA_GROUPS)
        if is_schema and not _WHOLE_SCHEMA.fullmatch(reference):
            yield (
                f"{'/'.join(place)}: the reference {reference} leads to no component; "
                "give that schema a name of its own among the components"
            )


def _circular(document: Document) -> Iterator[str]:
    """Yield schemas that are held against a value by being held against it, through `allOf` and the like."""
    schemas = document.get("components", {}).get("schemas", {})
    done: set[str] = set()
    for name in schemas:
        trail: list[tuple[str, Iterator[str]]] = [(name, iter(_in_place(schemas[name])))] if name not in done else []
        while trail:
            step = next(trail[-1][1], None)
            open_names = [each for each, _ in trail]
            if step is None:
                done.add(trail.pop()[0])
            elif step in open_names:
                yield f"components/schemas/{step}: contains itself: {' → '.join([*open_names, step])}"
            elif step not in done and step in schemas:
                trail.append((step, iter(_in_place(schemas[step]))))


def _in_place(schema: Any) -> list[str]:
    """Return the components that are held against the same value as `schema`."""
    if not isinstance(schema, dict):
        return []
    if isinstance(schema.get("$ref"), str):
        return [schema["$ref"].removeprefix("#/components/schemas/")]
    options = [option for key in ("allOf", "oneOf", "anyOf") for option in schema.get(key, [])]
    return [name for option in [*options, schema.get("not")] for name in _in_place(option)]


def _references(node: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            yield place, reference
            return
        for key, value in node.items():
            if key not in ("example", "examples", "default", "enum") or place[-1:] == ("properties",):
                yield from _references(value, (*place, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _references(value, (*place, str(index)))


def _unclear_operations(document: Document) -> Iterator[str]:
    ids: dict[str, str] = {}
    shapes: dict[str, str] = {}
    for path, node in document["paths"].items():
        item = follow(document, node)
        shape = _TEMPLATE.sub("{}", path)
        if shapes.setdefault(shape, path) != path:
            yield f"paths/{path}: is the same path as {shapes[shape]}"
        for method, definition in item.items():
            if method not in METHODS:
                continue
            key, name = f"{method.upper()} {path}", operation_id(method, path, definition)
            if ids.setdefault(name, key) != key:
                yield f"paths/{path}/{method}: the operationId {name} is already that of {ids[name]}"
            yield from _undeclared(
                document, path, method, [*item.get("parameters", []), *definition.get("parameters", [])]
            )


def _undeclared(document: Document, path: str, method: str, declared: list[Any]) -> Iterator[str]:
    try:
        parameters = [follow(document, node) for node in declared]
    except LookupError:
        return
    known = {node["name"] for node in parameters if node["in"] == "path"}
    for name in _TEMPLATE.findall(path):
        if name not in known:
            yield f"paths/{path}/{method}: the path parameter {name} is not declared"


_TOKENS = frozenset(TokenKind)


def _unknown_tokens(document: Document) -> Iterator[str]:
    for path, node in document["paths"].items():
        for method, definition in follow(document, node).items():
            kinds = definition.get("x-token-kinds", ["JWT"]) if method in METHODS else ["JWT"]
            if not isinstance(kinds, list) or not kinds or not all(kind in _TOKENS for kind in map(str, kinds)):
                yield f"paths/{path}/{method}: `x-token-kinds` is not a list of some of {', '.join(sorted(_TOKENS))}"
