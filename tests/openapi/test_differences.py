import copy
from pathlib import Path
from typing import Any

import pytest

from openapi.generating import differences
from openapi.generating.differences import RULES, Change, Severity, compare

BASE: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "t", "version": "1", "description": "words"},
    "paths": {
        "/api/things/{id}": {
            "post": {
                "operationId": "post_thing",
                "description": "words",
                "security": [{"token": []}],
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 10}},
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                },
                "responses": {
                    "200": {
                        "description": "ok",
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                    },
                    "400": {"description": "bad"},
                },
            }
        }
    },
    "components": {
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "words"}},
        "schemas": {
            "Thing": {
                "type": "object",
                "description": "words",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 10},
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "size": {"type": "integer", "minimum": 1},
                    "parent": {"$ref": "#/components/schemas/Thing"},
                    "either": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
                },
                "additionalProperties": True,
            }
        },
    },
}
OPERATION = "paths./api/things/{id}.post"
THING = "components.schemas.Thing"


def changed(place: str, value: Any) -> list[Change]:
    """Return the changes after setting `place` to `value` (None removes it)."""
    new = copy.deepcopy(BASE)
    node: Any = new
    *parents, last = place.split(".")
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    key: Any = int(last) if isinstance(node, list) else last
    if value is None:
        del node[key]
    else:
        node[key] = value
    return compare(BASE, new)


def told(changes: list[Change]) -> set[tuple[str, str]]:
    return {(change.what, change.severity.value) for change in changes}


def test_equal_documents_differ_in_nothing() -> None:
    """Also when their schemas contain themselves."""
    assert compare(BASE, copy.deepcopy(BASE)) == []


