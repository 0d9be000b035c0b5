"""The tools of an agent, read from the document: what a new page brings, and what the overlay cannot say."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from elevenlabs import types as sdk

from domain.agents import AgentContract
from openapi import agent_tools
from openapi.document import OVERLAY, PUBLISHED, assemble
from openapi.references import InvalidDocument
from openapi.yaml_text import parse
from providers.elevenlabs_agents import tool_config
from tests.support import elevenlabs_models as models

PATH = "/api/webhook/elevenlabs/tools/book-visit"
BODY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "phone_number": {"type": "string"},
        "day": {"type": "string", "format": "date", "description": "The day,\n  as YYYY-MM-DD."},
        "unitSize": {"type": "string", "enum": ["small", "large"]},
        "people": {"type": "integer"},
        "guests": {"type": "array", "items": {"$ref": "#/components/schemas/Guest"}},
        "place": {"allOf": [{"$ref": "#/components/schemas/Guest"}, {"properties": {"floor": {"type": "number"}}}]},
        "called_id": {"type": "string"},
    },
    "required": ["phone_number", "day"],
}
GUEST = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
AGENT_VALUES = {"phone_number": "system__caller_id", "called_id": "omitted", "unitSize": "model"}


def contract_with(change: Callable[[dict[str, Any]], object] = lambda overlay: None) -> AgentContract:
    """Read the tools of our document with one more page in it; `change` alters the action about that page."""
    published, overlay = (parse(path.read_bytes(), path.name) for path in (PUBLISHED, OVERLAY))
    page = copy.deepcopy(published["paths"]["/api/webhook/elevenlabs/tools/create-note"]["post"])
    page |= {"operationId": "post_webhook_elevenlabs_tools_book_visit", "description": "Book a visit.\nAsk first."}
    page["requestBody"]["content"]["application/json"]["schema"] = {"$ref": "#/components/schemas/BookVisit"}
    published["paths"][PATH] = {"post": page}
    published["components"]["schemas"] |= {"BookVisit": copy.deepcopy(BODY), "Guest": copy.deepcopy(GUEST)}
    said: dict[str, Any] = {
        "operation": {
            "security": [{"bearerAuth": []}],
            "x-token-kinds": ["tool secret"],
            "x-agent-tool": {"response_timeout_secs": 8},
        },
        "values": dict(AGENT_VALUES),
    }
    change(said)
    properties = {name: {"x-agent-value": value} for name, value in said["values"].items()}
    overlay["actions"] += [
        {"target": f"$.paths['{PATH}'].post", "description": "A test.", "update": said["operation"]},
        {
            "target": "$.components.schemas.BookVisit",
            "description": "A test.",
            "update": {"properties": properties},
        },
    ]
    return agent_tools.read(assemble(_text(published), _text(overlay)))


def _text(document: dict[str, Any]) -> bytes:
    # JSON is YAML, but for the halves of characters that it may be escaped in.
    return json.dumps(document, ensure_ascii=False).encode()


def test_tool_that_a_new_page_brings_is_connected_without_a_line_of_code() -> None:
    """Its words are the page's, its sources the overlay's, and ElevenLabs' own models take its definition."""
    (tool,) = [one for one in contract_with().tools if one.name == "book_visit"]
    config = tool_config(tool, f"https://relay.example{PATH}", "secret_1", "a" * 24)
    body = config["api_schema"]["request_body_schema"]

    assert models.problems(sdk.ToolRequestModel, {"tool_config": config}) == []
    assert (config["description"], config["response_timeout_secs"]) == ("Book a visit. Ask first.", 8)
    assert config["api_schema"]["request_headers"]["Authorization"] == {"secret_id": "secret_1"}
    assert body["required"] == ["phone_number", "day"]
    assert body["properties"] == {
        "phone_number": {"type": "string", "dynamic_variable": "system__caller_id"},
        "day": {"type": "string", "description": "The day, as YYYY-MM-DD."},
        "unitSize": {"type": "string", "description": "Unit size.", "enum": ["small", "large"]},
        "people": {"type": "integer", "description": "People."},
        "guests": {
            "type": "array",
            "description": "Guests.",
            "items": {
                "type": "object",
                "description": "Guests.",
                "properties": {"name": {"type": "string", "description": "Name."}},
                "required": ["name"],
            },
        },
        "place": {
            "type": "object",
            "description": "Place.",
            "properties": {
                "name": {"type": "string", "description": "Name."},
                "floor": {"type": "number", "description": "Floor."},
            },
            "required": ["name"],
        },
    }


