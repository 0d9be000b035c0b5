"""What the product announces is what `openapi/events.yaml` publishes, field by field."""

import ast
from pathlib import Path
from types import NoneType
from typing import Any, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from actions import announcements
from domain.events import EventName
from persistence.models import Call
from tests.support.published_events import document

SCHEMAS: dict[str, Any] = document()["components"]["schemas"]
PAYLOADS = {
    schema["properties"]["event"]["const"]: schema["properties"]["data"]["$ref"].rsplit("/", 1)[-1]
    for schema in SCHEMAS.values()
    if {"event", "data"} <= schema.get("properties", {}).keys()
}
# Written over an event in the outbox; it holds nothing.
WRITTEN_OVER = {EventName.ERASED.value: "ErasedData"}
PRIMITIVES = {"string": str, "integer": int, "number": float, "boolean": bool}

Shape = Any


@pytest.mark.parametrize("name", [name for event, name in PAYLOADS.items() if event not in WRITTEN_OVER])
def test_payload_has_the_published_fields_and_types(name: str) -> None:
    """A field too many, one too few, another type, and one that may be missing when it must not are all differences."""
    assert _declared(getattr(announcements, name)) == _published(SCHEMAS[name])


def test_every_published_event_is_announced_here_and_nowhere_else() -> None:
    """Nobody has to look in another module for what an event holds."""
    rooms = ("actions", "handlers", "realtime", "commands", "persistence", "keyring", "providers")
    root = Path(__file__).parents[2]
    elsewhere = {
        str(path.relative_to(root))
        for room in rooms
        for path in (root / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Event"
    }
    source = (root / "actions" / "announcements.py").read_text()
    announced = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}

    assert elsewhere == {"actions/announcements.py"}
    assert PAYLOADS.keys() == {name.value for name in EventName}
    assert {name.name for name in EventName} - announced == {EventName(name).name for name in WRITTEN_OVER}


def test_call_whose_contact_was_erased_is_not_announced() -> None:
    """Listeners would be led to a person who is gone."""
    erased = Call(id="a" * 24, contact=None, conversation=None, direction="inbound")

    with pytest.raises(ValueError, match="erased"):
        announcements.call_recorded(erased, None)


def _declared(kind: Any) -> Shape:
    """Return a type as required and optional fields; None of an optional field means that it is left out."""
    if get_origin(kind) is list:
        return [_declared(get_args(kind)[0])]
    if not is_typeddict(kind):
        return kind
    fields = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        is_optional = get_origin(hint) is NotRequired
        kinds = get_args(hint)[0] if is_optional else hint
        options = get_args(kinds) if type(kinds) is type(str | None) or get_origin(kinds) is Union else (kinds,)
        present = [one for one in options if not (is_optional and one is NoneType)]
        fields[name] = (not is_optional, *map(_declared, present))
    return fields


def _published(schema: dict[str, Any]) -> Shape:
    if "$ref" in schema:
        return _published(SCHEMAS[schema["$ref"].rsplit("/", 1)[-1]])
    if "enum" in schema:
        return type(schema["enum"][0])
    if schema["type"] == "array":
        return [_published(schema["items"])]
    if schema["type"] != "object":
        return PRIMITIVES[schema["type"]]
    return {name: (name in schema["required"], _published(one)) for name, one in schema["properties"].items()}