B, A, T = "breaking", "additive", "text"


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("paths./api/more", {"get": {"responses": {"200": {"description": "ok"}}}}, {("operation added", A)}),
        (OPERATION, None, {("operation removed", B)}),
        (f"{OPERATION}.operationId", "other", {("operationId renamed", A)}),
        (f"{OPERATION}.security", [], {("security changed", B)}),
        (f"{OPERATION}.security", [{"token": []}, {}], {("security changed", B)}),
        ("components.securitySchemes.token.scheme", "basic", {("security changed", B)}),
        ("components.securitySchemes.token.description", "other", set()),
        (f"{OPERATION}.description", "other", {("text changed", T)}),
        (f"{OPERATION}.tags", ["x"], {("text changed", T)}),
        (f"{OPERATION}.x-max-body-bytes", 5, {("limit or treatment changed", B)}),
        ("info.description", "other", {("text changed", T)}),
        (f"{OPERATION}.parameters.1.required", True, {("parameter now required", B)}),
        (f"{OPERATION}.parameters.1.schema.maximum", 5, {("limit tightened", B)}),
        (f"{OPERATION}.parameters.1.schema.maximum", 50, {("limit loosened", A)}),
        (f"{OPERATION}.parameters.1.explode", False, {("parameter style changed", B)}),
        (f"{OPERATION}.parameters.1.name", "max", {("parameter removed", B), ("parameter added", A)}),
        (f"{OPERATION}.requestBody", None, {("body removed", B)}),
        (f"{OPERATION}.requestBody.required", False, {("body no longer required", A)}),
        (f"{OPERATION}.responses.400", None, {("status removed", B)}),
        (f"{OPERATION}.responses.409", {"description": "no"}, {("status added", A)}),
        (f"{OPERATION}.responses.400.description", "other", {("text changed", T)}),
        (f"{OPERATION}.responses.400.content", {"text/plain": {}}, {("media type added", A)}),
        (f"{OPERATION}.responses.200.links", {"x": {"operationId": "post_thing"}}, {("link changed", A)}),
        (f"{THING}.description", "other", {("text changed", T)}),
        (f"{THING}.properties.name.example", "x", {("text changed", T)}),
        (f"{THING}.properties.colour", {"type": "string"}, {("property added", A)}),
        (f"{THING}.properties.size", None, {("property removed", B)}),
        (f"{THING}.required", ["name", "kind"], {("now required", B), ("now required", A)}),
        (f"{THING}.required", [], {("no longer required", A), ("no longer required", B)}),
        (f"{THING}.properties.kind.enum", ["a", "b", "c"], {("word added", A), ("word added", B)}),
        (f"{THING}.properties.kind.enum", ["a"], {("word removed", A), ("word removed", B)}),
        (f"{THING}.properties.kind.enum", None, {("limit loosened", A), ("limit loosened", B)}),
        (f"{THING}.properties.name.nullable", True, {("now nullable", A), ("now nullable", B)}),
        (f"{THING}.properties.size.type", "number", {("type widened", A), ("type widened", B)}),
        (f"{THING}.properties.size.type", "string", {("type changed", B)}),
        (f"{THING}.properties.name.type", None, {("type widened", A), ("type widened", B)}),
        (f"{THING}.properties.name.maxLength", 5, {("limit tightened", B), ("limit tightened", A)}),
        (f"{THING}.properties.name.pattern", "^x", {("limit tightened", B), ("limit tightened", A)}),
        (f"{THING}.properties.size.minimum", 0, {("limit loosened", B), ("limit loosened", A)}),
        (f"{THING}.properties.name.format", "uuid", {("limit tightened", B), ("limit tightened", A)}),
        (f"{THING}.properties.name.default", "x", {("default changed", A)}),
        # As oasdiff has it: whoever leaves the parameter out gets something else.
        (f"{OPERATION}.parameters.1.schema.default", 5, {("parameter default changed", B), ("default changed", A)}),
        (f"{THING}.properties.name.readOnly", True, {("changed", B)}),
        (
            f"{THING}.additionalProperties",
            False,
            {("unknown properties now refused", B), ("unknown properties now refused", A)},
        ),
        (f"{THING}.additionalProperties", {"type": "string"}, {("limit tightened", B), ("limit tightened", A)}),
        (
            f"{THING}.properties.either.oneOf",
            [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}],
            {("alternative added", A), ("alternative added", B)},
        ),
        (f"{THING}.properties.either.oneOf.1.type", "boolean", {("type changed", B)}),
        (f"{THING}.anyOf", [{"required": ["kind"]}], {("limit tightened", B), ("limit tightened", A)}),
        (f"{THING}.allOf", [{"required": ["kind"]}], {("limit tightened", B), ("limit tightened", A)}),
    ],
)
def test_change_is_told_and_weighed(place: str, value: Any, expected: set[tuple[str, str]]) -> None:
    """Each change, once for what is sent and once for what is answered where that makes a difference."""
    assert told(changed(place, value)) == expected


def test_parts_of_an_object_may_move_into_an_allof() -> None:
    """An object put together differently is the same object."""
    new = copy.deepcopy(BASE)
    thing = new["components"]["schemas"]["Thing"]
    part = {"type": "object", "properties": {"name": thing["properties"].pop("name")}, "required": ["name"]}
    thing.pop("required")
    new["components"]["schemas"]["Named"] = part
    thing["allOf"] = [{"$ref": "#/components/schemas/Named"}]

    assert compare(BASE, new) == []


def test_what_many_operations_share_is_told_once() -> None:
    """Under the name of the schema, not under every operation that uses it."""
    old = copy.deepcopy(BASE)
    for number in range(20):
        old["paths"][f"/api/more{number}"] = {"post": old["paths"]["/api/things/{id}"]["post"] | {"parameters": []}}
    new = copy.deepcopy(old)
    new["components"]["schemas"]["Thing"]["properties"]["size"]["minimum"] = 2

    assert [str(change) for change in compare(old, new)] == [
        "Thing (in requests) size: limit tightened (minimum)",
        "Thing (in responses) size: limit tightened (minimum)",
    ]


