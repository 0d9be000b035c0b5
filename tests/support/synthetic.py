"""A contract as large as the whole of Tether's API: the published one, and hundreds of operations more.

Everything in it is made by rule, so it is the same every time.
"""

import copy
from typing import Any

from openapi import document

RESOURCES = 40
OPERATIONS = 300

_TEXT = {"type": "string"}
_ERROR = {"$ref": "#/components/schemas/CallsErrorResponse"}


def synthetic(resources: int = RESOURCES) -> dict[str, Any]:
    """Return the published document with 300 operations on 40 resources added to it, or on the first of these."""
    made = copy.deepcopy(document.parse(document.PUBLISHED.read_bytes(), "openapi.yaml"))
    schemas = made["components"]["schemas"]
    for resource in range(resources):
        schemas |= _schemas(f"Res{resource:02}")
    for index in range(OPERATIONS):
        resource, number = index % RESOURCES, index // RESOURCES
        if resource < resources:
            path, method, operation = _operation(resource, number)
            made["paths"].setdefault(path, {})[method] = operation
    return made


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _schemas(name: str) -> dict[str, Any]:
    """Return schemas of every kind: nested, recursive, combined, nullable, enumerated."""
    status = {"type": "string", "enum": ["new", "in-progress", "done", "no", "1st"]}
    return {
        f"{name}Status": status,
        f"{name}Node": {
            "type": "object",
            "description": 'A node with "quotes", a \\ backslash and """three""" of them.',
            "properties": {
                "label": {"type": "string", "maxLength": 50},
                "children": {"type": "array", "items": _ref(f"{name}Node")},
                "parent": {"allOf": [_ref(f"{name}Node")], "nullable": True},
            },
            "required": ["label"],
        },
        f"{name}Base": {
            "type": "object",
            "required": ["id", "createdAt"],
            "properties": {
                "id": {"type": "string", "readOnly": True},
                "createdAt": {"type": "string", "format": "date-time", "nullable": True},
                "class": {"type": "string"},
                "model_config": {"type": "string"},
                "from": {"type": "integer", "format": "int64"},
                "2nd-line": {"type": "string", "pattern": r"^(?!x)\w+$"},
            },
        },
        f"{name}Full": {
            "allOf": [
                _ref(f"{name}Base"),
                {
                    "type": "object",
                    "required": ["status"],
                    "properties": {
                        "status": _ref(f"{name}Status"),
                        "tree": _ref(f"{name}Node"),
                        "address": _object(geo=_object(lat={"type": "number"})),
                        "extra": {"type": "object", "additionalProperties": {"type": "integer"}},
                        "priority": {"type": "integer", "enum": [1, 2, 3]},
                        "maybe": {"type": "string", "nullable": True, "enum": ["a", "b", None]},
                    },
                },
            ]
        },
        f"{name}Email": _object(kind=_TEXT, to={"type": "string", "format": "email"}) | {"required": ["kind", "to"]},
        f"{name}Sms": _object(kind=_TEXT, number=_TEXT) | {"required": ["kind", "number"]},
        f"{name}Either": {
            "oneOf": [_ref(f"{name}Email"), _ref(f"{name}Sms")],
            "discriminator": {
                "propertyName": "kind",
                "mapping": {"email": f"#/components/schemas/{name}Email", "sms": f"#/components/schemas/{name}Sms"},
            },
        },
        f"{name}Loose": {"oneOf": [{"type": "string"}, {"type": "integer"}, _ref(f"{name}Node")]},
        f"{name}Condition": {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
    }  # fmt: skip


def _operation(resource: int, number: int) -> tuple[str, str, dict[str, Any]]:
    base, name = f"/api/res-{resource:02}", f"Res{resource:02}"
    one = {"name": "itemId", "in": "path", "required": True, "schema": {"type": "string"}}
    listing = [
        {"name": "page", "in": "query", "schema": {"type": "integer", "default": 1}},
        {"name": "status", "in": "query", "schema": _ref(f"{name}Status")},
        {"name": "tags", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
        {"name": "from", "in": "query", "schema": {"type": "string", "format": "date-time"}},
    ]
    kinds: list[tuple[str, str, list[Any], dict[str, Any] | None, dict[str, Any]]] = [
        (base, "get", listing, None, {"type": "array", "items": _ref(f"{name}Full")}),
        (base, "post", [], _ref(f"{name}Full"), _ref(f"{name}Full")),
        (f"{base}/{{itemId}}", "get", [one], None, _ref(f"{name}Full")),
        (f"{base}/{{itemId}}", "put", [one], _ref(f"{name}Either"), _ref(f"{name}Either")),
        (f"{base}/{{itemId}}", "delete", [one], None, {}),
        (f"{base}/{{itemId}}/tree", "post", [one], _ref(f"{name}Node"), _ref(f"{name}Node")),
        (f"{base}/search", "post", [], _object(q=_ref(f"{name}Loose")), _object()),
        (f"{base}/check", "post", [], _ref(f"{name}Condition"), _object(ok={"type": "boolean"})),
    ]  # fmt: skip
    path, method, parameters, body, answer = kinds[number]
    words = path.removeprefix("/api/").replace("/", "_").replace("-", "_").replace("{", "").replace("}", "")
    operation: dict[str, Any] = {
        "operationId": f"{method}_{words}",
        "tags": [name],
        "summary": f"{method} of {name}",
        "security": [{"bearerAuth": []}],
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", **(_json(answer) if answer else {})},
            "400": {"description": "Bad", **_json(_ERROR)},
            "401": {"description": "Who", **_json(_ERROR)},
            "500": {"description": "Ouch", **_json(_ERROR)},
        },
    }
    return path, method, operation | ({"requestBody": {"required": True, **_json(body)}} if body else {})
