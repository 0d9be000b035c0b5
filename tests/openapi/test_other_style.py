"""Operations in another style than the published ones: no test of ours fails by how a page is written.

A tree gets a reading operation and a tool that have no examples, no tags, other operationIds, an envelope without
`success`, and an answer that cannot tell a failure. Their handlers are written; the tests that walk over the operations
run in that tree as they are.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from domain import documents
from openapi import yaml_text
from tests.support.tree import ROOT, Tree, copy_tree

pytestmark = pytest.mark.processes

SHELF, VISIT = "/api/pantry/{shelfId}", "/api/webhook/elevenlabs/tools/book-visit"
WHY = "A page in another style."


def answer(name: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"description": "x", "content": content}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def publish(document: dict[str, Any]) -> None:
    shelf_id = {"name": "shelfId", "in": "path", "required": True, "schema": {"type": "string"}}
    refusals = {status: answer("Trouble") for status in ("401", "500")}
    document["paths"][SHELF] = {
        "get": {
            "operationId": "readShelf",
            "parameters": [shelf_id],
            "responses": {"200": answer("Shelf"), "404": answer("Trouble"), **refusals},
            "security": [{"bearerAuth": []}],
        }
    }
    document["paths"][VISIT] = {
        "post": {
            "operationId": "bookVisit",
            "requestBody": {"required": True, "content": answer("Visit")["content"]},
            "responses": {"200": answer("Booked"), **refusals},
        }
    }
    document["components"]["schemas"] |= {
        "Shelf": closed(items={"type": "array", "items": {"type": "string"}}),
        "Visit": closed(day={"type": "string", "format": "date"}),
        "Booked": closed(booked={"type": "boolean"}),
        "Trouble": closed(detail={"type": "string"}),
    }


def add(overlay: dict[str, Any]) -> None:
    statuses = {"400": answer("Trouble")}
    tool = {
        "x-token-kinds": ["tool secret"],
        "security": [{"bearerAuth": []}],
        "x-agent-webhook": "other",
        "x-max-body-bytes": 65536,
        "x-max-values": 1000,
        "responses": statuses | {"413": answer("Trouble"), "415": answer("Trouble")},
    }
    updates = {
        "$.components.schemas.Trouble": {"x-error-field": {"detail": "message"}},
        f"$.paths['{SHELF}'].get.responses": statuses | {"503": answer("Trouble")},
        f"$.paths['{VISIT}'].post": tool,
    }
    overlay["actions"] += [{"target": at, "description": WHY, "update": update} for at, update in updates.items()]


PANTRY = '''
"""The pantry."""

from actions.relay import Relay
from openapi import exchange, models, operations


async def read_shelf(request: exchange.Request[Relay], *, shelf_id: str) -> operations.ReadShelfAnswer:
    """Say what is there."""
    await request.relay.database.read(lambda: None)
    return operations.ReadShelf200(models.Shelf(items=[shelf_id]))
'''
BOOK = '''

from openapi import operations


async def book_visit(request: Request[Relay], *, body: models.Visit) -> operations.BookVisitAnswer:
    """Book a visit."""
    await request.relay.database.read(lambda: None)
    return operations.BookVisit200(models.Booked(booked=bool(body.day)))
'''


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A tree that serves both, tests included."""
    tree = copy_tree(tmp_path / "tree")
    shutil.copytree(ROOT / "tests", tree.root / "tests", ignore=shutil.ignore_patterns("node_modules"))
    for name, change in (("openapi.yaml", publish), ("overlay.yaml", add)):
        path = tree.root / "openapi" / name
        document = dict(yaml_text.parse(path.read_bytes(), name))
        change(document)
        path.write_bytes(documents.dump(document))
    (tree.root / "handlers" / "pantry.py").write_text(PANTRY)
    with (tree.root / "handlers" / "webhook.py").open("a") as webhook:
        webhook.write(BOOK)
    return tree


def test_operations_in_another_style_fail_no_test_of_ours(tree: Tree) -> None:
    """What walks over operations, their bodies, answers, tokens and examples takes them as they are."""
    made = tree.contract("generate", "--json").report
    assert [made["stubs"], made["complaints"]] == [[], []]

    walks = ("tests/openapi/test_document.py", "tests/openapi/test_fuzz.py", "tests/handlers/test_security.py")
    chosen = "readShelf or bookVisit or pantry or book-visit or published_is_served or own_kind or valid_openapi"
    # The one test that says which document is published is for whoever takes a new one.
    run = tree.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *walks, "tests/test_examples.py")

    assert run.code == 0, run.out[-4000:]
    assert " passed" in run.out
