"""What is published wins: an overlay adds and narrows, and answers for everything else it says."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from openapi import document, yaml_text
from openapi.document import Contract, assemble
from openapi.generating import generate, promises
from openapi.references import Document
from tests.support.tree import ROOT

SIZE: Document = {"in": "query", "name": "size", "schema": {"type": "integer", "maximum": 100}}
ANSWER: Document = {
    "description": "ok",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}},
}
PUBLISHED: Document = {
    "openapi": "3.0.3",
    "info": {"title": "t", "version": "1"},
    "paths": {
        "/api/a": {
            "parameters": [copy.deepcopy(SIZE)],
            "get": {
                "operationId": "get_a",
                "summary": "Read A",
                "tags": ["a"],
                "parameters": [{"in": "query", "name": "page", "schema": {"type": "string"}}],
                "responses": {"200": ANSWER, "404": {"$ref": "#/components/responses/None"}},
                "security": [{"token": []}],
            },
        }
    },
    "components": {
        "responses": {"None": {"description": "none"}},
        "schemas": {
            "A": {"type": "object", "properties": {"b": {"type": "string", "maxLength": 9}}, "required": ["b"]},
            "Other": {"type": "string"},
        },
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
}
OPERATION = "$.paths['/api/a'].get"
A = "$.components.schemas.A"


def contract_with(*actions: Document) -> Contract:
    given = [{"description": "because"} | action for action in actions]
    overlay = {"overlay": "1.0.0", "info": {"title": "o", "version": "1"}, "actions": given}
    return assemble(json.dumps(PUBLISHED).encode(), json.dumps(overlay).encode())


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (
            {"target": OPERATION, "update": {"summary": "Read B"}},
            'summary is published as "Read A" and not "Read B"',
        ),
        (
            {"target": f"{OPERATION}.responses['200'].content['application/json'].schema", "update": {"$ref": "#/x"}},
            "contradicts what is published, which is served: paths//api/a/get/responses/200/content/application/json",
        ),
        ({"target": f"{OPERATION}.responses['404']", "update": {"content": {}}}, "get/responses/404/content"),
        ({"target": A, "update": {"$ref": "#/components/schemas/Other"}}, "components/schemas/A/$ref"),
        ({"target": f"{OPERATION}.security", "update": {"other": []}}, 'is published as {"token": []} and not'),
        ({"target": OPERATION, "update": {"security": [{"token": ["x"]}]}}, "/security is published as"),
        (
            {"target": f"{OPERATION}.parameters", "update": {"in": "query", "name": "page", "schema": {}}},
            "get/parameters is published as",
        ),
        ({"target": f"{A}.properties.b", "update": {"maxLength": 20}}, "is published as 9 and not 20"),
        ({"target": f"{A}.properties.b", "update": {"maxLength": 5}}, "says so: `x-narrows: {maxLength: 9}`"),
        ({"target": f"{A}.properties", "update": {"b": {"type": "integer"}}}, 'as "string" and not "integer"'),
        (
            {"target": f"{OPERATION}.security[0]", "remove": True},
            "removes what is published: paths//api/a/get",
        ),
        (
            {"target": f"{A}.properties.b", "remove": True},
            "removes what is published: components/schemas/A",
        ),
        ({"target": OPERATION, "update": {"summary": "Read A"}}, "is superfluous: all it says is published; delete it"),
        ({"target": f"{OPERATION}.tags", "update": "a"}, "is superfluous"),
        (
            {"target": A, "update": {"required": ["b", "c"], "x-a": 1}},
            "is overtaken: components/schemas/A/required is published now; delete that from it",
        ),
        (
            {"target": f"{A}.properties.b", "x-narrows": {"maxLength": 8}, "update": {"maxLength": 5}},
            "is published as 9 and not 5",
        ),
        (
            {"target": f"{A}.properties.b", "x-narrows": {"minLength": 1}, "update": {"x-a": 5}},
            "`x-narrows` names minLength, which it does not narrow",
        ),
    ],
)
def test_action_that_says_otherwise_is_named_and_the_published_document_is_served(action: Document, words: str) -> None:
    """With its number, its reason and the place; nothing published is missing or changed."""
    contract = contract_with(action)
    sentences = list(promises.unanswered(contract))

    assert any(sentence.startswith("overlay.yaml, action 1 (") for sentence in sentences)
    assert words in "\n".join(sentences)
    assert list(promises.broken(contract)) == []


@pytest.mark.parametrize(
    "action",
    [
        {"target": OPERATION, "update": {"description": "more", "x-token-kinds": ["API key"]}},
        {"target": f"{OPERATION}.responses", "update": {"503": {"description": "later"}}},
        {"target": f"{A}.properties", "update": {"c": {"type": "string"}}},
        {"target": f"{A}.properties.b", "update": {"pattern": "^x"}},
        {"target": f"{A}.properties.b", "x-narrows": {"maxLength": 9}, "update": {"maxLength": 5}},
        {
            "target": f"{A}",
            "x-narrows": {"properties/b/maxLength": 9},
            "update": {"properties": {"b": {"maxLength": 5}}},
        },
    ],
)
def test_action_that_adds_or_narrows_is_in_order(action: Document) -> None:
    """A limit that is published may be narrower when the action says which it narrows."""
    contract = contract_with(action)

    assert [*promises.unanswered(contract), *promises.broken(contract)] == []
    assert contract.served != contract.published


def _without_answer(served: Document) -> None:
    del served["paths"]["/api/a"]["get"]["responses"]["200"]


def _with_own_size(served: Document) -> None:
    served["paths"]["/api/a"]["get"]["parameters"].append({**SIZE, "schema": {"type": "string"}})


def _with_other_security(served: Document) -> None:
    served["paths"]["/api/a"]["get"]["security"].append({"other": []})


def _with_null(served: Document) -> None:
    served["components"]["schemas"]["A"]["nullable"] = True


def _with_reference(served: Document) -> None:
    served["components"]["schemas"]["A"]["$ref"] = "#/components/schemas/Other"


def _with_other_path(served: Document) -> None:
    served["paths"]["/api/b"] = served["paths"].pop("/api/a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_answer, "paths//api/a/get/responses/200 is published and not served"),
        (_with_other_path, "paths//api/a is published and not served"),
        (_with_own_size, "GET /api/a/query/size/schema/type is published as"),
        (_with_other_security, "GET /api/a is published with the security"),
        (_with_null, "promises less than is published: now nullable"),
        (_with_reference, "components/schemas/A is published in full and served as a reference"),
    ],
)
def test_what_is_lost_is_proved_of_the_documents_whatever_was_applied(change: Any, words: str) -> None:
    """The proof looks at the two documents, and not at the overlay."""
    contract = contract_with()
    served = copy.deepcopy(contract.served)
    change(served)

    assert any(words in sentence for sentence in promises.broken(replace(contract, served=served)))


@pytest.fixture(scope="module")
def overtaken() -> generate.Report:
    """The report of an update by a document that brings what our overlay had invented."""
    new = yaml_text.parse(document.PUBLISHED.read_bytes(), "openapi.yaml")
    note = new["paths"]["/api/webhook/elevenlabs/tools/create-note"]["post"]
    note["security"] = [{"bearerAuth": []}]
    new["components"]["schemas"]["ElevenLabsTransferResponse"]["properties"]["error"] = {"type": "string"}
    note["responses"]["413"] = {"description": "Too large"}
    new["paths"]["/api/auth/sign-out"] = {
        "post": {
            "tags": ["Auth"],
            "operationId": "post_auth_sign_out",
            "summary": "Leave",
            "responses": {"204": {"description": "Left"}},
            "security": [{"bearerAuth": []}],
        }
    }
    return generate.plan(ROOT, json.dumps(new).encode()).report


def test_update_compares_published_with_published_and_served_with_served(overtaken: generate.Report) -> None:
    """What the vendor changed stands beside what that changes here."""
    published = {(change.place, change.what) for change in overtaken.published}
    served = {(change.place, change.what) for change in overtaken.changes}

    assert ("POST /api/auth/sign-out", "operation added") in published
    assert ("POST /api/auth/sign-out", "operation added") not in served
    assert ("POST /api/webhook/elevenlabs/tools/create-note", "security changed") in published
    assert ("POST /api/webhook/elevenlabs/tools/create-note", "security changed") not in served


def test_update_names_every_action_that_the_new_document_overtakes(overtaken: generate.Report) -> None:
    """And what to do about it; `check` says the same until it is done."""
    said = "\n".join(overtaken.clashes)

    assert overtaken.lost == []
    assert set(overtaken.clashes) <= {sentence.removesuffix(".") for sentence in overtaken.complaints}
    assert 'post/summary is published as "Leave" and not "Sign out everywhere"' in said
    assert "is overtaken: paths//api/auth/sign-out/post/" in said
    assert 'responses/413/description is published as "Too large" and not' in said
    assert "components/schemas/ElevenLabsTransferResponse/properties/error/type is published now" in said
    assert "is overtaken: paths//api/webhook/elevenlabs/tools/create-note/post/security is published now" in said
