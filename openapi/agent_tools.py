"""What a voice agent is given, read from the served document.

Every operation that takes nothing but the organization's tool secret is a tool. The overlay says what the document
cannot:

- `x-agent-value` on a field names the call's variable that fills it (`system__caller_id`); `model`, the default, leaves
  it to the model, and `omitted` sends nothing.
- `x-agent-tool` on an operation holds the tool's words and behaviour, and under `sends` further fields with their
  variables.
- `x-agent-webhook` marks what is no tool: `pre-call` what ElevenLabs calls before a call begins, `other` anything else.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from domain.agents import SYSTEM_VARIABLES, AgentContract, ToolDefinition, ToolField
from domain.principals import TokenKind
from openapi.document import Contract, Operation
from openapi.references import Document, InvalidDocument, follow

MODEL, OMITTED = "model", "omitted"

_PRE_CALL, _OTHER = "pre-call", "other"
_VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_TYPES = ("string", "number", "integer", "boolean", "object", "array")
_DEEPEST = 8

# What the overlay may choose, and how ElevenLabs spells it.
_WORDS: Mapping[str, frozenset[str]] = {
    "interruption_mode": frozenset({"allow", "disable_during_tool", "disable_during_tool_and_turn"}),
    "tool_error_handling_mode": frozenset({"auto", "summarized", "passthrough", "hide"}),
    "pre_tool_speech": frozenset({"auto", "force", "off"}),
    "execution_mode": frozenset({"immediate", "post_tool_speech", "async"}),
}
_SHORTEST, _LONGEST = 5, 300


def read(contract: Contract) -> AgentContract:
    """Return the tools of the served document and its pre-call webhook.

    Raises:
        InvalidDocument: if an extension says something that no agent can be given.
    """
    tools: list[ToolDefinition] = []
    pre_call: list[str] = []
    for operation in contract.operations:
        if (event := operation.definition.get("x-agent-webhook")) is not None:
            if event not in (_PRE_CALL, _OTHER):
                raise _wrong(operation, f"x-agent-webhook is {event!r}; it can be {_PRE_CALL} or {_OTHER}")
            pre_call += [operation.path] if event == _PRE_CALL else []
        elif _is_tool(contract.served, operation):
            tools.append(_tool(contract.served, operation))
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise InvalidDocument("Two operations would be tools of the same name; set `name` in their x-agent-tool.")
    if len(pre_call) > 1:
        raise InvalidDocument(f"An agent has one webhook before a call, not {' and '.join(pre_call)}.")
    return AgentContract(tuple(tools), pre_call[0] if pre_call else None)


def _is_tool(document: Document, operation: Operation) -> bool:
    schemes = document.get("components", {}).get("securitySchemes", {})
    return (
        operation.method == "POST"
        and operation.body_schema is not None
        and bool(operation.security)
        and operation.token_kinds == [TokenKind.TOOL_SECRET]
        and all(schemes.get(name, {}).get("type") == "http" for one in operation.security for name in one)
    )


def _tool(document: Document, operation: Operation) -> ToolDefinition:
    said = operation.definition.get("x-agent-tool", {})
    if not isinstance(said, dict):
        raise _wrong(operation, "x-agent-tool is not an object")
    unknown = said.keys() - {"name", "description", "sends", "response_timeout_secs", *_WORDS}
    if unknown:
        raise _wrong(operation, f"x-agent-tool has no {', '.join(sorted(unknown))}")
    name = said.get("name", operation.path.rpartition("/")[2].replace("-", "_"))
    if not isinstance(name, str) or not _NAME.match(name):
        raise _wrong(operation, f"{name!r} is not a name for a tool; set `name` in x-agent-tool")
    return ToolDefinition(
        name=name,
        description=_words(said.get("description") or _described(operation)),
        path=operation.path,
        fields=(*_fields(document, operation), *_sent_along(operation, said.get("sends", {}))),
        behaviour=_behaviour(operation, said),
    )


def _described(operation: Operation) -> str:
    definition = operation.definition
    return str(definition.get("description") or definition.get("summary") or operation.id)


def _words(text: str) -> str:
    return " ".join(text.split())


def _behaviour(operation: Operation, said: Mapping[str, Any]) -> dict[str, Any]:
    for name, words in _WORDS.items():
        if said.get(name, next(iter(words))) not in words:
            raise _wrong(operation, f"{name} is {said[name]!r}; it can be {', '.join(sorted(words))}")
    seconds = said.get("response_timeout_secs", _SHORTEST)
    if not isinstance(seconds, int) or not _SHORTEST <= seconds <= _LONGEST:
        raise _wrong(operation, f"response_timeout_secs is {seconds!r}; it can be {_SHORTEST} to {_LONGEST}")
    return {name: said[name] for name in ("response_timeout_secs", *_WORDS) if name in said}


# Fields


def _fields(document: Document, operation: Operation) -> Iterator[ToolField]:
    schema = _plain(document, operation.body_schema or {})
    required = schema.get("required", [])
    for name, described in schema.get("properties", {}).items():
        field = follow(document, described)
        value = described.get("x-agent-value", field.get("x-agent-value", MODEL))
        if value == OMITTED and name in required:
            raise _wrong(operation, f"{name} is required and cannot be omitted")
        if value != OMITTED:
            yield ToolField(
                name=name,
                schema=_property(document, described, name),
                variable=None if value == MODEL else _variable(operation, name, value),
                is_required=name in required,
            )


def _sent_along(operation: Operation, sends: Any) -> Iterator[ToolField]:
    if not isinstance(sends, dict):
        raise _wrong(operation, "`sends` in x-agent-tool is not an object")
    for name, value in sends.items():
        yield ToolField(name, {"type": "string"}, _variable(operation, name, value), is_required=False)


def _variable(operation: Operation, name: str, value: Any) -> str:
    is_name = isinstance(value, str) and _VARIABLE.match(value)
    if not is_name or (value.startswith("system__") and value not in SYSTEM_VARIABLES):
        known = ", ".join(sorted(SYSTEM_VARIABLES))
        raise _wrong(operation, f"{name} is filled by {value!r}; it can be {MODEL}, {OMITTED}, or one of {known}")
    return str(value)


def _property(document: Document, node: Any, name: str, depth: int = 0) -> dict[str, Any]:
    """Return a schema in the few words that an agent's tool knows: type, description, enum, properties, items."""
    if depth > _DEEPEST:
        raise InvalidDocument(f"The field {name} is nested too deep for a tool.")
    schema = _plain(document, node)
    kind = schema.get("type") if schema.get("type") in _TYPES else "string"
    told: dict[str, Any] = {"type": kind, "description": _words(str(schema.get("description") or _spoken(name)))}
    if kind == "object":
        inner = {key: _property(document, each, key, depth + 1) for key, each in schema.get("properties", {}).items()}
        told |= {"properties": inner, "required": list(schema.get("required", []))}
    elif kind == "array":
        told["items"] = _property(document, schema.get("items", {}), name, depth + 1)
    elif kind == "string" and all(isinstance(word, str) for word in schema.get("enum", [None])):
        told["enum"] = list(schema["enum"])
    return told


def _plain(document: Document, node: Any) -> dict[str, Any]:
    """Follow references and join what `allOf` lists."""
    schema = dict(follow(document, node))
    for part in schema.pop("allOf", []):
        joined = _plain(document, part)
        properties = {**joined.get("properties", {}), **schema.get("properties", {})}
        required = [*joined.get("required", []), *schema.get("required", [])]
        schema = {**joined, **schema}
        if properties:
            schema |= {"properties": properties, "required": required}
    return schema


def _spoken(name: str) -> str:
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name).replace("_", " ").lower().strip()
    return f"{words[:1].upper()}{words[1:]}."


def _wrong(operation: Operation, problem: str) -> InvalidDocument:
    return InvalidDocument(f"{operation.key}: {problem}.")
