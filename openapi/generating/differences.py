"""What changed between two documents, and whom it concerns.

Every change is breaking (a client or a handler that worked may stop working), additive, or text. What a change is
depends on which way the value travels: a new word in an enumeration is a gift in a request and a surprise in a
response. The rules are the table below. They are those oasdiff publishes (its list of August 2026), except for what
`DEVIATIONS` lists with a reason.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from openapi.document import Operation, operations_of
from openapi.references import Document, follow

_REFERENCE = "#/components/schemas/"


class Severity(StrEnum):
    """How much a change matters, most first."""

    BREAKING = "breaking"
    ADDITIVE = "additive"
    TEXT = "text"


BREAKING, ADDITIVE, TEXT = Severity.BREAKING, Severity.ADDITIVE, Severity.TEXT

# What changed: how much it matters in a request, and in a response.
RULES: Mapping[str, tuple[Severity, Severity]] = {
    "operation added": (ADDITIVE, ADDITIVE),
    "operation removed": (BREAKING, BREAKING),
    "operationId renamed": (ADDITIVE, ADDITIVE),
    "security changed": (BREAKING, BREAKING),
    "limit or treatment changed": (BREAKING, BREAKING),
    "parameter added": (ADDITIVE, ADDITIVE),
    "required parameter added": (BREAKING, BREAKING),
    "parameter removed": (BREAKING, BREAKING),
    "parameter now required": (BREAKING, BREAKING),
    "parameter no longer required": (ADDITIVE, ADDITIVE),
    "parameter style changed": (BREAKING, BREAKING),
    "parameter default changed": (BREAKING, BREAKING),
    "body added": (ADDITIVE, ADDITIVE),
    "required body added": (BREAKING, BREAKING),
    "body removed": (BREAKING, BREAKING),
    "body now required": (BREAKING, BREAKING),
    "body no longer required": (ADDITIVE, ADDITIVE),
    "status added": (ADDITIVE, ADDITIVE),
    "status removed": (BREAKING, BREAKING),
    "media type added": (ADDITIVE, ADDITIVE),
    "media type removed": (BREAKING, BREAKING),
    "header added": (ADDITIVE, ADDITIVE),
    "header removed": (BREAKING, BREAKING),
    "header no longer required": (BREAKING, BREAKING),
    "header now required": (ADDITIVE, ADDITIVE),
    "path parameter renamed": (ADDITIVE, ADDITIVE),
    "link changed": (ADDITIVE, ADDITIVE),
    "servers changed": (ADDITIVE, ADDITIVE),
    "callbacks changed": (BREAKING, BREAKING),
    "extension changed": (ADDITIVE, ADDITIVE),
    "property added": (ADDITIVE, ADDITIVE),
    "property removed": (BREAKING, BREAKING),
    "now required": (BREAKING, ADDITIVE),
    "no longer required": (ADDITIVE, BREAKING),
    "word added": (ADDITIVE, BREAKING),
    "word removed": (BREAKING, ADDITIVE),
    "now nullable": (ADDITIVE, BREAKING),
    "no longer nullable": (BREAKING, ADDITIVE),
    "type widened": (ADDITIVE, BREAKING),
    "type narrowed": (BREAKING, ADDITIVE),
    "type changed": (BREAKING, BREAKING),
    "limit tightened": (BREAKING, ADDITIVE),
    "limit loosened": (ADDITIVE, BREAKING),
    "limit changed": (BREAKING, BREAKING),
    "unknown properties now refused": (BREAKING, ADDITIVE),
    "unknown properties now allowed": (ADDITIVE, BREAKING),
    "alternative added": (ADDITIVE, BREAKING),
    "alternative removed": (BREAKING, ADDITIVE),
    "default changed": (ADDITIVE, ADDITIVE),
    "changed": (BREAKING, BREAKING),
    "text changed": (TEXT, TEXT),
}

# Where the table is deliberately stricter than oasdiff, and why.
DEVIATIONS: Mapping[str, str] = {
    "parameter removed": "a handler takes it by name, and its callers rely on what it did",
    "property removed": "handlers and clients are generated from the schema and use it, required or not",
    "status removed": "handlers answer with it, whether it tells a success or a failure",
    "body removed": "handlers take it by name",
    "header removed": "documents rarely call a header required, and clients rely on Retry-After all the same",
    "security changed": "whether more or fewer may call is for a person to say, either way",
    "limit or treatment changed": "extensions of an operation change what this server accepts",
    "parameter style changed": "the same text is read as another value",
    "callbacks changed": "what is sent to clients is not compared in detail",
    "extension changed": "oasdiff does not look; this server acts on some",
    "limit loosened": "oasdiff warns of a shorter allOf in a request; what was good before is good still",
    "text changed": "oasdiff asks for sunset dates and levels of stability, which Tether does not publish",
    "servers changed": "oasdiff does not look; clients generated from the document call another address",
    "changed": "a change the table does not know is taken for breaking",
}

_TEXTS = frozenset(
    {
        "description",
        "summary",
        "title",
        "example",
        "examples",
        "externalDocs",
        "tags",
        "deprecated",
        "xml",
        "operationId",
    }
)
_UPPER = frozenset({"maximum", "maxLength", "maxItems", "maxProperties"})
_LOWER = frozenset({"minimum", "minLength", "minItems", "minProperties"})


@dataclass(frozen=True, slots=True)
class Change:
    """One change: where, what (a row of `RULES`), and the particulars; `of_answers` when responses are concerned."""

    severity: Severity
    place: str
    what: str
    particulars: str = ""
    of_answers: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {self.what}" + (f" ({self.particulars})" if self.particulars else "")


def compare(old: Document, new: Document) -> list[Change]:
    """Return every change from `old` to `new`, the gravest first."""
    changes = list(dict.fromkeys(_Comparison(old, new).changes()))
    order = list(Severity)
    return sorted(changes, key=lambda change: (order.index(change.severity), change.place))


class _Comparison:
    def __init__(self, old: Document, new: Document) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[int, int, int]] = set()

    def changes(self) -> Iterator[Change]:
        # What a path calls its parameters is no part of what it matches.
        old = {_shape(operation): operation for operation in operations_of(self._old)}
        new = {_shape(operation): operation for operation in operations_of(self._new)}
        for shape in old.keys() - new.keys():
            yield _change(old[shape].key, "operation removed", old[shape].id)
        for shape in new.keys() - old.keys():
            yield _change(new[shape].key, "operation added", new[shape].id)
        for shape in old.keys() & new.keys():
            yield from self._operation(new[shape].key, old[shape], new[shape])
            yield from self._path(new[shape].path, self._item(self._old, old[shape]), self._item(self._new, new[shape]))
        for key in ("info", "tags", "externalDocs"):
            if self._old.get(key) != self._new.get(key):
                yield _change(key, "text changed")
        yield from self._path("document", self._old, self._new)

    def _item(self, document: Document, operation: Operation) -> Document:
        item: Document = follow(document, document["paths"][operation.path])
        return item

    def _path(self, place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
        if old.get("servers") != new.get("servers"):
            yield _change(place, "servers changed")
        if any(old.get(key) != new.get(key) for key in ("summary", "description")):
            yield _change(place, "text changed")
        yield from _extensions(place, old, new)

    def _operation(self, key: str, old: Operation, new: Operation) -> Iterator[Change]:
        if old.id != new.id:
            yield _change(key, "operationId renamed", f"{old.id} → {new.id}")
        if self._security(self._old, old) != self._security(self._new, new):
            yield _change(key, "security changed", f"{_schemes(old)} → {_schemes(new)}")
        extensions = {name for name in {*old.definition, *new.definition} if name.startswith("x-")}
        if any(old.definition.get(name) != new.definition.get(name) for name in extensions):
            yield _change(key, "limit or treatment changed", ", ".join(sorted(extensions)))
        for name in ("servers", "callbacks"):
            if old.definition.get(name) != new.definition.get(name):
                yield _change(key, f"{name} changed")
        yield from self._texts(key, old.definition, new.definition)
        yield from self._parameters(key, old, new)
        yield from self._body(f"{key} request", old.body, new.body)
        yield from self._responses(key, old, new)

    def _security(self, document: Document, operation: Operation) -> str:
        schemes = document.get("components", {}).get("securitySchemes", {})
        named = [{name: (schemes.get(name), scopes) for name, scopes in one.items()} for one in operation.security]
        return json.dumps(_without_texts(named), sort_keys=True)

    def _texts(self, place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
        if any(old.get(key) != new.get(key) for key in _TEXTS - {"operationId"}):
            yield _change(place, "text changed")

    def _parameters(self, key: str, old: Operation, new: Operation) -> Iterator[Change]:
        names = dict(zip(_TEMPLATE.findall(old.path), _TEMPLATE.findall(new.path), strict=True))
        for name in [name for name, other in names.items() if name != other]:
            yield _change(key, "path parameter renamed", f"{name} → {names[name]}")
        before = {(node["in"], _name_now(node, names)): node for node in old.parameters}
        after = {(node["in"], node["name"]): node for node in new.parameters}
        for place in before.keys() - after.keys():
            yield _change(key, "parameter removed", " ".join(place))
        for place in after.keys() - before.keys():
            what = "required parameter added" if after[place].get("required") else "parameter added"
            yield _change(key, what, " ".join(place))
        for place in before.keys() & after.keys():
            yield from self._parameter(f"{key} {' '.join(place)}", before[place], after[place])

    def _parameter(self, place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
        yield from self._texts(place, old, new)
        if bool(old.get("required")) != bool(new.get("required")):
            yield _change(place, "parameter now required" if new.get("required") else "parameter no longer required")
        if any(old.get(name) != new.get(name) for name in ("style", "explode", "content", "allowReserved")):
            yield _change(place, "parameter style changed")
        yield from _extensions(place, old, new)
        before, after = follow(self._old, old.get("schema", {})), follow(self._new, new.get("schema", {}))
        if before.get("default") != after.get("default"):
            yield _change(place, "parameter default changed")
        yield from self._schema(place, old.get("schema", {}), new.get("schema", {}), 0)

    def _body(self, place: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterator[Change]:
        if old is None and new is None:
            return
        if new is None:
            yield _change(place, "body removed")
        elif old is None:
            yield _change(place, "required body added" if new.get("required") else "body added")
        else:
            if bool(old.get("required")) != bool(new.get("required")):
                yield _change(place, "body now required" if new.get("required") else "body no longer required")
            yield from self._texts(place, old, new)
            yield from self._content(place, old, new, 0)

    def _responses(self, key: str, old: Operation, new: Operation) -> Iterator[Change]:
        for status in old.responses.keys() - new.responses.keys():
            yield _change(key, "status removed", status)
        for status in new.responses.keys() - old.responses.keys():
            yield _change(key, "status added", status)
        for status in old.responses.keys() & new.responses.keys():
            before, after, place = old.responses[status], new.responses[status], f"{key} response {status}"
            yield from self._texts(place, before, after)
            yield from self._content(place, before, after, 1)
            yield from _extensions(place, before, after)
            yield from self._headers(place, before.get("headers", {}), after.get("headers", {}))
            if before.get("links", {}) != after.get("links", {}):
                yield _change(place, "link changed")

    def _headers(self, place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
        # Header names are compared whatever their case.
        before = {name.lower(): follow(self._old, node) for name, node in old.items()}
        after = {name.lower(): follow(self._new, node) for name, node in new.items()}
        for name in before.keys() - after.keys():
            yield _change(place, "header removed", name)
        for name in after.keys() - before.keys():
            yield _change(place, "header added", name)
        for name in before.keys() & after.keys():
            inner = f"{place} header {name}"
            if bool(before[name].get("required")) != bool(after[name].get("required")):
                is_required = after[name].get("required")
                yield _change(inner, "header now required" if is_required else "header no longer required")
            yield from self._texts(inner, before[name], after[name])
            yield from self._schema(inner, before[name].get("schema", {}), after[name].get("schema", {}), 1)

    def _content(self, place: str, old: Mapping[str, Any], new: Mapping[str, Any], way: int) -> Iterator[Change]:
        before, after = old.get("content", {}), new.get("content", {})
        for media_type in before.keys() - after.keys():
            yield _change(place, "media type removed", media_type)
        for media_type in after.keys() - before.keys():
            yield _change(place, "media type added", media_type)
        for media_type in before.keys() & after.keys():
            yield from self._texts(place, before[media_type], after[media_type])
            yield from self._schema(
                place, before[media_type].get("schema", {}), after[media_type].get("schema", {}), way
            )

    # Schemas; `way` is 0 in a request and 1 in a response

    def _schema(self, place: str, old: Any, new: Any, way: int) -> Iterator[Change]:
        if _name(old) or _name(new):
            # What many operations share is told once, under its own name.
            place = f"{_name(new) or place} (in {'responses' if way else 'requests'})"
        old, new = follow(self._old, old), follow(self._new, new)
        # Schemas may contain themselves, through references or through an allOf.
        if (id(old), id(new), way) in self._seen:
            return
        self._seen.add((id(old), id(new), way))
        old, new = _flat(self._old, old), _flat(self._new, new)
        yield from self._texts(place, old, new)
        yield from _extensions(place, old, new)
        yield from self._type(place, old, new, way)
        yield from self._limits(place, old, new, way)
        yield from self._object(place, old, new, way)
        for key in ("oneOf", "anyOf", "allOf"):
            yield from self._alternatives(place, key, old.get(key, []), new.get(key, []), way)
        for key in ("items", "not", "additionalProperties"):
            yield from self._inner(
                f"{place}[]" if key == "items" else f"{place} {key}", old.get(key), new.get(key), way
            )

    def _type(self, place: str, old: Document, new: Document, way: int) -> Iterator[Change]:
        before, after = old.get("type"), new.get("type")
        if before != after:
            yield _change(place, _retyped(before, after), f"{before or 'anything'} → {after or 'anything'}", way)
        if bool(old.get("nullable")) != bool(new.get("nullable")):
            yield _change(place, "now nullable" if new.get("nullable") else "no longer nullable", "", way)
        words, others = old.get("enum"), new.get("enum")
        if words is None or others is None:
            if words != others:
                yield _change(place, "limit tightened" if words is None else "limit loosened", "enum", way)
            return
        for word in [word for word in others if word not in words]:
            yield _change(place, "word added", str(word), way)
        for word in [word for word in words if word not in others]:
            yield _change(place, "word removed", str(word), way)

    def _limits(self, place: str, old: Document, new: Document, way: int) -> Iterator[Change]:
        for key in sorted(_UPPER | _LOWER):
            before, after = old.get(key), new.get(key)
            if before != after:
                tighter = before is None or (after is not None and (after < before) == (key in _UPPER))
                yield _change(place, "limit tightened" if tighter else "limit loosened", key, way)
        for key in ("pattern", "format", "multipleOf", "uniqueItems", "exclusiveMinimum", "exclusiveMaximum"):
            before, after = old.get(key), new.get(key)
            if before != after:
                what = {(False, True): "limit tightened", (True, False): "limit loosened"}
                yield _change(place, what.get((bool(before), bool(after)), "limit changed"), key, way)
        if old.get("default") != new.get("default"):
            yield _change(place, "default changed", "", way)
        for key in ("readOnly", "writeOnly", "discriminator"):
            if old.get(key) != new.get(key):
                yield _change(place, "changed", key, way)

    def _object(self, place: str, old: Document, new: Document, way: int) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", [])), set(new.get("required", []))
        for name in before.keys() - after.keys():
            yield _change(place, "property removed", name, way)
        for name in after.keys() - before.keys():
            yield _change(place, "property added", name, way)
        for name in needs - needed:
            yield _change(place, "now required", name, way)
        for name in needed - needs:
            yield _change(place, "no longer required", name, way)
        for name in before.keys() & after.keys():
            yield from self._schema(f"{place} {name}", before[name], after[name], way)

    def _alternatives(self, place: str, key: str, old: list[Any], new: list[Any], way: int) -> Iterator[Change]:
        for before, after in _paired(old, new):
            yield from self._schema(f"{place} {key}", before, after, way)
        if len(old) != len(new):
            more = len(new) > len(old)
            # Everything in allOf must hold, and one of the others: more of them tightens the first and loosens those.
            restricts = more if key == "allOf" or not old else not more
            if key == "allOf" or not old or not new:
                yield _change(place, "limit tightened" if restricts else "limit loosened", key, way)
            else:
                yield _change(place, "alternative added" if more else "alternative removed", key, way)

    def _inner(self, place: str, old: Any, new: Any, way: int) -> Iterator[Change]:
        if isinstance(old, dict) and isinstance(new, dict):
            yield from self._schema(place, old, new, way)
        elif old != new and place.endswith("additionalProperties"):
            refused, allowed = "unknown properties now refused", "unknown properties now allowed"
            if (old is not False) != (new is not False):
                yield _change(place, refused if new is False else allowed, "", way)
            elif isinstance(old, dict) or isinstance(new, dict):
                yield _change(place, "limit tightened" if isinstance(new, dict) else "limit loosened", "", way)
        elif old != new:
            yield _change(place, "changed", "", way)


def _change(place: str, what: str, particulars: str = "", way: int = 0) -> Change:
    return Change(RULES[what][way], place, what, particulars, bool(way))


_TEMPLATE = re.compile(r"\{([^{}]*)\}")


def _shape(operation: Operation) -> str:
    return f"{operation.method} {_TEMPLATE.sub('{}', operation.path)}"


def _name_now(node: Mapping[str, Any], names: Mapping[str, str]) -> str:
    name = str(node["name"])
    return names.get(name, name) if node["in"] == "path" else name


def _extensions(place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    names = sorted(name for name in {*old, *new} if name.startswith("x-") and old.get(name) != new.get(name))
    if names:
        yield _change(place, "extension changed", ", ".join(names))


def _paired(old: list[Any], new: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the alternatives that belong together: those that are alike wherever they stand, then the rest in order."""
    left = list(new)
    unmatched = []
    for before in old:
        alike = next((after for after in left if _likeness(after) == _likeness(before)), None)
        if alike is None:
            unmatched.append(before)
        else:
            left.remove(alike)
            yield before, alike
    yield from zip(unmatched, left, strict=False)


