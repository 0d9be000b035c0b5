"""No operation of the served document gives one organization anything of another.

The walk is made from the document itself: every operation is called with another organization's tokens, of every kind,
and with the ids of ours wherever it takes an id. An operation that takes an id nobody has thought of fails the test.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

import handlers
from actions import administer
from domain.principals import Role
from openapi.document import Operation
from openapi.operations import OPERATIONS
from openapi.references import follow
from openapi.serving.registry import find_handlers
from persistence import calls
from persistence.models import MODELS, Call, Recording
from tests.support.api import Api, running_api
from tests.support.audio import mp3_base64
from tests.support.contract import CONTRACT, good_body
from tests.support.fuzz_data import meant
from tests.support.reading import OURS, contact_of, get, user_of

THEIR_NUMBER, EXTERNAL = "+14165550123", "vendor-call-of-ours"
ID_PATTERN = "^[0-9a-f]{24}$"
HANDLERS = find_handlers(handlers, OPERATIONS)
WORDS: tuple[str, ...] = (
    "Zebediah Quux",
    THEIR_NUMBER,
    EXTERNAL,
    "our note",
    "our text",
    "our transcript",
    "our summary",
    "our wish",
    "zq@example.com",
    "our holiday",
    "America/Toronto",
)


@dataclass
class Tenants:
    """Our organization with something of every kind, and the tokens of another one."""

    api: Api
    ids: dict[str, str]
    tokens: dict[str, str | None] = field(repr=False)
    marks: set[str] = field(repr=False)

    async def ours(self) -> str:
        """Return every row of our organization, and every object, as text."""

        def unit() -> list[Any]:
            return [_rows_of(model, self.api.organization_id) for model in MODELS]

        rows = await self.api.read(unit)
        objects = [path for path in self.api.objects() if self.api.organization_id in str(path)]
        return json.dumps(rows) + "".join(f"{path} {path.stat().st_size}" for path in objects)


def _rows_of(model: Any, organization_id: str) -> list[Any]:
    whose = model._meta.fields.get("organization") or model._meta.primary_key
    return list(model.select().where(whose == organization_id).order_by(model._meta.primary_key).dicts())


@pytest.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[Tenants]:
    async with running_api(tmp_path / "var") as api:
        ids = await _leave_something_of_every_kind(api)
        other = await administer.create_organization(api.relay, "Other", "CA")
        await administer.add_phone_number(api.relay, other.id, "+12505550100", is_default=True)
        await administer.configure_sms(api.relay, other.id, "console", {})
        user_id, jwt = await user_of(api, Role.SUPERADMIN, other.id)
        key = await administer.api_key_of(api.relay, other.id, user_id)
        secret = await administer.new_tool_secret(api.relay, other.id)
        tokens = {"JWT": jwt, "API key": key.get_secret_value(), "tool secret": secret.get_secret_value(), "none": None}
        yield Tenants(api, ids, tokens, {*WORDS, *ids.values(), api.organization_id})


async def _leave_something_of_every_kind(api: Api) -> dict[str, str]:
    contact_id = await contact_of(api, THEIR_NUMBER, "Zebediah Quux")
    agent = {"phone_number": THEIR_NUMBER, "conversation_id": "conv_ours"}
    tool_secret = api.demo.tool_secret.get_secret_value()
    connected = {"conversation_id": "conv_ours", "caller_id": THEIR_NUMBER}
    await api.post("/api/webhook/elevenlabs/personalization", connected, tool_secret)
    await api.tool("update-contact", agent | {"email": "zq@example.com"})
    note_id = (await api.tool("create-note", agent | {"note": "our note"})).json()["note_id"]
    await api.tool("send-sms", agent | {"message": "our text"})
    await api.tool("transfer", {"reason": "our wish", "conversation_id": "conv_ours"})
    call = {
        "direction": "inbound",
        "fromNumber": THEIR_NUMBER,
        "toNumber": OURS,
        "duration": 5,
        "status": "completed",
        "transcript": [{"role": "user", "message": "our transcript"}],
        "summary": "our summary",
        "recording": mp3_base64(),
        "externalCallId": EXTERNAL,
    }
    made = (await api.ingest(call)).json()
    threads = await api.post("/api/conversation/all", {"contactId": contact_id}, api.superadmin_token)
    conversation_id = threads.json()["conversations"][0]["_id"]
    messages = (await get(api, f"/api/conversation/{conversation_id}/messages")).json()["messages"]
    (recording,) = await api.read(lambda: list(Recording.select()))
    await _say_when_we_are_there(api)
    user = (await get(api, "/api/auth/verify-token")).json()["user"]
    (key,) = (await get(api, "/api/user/api-keys")).json()["data"]["apiKeys"]
    return {
        "callId": made["callId"],
        "contactId": contact_id,
        "conversationId": conversation_id,
        "messageId": messages[0]["_id"],
        "recordingId": recording.id,
        "userId": user["id"],
        "externalCallId": EXTERNAL,
        "keyId": key["id"],
        "noteId": note_id,
        "organizationId": api.organization_id,
        "agentId": "agent_ours",
        "epoch": (await get(api, "/api/events")).json()["epoch"],
    }


async def _say_when_we_are_there(api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.superadmin_token}"}
    label = {"timezone": "America/Toronto", "holidays": [{"date": "2026-12-25", "label": "our holiday"}]}
    hours = f"/api/organizations/{api.organization_id}/business-hours"
    for path, body in ((hours, label), ("/api/user/availability", {"isAvailable": True})):
        assert (await api.http.put(path, json=body, headers=headers)).status_code == 200


# The walk


@pytest.mark.parametrize("operation", CONTRACT.operations, ids=lambda operation: operation.id)
async def test_another_organization_gets_nothing_and_changes_nothing(tenants: Tenants, operation: Operation) -> None:
    """Whatever token of its own it brings and whichever of our ids it names."""
    before = await tenants.ours()
    named = operation.path.count("{") > 0
    for kind, token in tenants.tokens.items():
        response = await _call(tenants, operation, token)
        found = {mark for mark in tenants.marks if mark in response.text}

        assert not found, (kind, response.status_code, response.text)
        if not OPERATIONS.operations[operation.key].is_stub:
            refused = {400, 401, 404}
            assert response.status_code in refused | (set() if named else {200, 201}), (kind, response.text)
        assert await tenants.ours() == before, kind


async def test_the_walk_reaches_what_is_ours_with_our_own_tokens(tenants: Tenants) -> None:
    """The same requests with our own token find it, so the walk asks for things that are there."""
    api, reached = tenants.api, set()
    for operation in CONTRACT.operations:
        if operation.method == "GET" and "{" in operation.path:
            response = await _call(tenants, operation, api.superadmin_token)
            if response.status_code == 200 and any(mark in response.text for mark in tenants.marks):
                reached.add(operation.id)

    by_id = {one.id for one in CONTRACT.operations if one.method == "GET" and "{" in one.path}
    # The audio is behind a signature, which no token replaces.
    assert reached == by_id - {"get_recordings_audio"}


async def test_the_walk_would_notice_a_hole(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that forgets whose the row is makes it fail."""
    monkeypatch.setattr(calls, "get", lambda _, call_id: Call.get_or_none(Call.id == call_id))
    operation = next(one for one in CONTRACT.operations if one.id == "get_calls_call")

    with pytest.raises(AssertionError):
        await test_another_organization_gets_nothing_and_changes_nothing(tenants, operation)


