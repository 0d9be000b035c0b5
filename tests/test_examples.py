"""Every example of the published pages, sent as it stands."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openapi.references import follow
from tests.support.api import Api, running_api
from tests.support.audio import mp3_base64
from tests.support.contract import CONTRACT

PUBLISHED = CONTRACT.published
POST_CALL = "/api/webhook/elevenlabs"


def example_of(path: str) -> dict[str, Any]:
    schema = PUBLISHED["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    example: dict[str, Any] = follow(PUBLISHED, schema)["example"]
    return example


def documented(path: str, status: int) -> dict[str, Any]:
    """Return the example answer of that status."""
    schema = PUBLISHED["paths"][path]["post"]["responses"][str(status)]["content"]["application/json"]["schema"]
    example: dict[str, Any] = follow(PUBLISHED, schema)["example"]
    return example


def shown(path: str) -> bool:
    """Tell whether the page shows a request and its answer 200."""
    operation = PUBLISHED["paths"][path].get("post", {})
    kept = [operation.get("requestBody", {}), operation.get("responses", {}).get("200", {})]
    schemas = [node.get("content", {}).get("application/json", {}).get("schema", {}) for node in kept]
    return all("example" in follow(PUBLISHED, schema) for schema in schemas)


def token_for(api: Api, path: str) -> str:
    if "/webhook/" in path:
        return api.demo.tool_secret.get_secret_value()
    return api.demo.api_key.get_secret_value() if path.endswith("ingest") else api.superadmin_token


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(tmp_path / "var", elevenlabs_url="http://127.0.0.1:9", public_url="") as api:
        yield api


# The recording of the ingest example lies at an address that does not exist, so the documented answer to it is 400.
@pytest.mark.parametrize(
    ("path", "status"),
    [
        (path, 400 if path.endswith("/ingest") else 200)
        for path in PUBLISHED["paths"]
        if shown(path) and path != POST_CALL
    ],
)
async def test_an_example_is_answered_with_the_documented_shape(api: Api, path: str, status: int) -> None:
    """The answer has the fields of the example answer of its status, each of the same type."""
    response = await api.post(path, example_of(path), token_for(api, path))
    body, expected = response.json(), documented(path, status)

    assert response.status_code == status, body
    assert expected.keys() <= body.keys()
    assert {name: type(body[name]) for name in expected} == {name: type(value) for name, value in expected.items()}


async def test_a_report_about_a_call_that_is_not_known_yet_is_received_without_a_call(api: Api) -> None:
    """The page's example of the post-call webhook has neither a transcript nor a number; then there is no `callId`."""
    response = await api.post(POST_CALL, example_of(POST_CALL), token_for(api, POST_CALL))

    assert (response.status_code, response.json()) == (200, {"received": True})


async def test_the_report_of_the_page_becomes_a_call(api: Api) -> None:
    """The page itself, which the document abbreviates, has numbers, a transcript and a summary."""
    phone = {"direction": "inbound", "external_number": "+14165550100", "agent_number": "+12362320246"}
    data = {
        "call_duration_secs": 42,
        "transcript": [{"role": "user", "message": "I need to update my address."}],
        "analysis": {"transcript_summary": "Caller asked to update their shipping address."},
        "metadata": {"caller_id": "+14165550100", "called_id": "+12362320246", "phone_call": phone},
    }
    example = example_of(POST_CALL)
    response = await api.post(POST_CALL, example | {"data": example["data"] | data}, token_for(api, POST_CALL))

    assert response.json().keys() == documented(POST_CALL, 200).keys()


async def test_the_examples_that_have_one_right_answer_get_it(api: Api) -> None:
    """Word for word, where the page leaves nothing to the server."""
    tools = ("transfer", "send-sms", "update-contact")
    exact = [f"/api/webhook/elevenlabs/tools/{tool}" for tool in tools]
    for path in exact:
        response = await api.post(path, example_of(path), token_for(api, path))
        assert response.json() == documented(path, 200)


async def test_the_ingest_example_with_a_recording_that_exists_is_created_and_then_deduplicated(api: Api) -> None:
    """201 with three ids, then 200 with the first of them, as the examples show."""
    call = {**example_of("/api/calls/ingest"), "recording": mp3_base64()}
    created, repeated = await api.ingest(call), await api.ingest(call)

    assert (created.status_code, repeated.status_code) == (201, 200)
    assert created.json().keys() == documented("/api/calls/ingest", 201).keys()
    assert documented("/api/calls/ingest", 200).keys() <= repeated.json().keys()
    assert repeated.json()["callId"] == created.json()["callId"]