def _likeness(schema: Any) -> str:
    return _name(schema) or json.dumps(_without_texts(schema), sort_keys=True)


def _retyped(old: str | None, new: str | None) -> str:
    if old is None or (old, new) == ("number", "integer"):
        return "type narrowed"
    return "type widened" if new is None or (old, new) == ("integer", "number") else "type changed"


def _flat(document: Document, schema: Any) -> Document:
    """Follow `schema`, and put the objects of its `allOf` together into one."""
    node: Document = follow(document, schema)
    parts = [_flat(document, part) for part in node.get("allOf", [])]
    if not parts or any(part.get("type") != "object" for part in parts):
        return node
    flat = {key: value for key, value in node.items() if key != "allOf"} | {"type": "object"}
    whole = [*parts, node]
    flat["properties"] = {name: value for part in whole for name, value in part.get("properties", {}).items()}
    flat["required"] = [name for part in whole for name in part.get("required", [])]
    closed = [part["additionalProperties"] for part in whole if "additionalProperties" in part]
    return flat | ({"additionalProperties": closed[-1]} if closed else {})


def _name(schema: Any) -> str:
    reference = schema.get("$ref", "") if isinstance(schema, dict) else ""
    return str(reference).removeprefix(_REFERENCE)


def _schemes(operation: Operation) -> str:
    return " or ".join(" and ".join(one) or "nobody" for one in operation.security) or "open"


def _without_texts(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_texts(value) for key, value in node.items() if key != "description"}
    return [_without_texts(value) for value in node] if isinstance(node, list | tuple) else node