async def test_a_link_to_one_recording_opens_no_other(tenants: Tenants) -> None:
    """Its signature is of one path."""
    api = tenants.api
    body = (await get(api, f"/api/calls/{tenants.ids['callId']}/recording")).json()
    query = body["audioUrl"].partition("?")[2]
    response = await api.http.get(f"/api/recordings/{'0' * 24}/audio?{query}")

    assert response.status_code == 401


# Requests from the document


async def _call(tenants: Tenants, operation: Operation, token: str | None) -> httpx.Response:
    path = operation.path
    query, headers = {}, {"Authorization": f"Bearer {token}"} if token else {}
    for parameter in operation.parameters:
        value = _value(tenants.ids, operation, parameter)
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", value)
        elif parameter["in"] == "query" and value is not None:
            query[parameter["name"]] = value
    content = None
    if operation.body is not None:
        headers["Content-Type"] = "application/json"
        content = json.dumps(_body(tenants.ids, operation))
    return await tenants.api.http.request(
        operation.method, path, params=query or None, headers=headers, content=content
    )


def _value(ids: dict[str, str], operation: Operation, parameter: Any) -> Any:
    """Return one of our ids for a parameter that takes one, something that is valid for any other that is needed."""
    name, schema = meant(operation.path, parameter["name"]), follow(CONTRACT.served, parameter.get("schema", {}))
    if name.endswith("Id") or schema.get("pattern") == ID_PATTERN:
        assert name in ids, f"{operation.key} takes {name}; give the walk one of ours"
        return ids[name]
    if not parameter.get("required"):
        return None
    value = parameter.get("example", schema.get("enum", [None])[0])
    assert value is not None, f"{operation.key} needs {name}; give it an example in the overlay"
    return value


def _body(ids: dict[str, str], operation: Operation) -> Any:
    """Return the example of the body with our ids and our contact's number in it."""
    if operation.body_schema is None:
        return {}
    schema = follow(CONTRACT.served, operation.body_schema)
    body = good_body(operation) or dict(schema.get("example", {}))
    assert body, f"{operation.key} has a body without an example"
    for name, described in schema.get("properties", {}).items():
        if follow(CONTRACT.served, described).get("pattern") == ID_PATTERN:
            assert name in ids, f"{operation.key} takes {name}; give the walk one of ours"
        if name in ids:
            body[name] = ids[name]
        elif re.fullmatch(r"phone_number|phoneNumber|fromNumber", name):
            body[name] = THEIR_NUMBER
    return body
