"""The vendor's next document, taken in by a tree from before: what the run reports, what it leaves, and its types.

The tree from before is made from this one: the document without the pages it brought, the overlay without the actions
about them, and no handler of the four new operations.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from domain import documents
from openapi import yaml_text
from tests.support.tree import ROOT, Run, Tree, copy_tree

POST_CALL = "/api/webhook/elevenlabs"
NEW = (
    f"{POST_CALL}/personalization",
    f"{POST_CALL}/tools/check-availability",
    f"{POST_CALL}/tools/check-business-hours",
    f"{POST_CALL}/tools/update-contact",
)
STUBS = [
    "webhook.post_webhook_elevenlabs_personalization",
    "webhook.post_webhook_elevenlabs_tools_check_availability",
    "webhook.post_webhook_elevenlabs_tools_check_business_hours",
    "webhook.post_webhook_elevenlabs_tools_update_contact",
]
NEW_SCHEMAS = (
    "ElevenLabsToolInvocation",
    "ElevenLabsBusinessHoursResponse",
    "ElevenLabsAvailabilityResponse",
    "ElevenLabsUpdateContactRequest",
    "ElevenLabsUpdateContactResponse",
    "ElevenLabsPersonalizationRequest",
    "ElevenLabsPersonalizationResponse",
    "ElevenLabsPostCallRequest",
    "ElevenLabsPostCallResponse",
)

# What the overlay had invented for the post-call webhook before the vendor published it, cut to its bones.
INVENTED: dict[str, Any] = {
    POST_CALL: {
        "post": {
            "tags": ["Webhooks"],
            "summary": "ElevenLabs post-call webhook",
            "operationId": "post_webhook_elevenlabs",
            "x-raw-body": True,
            "security": [{"bearerAuth": []}],
            "x-token-kinds": ["tool secret"],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ElevenLabsPostCallRequest"}}},
            },
            "responses": {
                "200": {
                    "description": "Accepted",
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/ElevenLabsPostCallResponse"}}
                    },
                },
                **{
                    status: {"$ref": f"#/components/responses/Webhook{name}"}
                    for status, name in {"400": "Invalid", "401": "Unauthorized", "429": "Limited"}.items()
                },
            },
        }
    }
}
INVENTED_SCHEMAS: dict[str, Any] = {
    "ElevenLabsPostCallRequest": {"description": "What ElevenLabs reports.", "example": {"type": "x"}},
    "ElevenLabsPostCallResponse": {
        "type": "object",
        "properties": {"received": {"type": "boolean", "enum": [True]}, "callId": {"type": "string"}},
        "required": ["received"],
        "additionalProperties": True,
        "example": {"received": True},
    },
}


def published_before(now: dict[str, Any]) -> dict[str, Any]:
    """Return the document without the pages that it brought."""
    schemas = now["components"]["schemas"]
    kept = {name: schema for name, schema in schemas.items() if name not in NEW_SCHEMAS}
    paths = {path: item for path, item in now["paths"].items() if path not in (*NEW, POST_CALL)}
    return now | {"paths": paths, "components": now["components"] | {"schemas": kept}}


def overlay_before(overlay: dict[str, Any]) -> dict[str, Any]:
    """Return the overlay without what speaks of the new pages, and with what it had invented for one of them."""
    why = "ElevenLabs reports what happened in a call, and no page says how."
    invented = [
        {"target": "$.paths", "description": why, "update": INVENTED},
        {"target": "$.components.schemas", "description": why, "update": INVENTED_SCHEMAS},
    ]
    return overlay | {"actions": [*filter(None, map(_without, overlay["actions"])), *invented]}


def _without(action: dict[str, Any]) -> dict[str, Any] | None:
    target = action["target"]
    for path in sorted((*NEW, POST_CALL), reverse=True):
        target = target.replace(f"'{path}',\n", "").replace(f"'{path}', ", "").replace(f"'{path}'", "")
    target = " ".join(target.split()).replace(", ]", "]").replace(",]", "]").replace("[ ", "[")
    is_empty = "[]" in target or any(name in target for name in NEW_SCHEMAS)
    return None if is_empty else action | {"target": target}


def _texts(handlers: str) -> Iterator[str]:
    """Yield the module without the handlers of the new operations and what they import of the generated code."""
    stems = tuple("".join(map(str.capitalize, name.split(".")[1].split("_"))) for name in STUBS)
    lines = handlers.splitlines(keepends=True)
    gone = {
        line
        for node in ast.parse(handlers).body
        if isinstance(node, ast.AsyncFunctionDef) and f"webhook.{node.name}" in STUBS
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    kept = (line for number, line in enumerate(lines, 1) if number not in gone)
    yield from (line for line in kept if not line.strip().startswith(stems))


@pytest.fixture
def before(tmp_path: Path) -> Tree:
    """Return the tree from before, its generated code included."""
    tree = copy_tree(tmp_path / "tree")
    folder, webhook = tree.root / "openapi", tree.root / "handlers" / "webhook.py"
    for name, made in (("openapi.yaml", published_before), ("overlay.yaml", overlay_before)):
        path: Path = folder / name
        change: Callable[[dict[str, Any]], dict[str, Any]] = made
        path.write_text(documents.dump(change(dict(yaml_text.parse(path.read_bytes(), name)))).decode())
    webhook.write_text("".join(_texts(webhook.read_text())))
    made_run = tree.contract("generate", "--json")
    assert made_run.code == 0, made_run.err
    assert made_run.report["created"] == []
    assert made_run.report["complaints"] == []
    return tree


def update(tree: Tree) -> Run:
    """Take the document in as it stands, byte by byte."""
    return tree.update((ROOT / "openapi" / "openapi.yaml").read_bytes())


def test_next_document_is_taken_in_as_it_stands(before: Tree, cache: Path) -> None:
    """Four operations wait as stubs, the page replaces the invented fifth, and everything fits its types."""
    run = update(before)
    changes = {(one["place"], one["what"]): one["severity"] for one in run.report["changes"]}
    again = update(before)

    assert run.code == 0, run.err
    assert (before.root / "openapi" / "openapi.yaml").read_bytes() == (ROOT / "openapi" / "openapi.yaml").read_bytes()
    assert run.report["created"] == STUBS
    assert {changes[f"POST {path}", "operation added"] for path in NEW} == {"additive"}
    # What the overlay had left open about the webhook, the page decides.
    assert changes["ElevenLabsPostCallRequest (in requests)", "now required"] == "breaking"
    assert not any("operation removed" in what for _, what in changes)
    assert [run.report["orphans"], run.report["renames"]] == [[], []]
    # The document leaves them open, and the overlay from before does not say who may call them.
    assert run.report["open"] == [f"POST {path}" for path in NEW]
    assert {f"{name} is still a stub; write it, or list it in openapi/stubs.txt." for name in STUBS} <= set(
        run.report["complaints"]
    )
    assert again.report["written"] == []
    assert before.types(cache) == []


def test_tree_that_took_it_in_is_not_in_order_until_the_stubs_are_written(before: Tree) -> None:
    """`check` fails and names them."""
    update(before)
    checked = before.contract("check", "--json")

    assert checked.code == 1
    assert [name for name in STUBS if not any(name in line for line in checked.report["complaints"])] == []