def test_variable_of_the_pre_call_webhook_gets_a_placeholder() -> None:
    """A call that was not greeted has no such variable, and ElevenLabs would fail the tool without one."""

    def change(said: dict[str, Any]) -> None:
        said["values"]["phone_number"] = "caller_number"

    (tool,) = [one for one in contract_with(change).tools if one.name == "book_visit"]
    config = tool_config(tool, f"https://relay.example{PATH}", "secret_1", "a" * 24)

    assert config["dynamic_variables"] == {"dynamic_variable_placeholders": {"caller_number": ""}}
    assert models.problems(sdk.ToolRequestModel, {"tool_config": config}) == []


def test_operation_that_takes_another_token_too_is_no_tool() -> None:
    """The report after a call may carry the tool secret, and no agent should call it."""

    def change(said: dict[str, Any]) -> None:
        said["operation"]["x-token-kinds"].append("JWT")

    assert "book_visit" not in [one.name for one in contract_with(change).tools]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: said["values"].update(day="system__weather"), "day is filled by 'system__weather'"),
        (lambda said: said["values"].update(day=7), "day is filled by 7"),
        (lambda said: said["values"].update(day="omitted"), "day is required and cannot be omitted"),
        (lambda said: said["operation"].update({"x-agent-tool": {"timeout": 3}}), "has no timeout"),
        (lambda said: said["operation"].update({"x-agent-tool": {"response_timeout_secs": 4}}), "it can be 5 to 300"),
        (lambda said: said["operation"].update({"x-agent-tool": {"interruption_mode": "off"}}), "interruption_mode is"),
        (lambda said: said["operation"].update({"x-agent-tool": {"sends": {"x": "system__x"}}}), "x is filled by"),
        (lambda said: said["operation"].update({"x-agent-tool": {"name": "transfer"}}), "tools of the same name"),
        (lambda said: said["operation"].update({"x-agent-tool": {"name": "Book it"}}), "is not a name for a tool"),
        (lambda said: said["operation"].update({"x-agent-webhook": "after"}), "x-agent-webhook is 'after'"),
        (lambda said: said["operation"].update({"x-agent-webhook": "pre-call"}), "one webhook before a call"),
    ],
)
def test_overlay_that_says_what_no_agent_can_be_given_is_refused(
    change: Callable[[dict[str, Any]], object], words: str
) -> None:
    """The operation, the field and what it can be stand in the error."""
    with pytest.raises(InvalidDocument, match=words):
        contract_with(change)


def test_every_tool_of_the_document_passes_elevenlabs_own_models() -> None:
    """Nobody's identity is left to the model: numbers and ids of a call come from its variables."""
    for tool in agent_tools.read(assemble(PUBLISHED.read_bytes(), OVERLAY.read_bytes())).tools:
        config = tool_config(tool, f"https://relay.example{tool.path}", "secret_1", "a" * 24)
        left = {one.name for one in tool.fields if one.variable is None}

        assert models.problems(sdk.ToolRequestModel, {"tool_config": config}) == []
        assert not left & {"phone_number", "called_id", "called_number", "caller_id", "conversation_id", "agent_id"}
        assert "interruption_mode" in config


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(colour="red"),
        lambda config: config.update(interruption_mode="never"),
        lambda config: config.pop("description"),
        lambda config: config["api_schema"].update(url=7),
        lambda config: config["api_schema"]["request_headers"].update(Authorization={"secret": "x"}),
        lambda config: config["api_schema"]["request_body_schema"]["properties"]["note"].update(type="text"),
    ],
)
def test_strict_reading_of_the_sdk_notices_each_mistake(change: Callable[[dict[str, Any]], object]) -> None:
    """The SDK itself lets every one of them pass."""
    served = agent_tools.read(assemble(PUBLISHED.read_bytes(), OVERLAY.read_bytes()))
    (tool,) = [one for one in served.tools if one.name == "create_note"]
    config = tool_config(tool, "https://relay.example/x", "secret_1", "a" * 24)
    change(config)

    assert models.problems(sdk.ToolRequestModel, {"tool_config": config})
