"""What `openapi/events.yaml` says about frames, as validators; for every test that sees one."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

from openapi import yaml_text

EVENTS_YAML = Path(__file__).parents[2] / "openapi" / "events.yaml"

Frame = dict[str, Any]


@cache
def document() -> dict[str, Any]:
    """Return the published document."""
    return dict(yaml_text.parse(EVENTS_YAML.read_bytes(), "events.yaml"))


@cache
def validator(message: str) -> jsonschema_rs.Validator:
    """Return the validator of a message's payload, by its key in the document."""
    schema = {"$ref": f"#/components/messages/{message}/payload", "components": document()["components"]}
    return jsonschema_rs.Draft202012Validator(schema)


@cache
def sent_by(operation: str) -> dict[str, str]:
    """Map the wire names of an operation's messages to their keys."""
    references = [item["$ref"].rsplit("/", 1)[-1] for item in document()["operations"][operation]["messages"]]
    return {document()["components"]["messages"][key]["name"]: key for key in references}


def check(text: str | bytes) -> Frame:
    """Read a frame of the server and prove that it is one of the published ones."""
    frame: Frame = json.loads(text)
    name = frame["event"] if frame["type"] == "event" else frame["type"]
    validator(sent_by("follow")[name]).validate(frame)
    return frame