def test_gravest_change_is_told_first() -> None:
    """A reader who stops early has seen what matters."""
    new = copy.deepcopy(BASE)
    del new["paths"]["/api/things/{id}"]["post"]["responses"]["400"]
    new["paths"]["/api/more"] = {"get": {"responses": {"200": {"description": "ok"}}}}
    new["info"]["title"] = "other"

    assert [change.severity for change in compare(BASE, new)] == list(Severity)


def test_every_rule_is_reached() -> None:
    """The table holds no row that nothing produces; what it does not name would be a KeyError."""
    source = Path(differences.__file__).read_text().partition("@dataclass")[2]

    made = {"servers changed", "callbacks changed"}
    assert [what for what in RULES if f'"{what}"' not in source and what not in made] == []
    assert differences.DEVIATIONS.keys() <= RULES.keys()


HEADERS: dict[str, Any] = {"Retry-After": {"required": True, "schema": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {("header removed", B)}),
        (HEADERS | {"X-More": {"schema": {"type": "string"}}}, {("header added", A)}),
        ({"retry-after": HEADERS["Retry-After"]}, set()),
        ({"Retry-After": {"schema": {"type": "integer"}}}, {("header no longer required", B)}),
        ({"Retry-After": {"required": True, "schema": {"type": "string"}}}, {("type changed", B)}),
        ({"Retry-After": HEADERS["Retry-After"] | {"description": "other"}}, {("text changed", T)}),
    ],
)
def test_change_of_a_header_is_weighed(headers: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    """A client that reads a header misses it."""
    old, new = copy.deepcopy(BASE), copy.deepcopy(BASE)
    for document, given in ((old, HEADERS), (new, headers)):
        document["paths"]["/api/things/{id}"]["post"]["responses"]["400"]["headers"] = given

    assert told(compare(old, new)) == expected


def test_alternatives_may_stand_in_another_order() -> None:
    """Which is first says nothing."""
    old = copy.deepcopy(BASE)
    schemas = old["components"]["schemas"]
    schemas["Other"] = {"type": "object", "properties": {"x": {"type": "string"}}}
    either = schemas["Thing"]["properties"]["either"]
    either["oneOf"] += [{"$ref": "#/components/schemas/Other"}, {"type": "string", "enum": ["a"]}]
    new = copy.deepcopy(old)
    new["components"]["schemas"]["Thing"]["properties"]["either"]["oneOf"].reverse()

    assert compare(old, new) == []


def test_parameter_of_a_path_may_be_renamed() -> None:
    """No client sees its name; the handler does, and is told by the check."""
    new = copy.deepcopy(BASE)
    item = new["paths"].pop("/api/things/{id}")
    item["post"]["parameters"][0]["name"] = "thing"
    new["paths"]["/api/things/{thing}"] = item

    assert [str(change) for change in compare(BASE, new)] == [
        "POST /api/things/{thing}: path parameter renamed (id → thing)"
    ]


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (f"{OPERATION}.servers", [{"url": "https://x.example"}], ("servers changed", A)),
        ("paths./api/things/{id}.servers", [{"url": "https://x.example"}], ("servers changed", A)),
        ("servers", [{"url": "https://x.example"}], ("servers changed", A)),
        (f"{OPERATION}.callbacks", {"done": {}}, ("callbacks changed", B)),
        (f"{OPERATION}.requestBody.content.application/json.example", {"name": "x"}, ("text changed", T)),
        (f"{THING}.properties.size.x-unit", "cm", ("extension changed", A)),
        (f"{OPERATION}.parameters.1.x-unit", "rows", ("extension changed", A)),
        ("x-generator", "other", ("extension changed", A)),
    ],
)
def test_change_that_no_schema_shows_is_told(place: str, value: Any, expected: tuple[str, str]) -> None:
    """Nothing of a document changes silently."""
    assert told(changed(place, value)) == {expected}
