import json

import jsonschema_rs
import pytest

from domain.events import EventName
from domain.statuses import MessageStatus
from realtime import frames
from realtime.frames import Close
from tests.support import published_events
from tests.support.published_events import document, sent_by, validator

MESSAGES = document()["components"]["messages"]


@pytest.mark.parametrize("key", MESSAGES)
def test_examples_are_what_they_illustrate(key: str) -> None:
    """Every message has an example, and every example is valid and carries the message's name."""
    for example in MESSAGES[key]["examples"]:
        payload = example["payload"]
        validator(key).validate(payload)
        assert payload.get("event", payload["type"]) == MESSAGES[key]["name"]


@pytest.mark.parametrize("key", MESSAGES)
def test_frames_are_closed(key: str) -> None:
    """A field nobody published is an error, so drift is noticed, inside `data` as well."""
    payload = MESSAGES[key]["examples"][0]["payload"]
    strays = [payload | {"stray": 1}]
    if "data" in payload:
        strays.append(payload | {"data": payload["data"] | {"stray": 1}})
    for stray in strays:
        with pytest.raises(jsonschema_rs.ValidationError):
            validator(key).validate(stray)


@pytest.mark.parametrize("key", sent_by("ask").values())
def test_published_messages_are_understood(key: str) -> None:
    """What the document says a listener may send, the server reads."""
    for example in MESSAGES[key]["examples"]:
        message = frames.parse(json.dumps(example["payload"]))
        assert message.type == example["payload"]["type"]


def test_every_event_is_published() -> None:
    """The document and the code know the same events and the same statuses."""
    schemas = document()["components"]["schemas"]
    payloads = {name: MESSAGES[key]["payload"]["$ref"].rsplit("/", 1)[-1] for name, key in sent_by("follow").items()}
    names = {EventName(name) for name, payload in payloads.items() if "event" in schemas[payload]["properties"]}

    assert names == set(EventName)
    assert document()["components"]["schemas"]["EventName"]["enum"] == [name.value for name in EventName]
    assert document()["components"]["schemas"]["DeliveryStatus"]["enum"] == [status.value for status in MessageStatus]


def test_every_close_code_is_explained() -> None:
    """The document says of each of our close codes what a client should do."""
    for code in Close:
        assert f"| {code.value} |" in document()["info"]["description"]


def test_references_lead_somewhere() -> None:
    """Every reference in the document can be followed."""

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            return [node["$ref"]] if "$ref" in node else [ref for child in node.values() for ref in references(child)]
        return [ref for child in node for ref in references(child)] if isinstance(node, list) else []

    for reference in references(document()):
        target = document()
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_the_check_refuses_what_is_not_published() -> None:
    """The check all tests use is a check."""
    with pytest.raises(jsonschema_rs.ValidationError):
        published_events.check('{"type":"gap","since":1,"oldest":-4}')
