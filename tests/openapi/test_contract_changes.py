"""Tether publishes a new document: every case, as a person would meet it, on a copy of the code."""

import copy
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from openapi import document
from tests.support.synthetic import OPERATIONS, RESOURCES, synthetic
from tests.support.tree import Tree, copy_tree

INGEST, CONFIG = "/api/calls/ingest", "/api/calls/voice-ai/config"
TRANSFER = "/api/webhook/elevenlabs/tools/transfer"
ERROR = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/CallsErrorResponse"}}}}
HISTORY: dict[str, Any] = {
    "get": {
        "operationId": "get_calls_recent",
        "summary": "List calls",
        "security": [{"bearerAuth": []}],
        "parameters": [
            {"name": "limit", "in": "query", "schema": {"type": "integer", "default": 50}},
            {"name": "status", "in": "query", "schema": {"type": "string", "enum": ["completed", "failed"]}},
        ],
        "responses": {"200": {"description": "Calls"}, "500": {"description": "Ouch"} | ERROR},
    }
}
CONTACTS: dict[str, Any] = {
    "post": {
        "operationId": "createContact",
        "security": [{"bearerAuth": []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object", "properties": {"id": {"type": "string"}}}}},
        },
        "responses": {"201": {"description": "Made"}, "500": {"description": "Ouch"} | ERROR},
    }
}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return copy_tree(tmp_path / "tree")


@pytest.fixture
def published() -> dict[str, Any]:
    return copy.deepcopy(document.parse(document.PUBLISHED.read_bytes(), "openapi.yaml"))


def severities(report: dict[str, Any]) -> set[str]:
    return {change["severity"] for change in report["changes"]}


def hand_written(files: dict[str, bytes]) -> dict[str, bytes]:
    return {
        name: content for name, content in files.items() if name.startswith("handlers/") or name.endswith("lay.yaml")
    }


def without_in_overlay(tree: Tree, text: str, replacement: str = "") -> None:
    overlay = tree.root / "openapi" / "overlay.yaml"
    assert text in overlay.read_text()
    overlay.write_text(overlay.read_text().replace(text, replacement))


def without_action(tree: Tree, target: str) -> None:
    """Take the action with that target out of the overlay."""
    overlay = tree.root / "openapi" / "overlay.yaml"
    head, *actions = overlay.read_text().split("\n  - target: ")
    kept = [action for action in actions if not action.startswith(f"{target}\n")]
    assert len(kept) == len(actions) - 1
    overlay.write_text("\n  - target: ".join([head, *kept]))


# As it is


def test_repository_is_in_order() -> None:
    """Nothing has drifted, nothing is unwritten, nothing left over."""
    run = Tree(Path(document.__file__).parents[1]).run("manage.py", "contract", "check")

    assert (run.code, run.out) == (0, "The generated code is what the contract makes it.\n")


def test_generating_again_changes_nothing(tree: Tree) -> None:
    """Generation is the same every time, whatever Python's hashes are seeded with."""
    before = tree.files()
    for seed in ("1", "2"):
        assert tree.contract("generate", "--json", PYTHONHASHSEED=seed).report["written"] == []

    assert tree.files() == before


def test_lost_files_are_generated_to_the_byte(tree: Tree) -> None:
    """Generated files hold nothing that is not in the documents."""
    before = tree.files()
    for name in ("models.py", "operations.py", "coverage.py"):
        (tree.root / "openapi" / name).unlink()

    assert tree.contract("generate").code == 0
    assert tree.files() == before


def test_drift_fails_the_check_and_names_the_cure(tree: Tree) -> None:
    """A generated file that was edited by hand is found; the check itself writes nothing."""
    models = tree.root / "openapi" / "models.py"
    models.write_text(models.read_text() + "\n# mine\n")
    before = tree.files()
    run = tree.contract("check")

    assert run.code == 1
    assert "openapi/models.py" in run.out
    assert "python manage.py contract generate" in run.out
    assert tree.files() == before


# What may change


def test_new_operation_gets_a_typed_stub(tree: Tree, published: dict[str, Any], cache: Path) -> None:
    """In the right module, behind what people wrote; it answers in its own envelope, and check insists on it."""
    before = tree.files()
    published["paths"] |= {"/api/calls/recent": HISTORY, "/api/leads": CONTACTS}
    new = tree.root.parent / "new.yaml"
    new.write_text(json.dumps(published))
    run = tree.run("manage.py", "contract", "update", str(new), "--json")
    after = tree.files()

    assert (run.code, run.err) == (0, "")
    assert run.report["created"] == ["calls.get_calls_recent", "leads.create_contact"]
    assert severities(run.report) == {"additive"}
    assert after["handlers/calls.py"].startswith(before["handlers/calls.py"])
    assert hand_written(before).keys() | {"handlers/leads.py"} == hand_written(after).keys()
    assert tree.types(cache) == []
    assert tree.run("-m", "ruff", "check", "handlers").out == "All checks passed!\n"
    assert tree.run("-m", "ruff", "format", "--check", "handlers").code == 0

    answer = tree.request("GET", "/api/calls/recent?limit=5", "JWT")

    assert answer.out == '500 {"success":false,"error":"This operation is not available yet"}'


def test_stub_must_be_written_or_allowed(tree: Tree, published: dict[str, Any]) -> None:
    """The check fails while a stub is not in the explicit list."""
    published["paths"] |= {"/api/calls/recent": HISTORY}
    tree.update(published)
    refused = tree.contract("check")
    with (tree.root / "openapi" / "stubs.txt").open("a") as allowing:
        allowing.write("calls.get_calls_recent  # next week\n")
    allowed = tree.contract("check")

    assert refused.code == 1
    assert "calls.get_calls_recent is still a stub" in refused.out
    assert allowed.code == 0


def test_updating_twice_is_updating_once(tree: Tree, published: dict[str, Any]) -> None:
    """A second run finds nothing to do and adds no second stub."""
    published["paths"] |= {"/api/calls/recent": HISTORY, "/api/leads": CONTACTS}
    tree.update(published)
    before = tree.files()
    report = tree.update(published).report

    assert (report["written"], report["created"], report["changes"]) == ([], [], [])
    assert tree.files() == before


def test_removed_operation_leaves_an_orphan(tree: Tree, published: dict[str, Any]) -> None:
    """The handler is left alone and reported with file and line; the check fails, the server says why it stops."""
    before = tree.files()
    del published["paths"][TRANSFER]
    without_in_overlay(tree, f",\n      '{TRANSFER}'")
    without_action(tree, f"$.paths['{TRANSFER}'].post")
    run = tree.update(published)
    line = next(
        number
        for number, text in enumerate(before["handlers/webhook.py"].decode().splitlines(), 1)
        if "def post_webhook_elevenlabs_tools_transfer" in text
    )
    checked, started = tree.contract("check"), tree.request("GET", "/", "")

    assert run.code == 0
    assert run.report["orphans"] == [
        {"handler": "webhook.post_webhook_elevenlabs_tools_transfer", "file": "handlers/webhook.py", "line": line}
    ]
    assert severities(run.report) == {"breaking"}
    assert tree.files()["handlers/webhook.py"] == before["handlers/webhook.py"]
    assert checked.code == 1
    assert f"handlers/webhook.py:{line}" in checked.out
    assert started.code == 1
    assert "The handlers do not match the contract" in started.err


def test_renamed_operation_keeps_its_handler(tree: Tree, published: dict[str, Any], cache: Path) -> None:
    """It is found by METHOD and path, reported, and serves on; nothing has to change."""
    before = hand_written(tree.files())
    published["paths"][INGEST]["post"]["operationId"] = "ingest_call"
    run = tree.update(published)

    assert run.report["renames"] == [
        {"operation": f"POST {INGEST}", "operation_id": "ingest_call", "handler": "calls.post_calls_ingest"}
    ]
    assert (run.report["created"], run.report["orphans"]) == ([], [])
    assert hand_written(tree.files()) == before
    assert tree.contract("check").code == 0
    assert tree.types(cache) == []
    assert tree.request("POST", INGEST, "API-key", "{}").out.startswith("400 ")


def test_handler_may_follow_the_new_name(tree: Tree, published: dict[str, Any]) -> None:
    """When the function is renamed too, it is found by its name."""
    published["paths"]["/api/calls/recent"] = copy.deepcopy(HISTORY)
    tree.update(published)
    published["paths"]["/api/calls/recent"]["get"]["operationId"] = "list_calls"
    calls = tree.root / "handlers" / "calls.py"
    renamed = calls.read_text().replace("async def get_calls_recent", "async def list_calls")
    calls.write_text(renamed.replace("GetCallsRecentAnswer", "ListCallsAnswer"))
    report = tree.update(published).report

    assert (report["renames"], report["orphans"], report["created"]) == ([], [], [])
    assert "calls.list_calls" in report["stubs"]


def test_changed_schema_is_a_type_error_at_the_exact_use(tree: Tree, published: dict[str, Any], cache: Path) -> None:
    """A property that goes away is missed where it was used."""
    del published["components"]["schemas"]["CallsIngestExternalCallRequest"]["properties"]["callerName"]
    run = tree.update(published)
    uses = [
        f"handlers/calls.py:{number}:"
        for number, text in enumerate((tree.root / "handlers/calls.py").read_text().splitlines(), 1)
        if ".callerName" in text
    ]
    complaints = tree.types(cache)

    assert "property removed" in {change["what"] for change in run.report["changes"]}
    assert severities(run.report) == {"breaking"}
    assert uses
    assert [use for use in uses if not any(line.startswith(use) for line in complaints)] == []
    assert all('"callerName"' in line for line in complaints)


def test_removed_status_is_a_type_error_and_stops_the_server(
    tree: Tree, published: dict[str, Any], cache: Path
) -> None:
    """An answer that is no longer declared cannot be given."""
    del published["paths"][INGEST]["post"]["responses"]["200"]
    run = tree.update(published)
    complaints = tree.types(cache)
    started = tree.request("POST", INGEST, "API-key", "{}")

    assert [change["what"] for change in run.report["changes"] if change["severity"] == "breaking"] == [
        "status removed"
    ]
    assert any(line.startswith("handlers/calls.py:") and "PostCallsIngest200" in line for line in complaints)
    assert started.code == 1
    assert "PostCallsIngest200" in started.err


def test_added_status_is_there_to_be_answered(tree: Tree, published: dict[str, Any], cache: Path) -> None:
    """And nothing else changes."""
    published["paths"][INGEST]["post"]["responses"]["202"] = {"description": "Later"}
    report = tree.update(published).report

    assert severities(report) == {"additive"}
    assert "class PostCallsIngest202(Response[None])" in (tree.root / "openapi/operations.py").read_text()
    assert tree.types(cache) == []


def line_of(tree: Tree, module: str, function: str) -> int:
    lines = (tree.root / "handlers" / f"{module}.py").read_text().splitlines()
    return next(number for number, text in enumerate(lines, 1) if f"def {function}(" in text)


def test_new_optional_parameter_is_asked_of_the_handler(tree: Tree, published: dict[str, Any]) -> None:
    """Every call would be a 500: update and check say what the handler must take, and the server does not start."""
    locale = {"name": "locale", "in": "query", "schema": {"type": "string"}}
    published["paths"][TRANSFER]["post"]["parameters"] = [locale]
    run, checked = tree.update(published, "--"), tree.contract("check")
    started = tree.request("POST", TRANSFER, "tool-secret", "{}")
    line = line_of(tree, "webhook", "post_webhook_elevenlabs_tools_transfer")

    assert f"handlers/webhook.py:{line} must take locale: str | None" in run.out
    assert checked.code == 1
    assert f"handlers/webhook.py:{line} must take locale: str | None" in checked.out
    assert started.code == 1
    assert f"webhook.py:{line} webhook.post_webhook_elevenlabs_tools_transfer must take locale" in started.err

    webhook = tree.root / "handlers" / "webhook.py"
    lines = webhook.read_text().splitlines(keepends=True)
    opening = next(at for at, text in enumerate(lines) if at >= line - 1 and "body:" in text)
    lines[opening] = lines[opening].replace("body:", "locale: str | None = None, body:", 1)
    webhook.write_text("".join(lines))

    assert tree.contract("check").code == 0
    assert tree.request("POST", TRANSFER, "nobody", "{}").out.startswith("401 ")


def test_open_stub_is_closed_and_named(tree: Tree, published: dict[str, Any]) -> None:
    """An operation without security lets nobody in, written or not, until the overlay says why it is open."""
    history = copy.deepcopy(HISTORY)
    del history["get"]["security"]
    published["paths"] |= {"/api/calls/recent": history}
    report = tree.update(published).report
    closed = tree.request("GET", "/api/calls/recent", "JWT")
    history["get"]["x-public"] = "Everybody may look."
    tree.update(published)
    opened = tree.request("GET", "/api/calls/recent", "")

    assert report["open"] == ["GET /api/calls/recent"]
    assert closed.out.startswith("401 ")
    assert opened.out.startswith("500 ")


def test_handler_that_mentions_a_stub_is_not_one(tree: Tree, published: dict[str, Any]) -> None:
    """What raises `NotWritten` in one branch is written; the server says so, and keeps what is open closed."""
    history = copy.deepcopy(HISTORY)
    del history["get"]["security"]
    published["paths"] |= {"/api/calls/recent": history}
    tree.update(published)
    calls = tree.root / "handlers" / "calls.py"
    stub = "    raise exchange.NotWritten\n"
    assert calls.read_text().endswith(stub)
    calls.write_text(
        calls.read_text()[: -len(stub)] + "    if not calls_are_kept():\n    " + stub + "    return None\n"
    )
    report = tree.contract("generate", "--json").report

    assert report["stubs"] == []
    assert "is_stub" not in (tree.root / "openapi" / "operations.py").read_text()
    assert tree.request("GET", "/api/calls/recent", "").out.startswith("401 ")


def test_lost_security_is_breaking_and_opens_nothing(tree: Tree, published: dict[str, Any]) -> None:
    """An operation whose token requirement went away is closed to everybody, and the check fails."""
    published["paths"][CONFIG]["post"].pop("security")
    report = tree.update(published).report
    checked = tree.contract("check")

    assert [change for change in report["changes"] if change["severity"] == "breaking"] == [
        {
            "severity": "breaking",
            "place": f"POST {CONFIG}",
            "what": "security changed",
            "particulars": "bearerAuth → open",
        }
    ]
    assert report["open"] == [f"POST {CONFIG}"]
    assert checked.code == 1
    assert "x-public" in checked.out
    assert [tree.request("POST", CONFIG, token, "{}").out[:3] for token in ("JWT", "nobody")] == ["401", "401"]


def test_changed_texts_are_only_texts(tree: Tree, published: dict[str, Any], cache: Path) -> None:
    """New words ask nothing of anybody."""
    before = hand_written(tree.files())
    published["paths"][INGEST]["post"]["description"] = "Other words."
    published["components"]["schemas"]["CallsErrorResponse"]["description"] = "Other words."
    published["info"]["title"] = "Other words"
    report = tree.update(published).report

    assert severities(report) == {"text"}
    assert hand_written(tree.files()) == before
    assert tree.contract("check").code == 0
    assert tree.types(cache) == []


# What is refused


def test_overlay_that_no_longer_fits_is_an_error_with_its_reason(tree: Tree, published: dict[str, Any]) -> None:
    """The action is named, and nothing on disk changes."""
    before = tree.files()
    del published["components"]["schemas"]["CallsIngestExternalCallRequest"]["properties"]["duration"]
    del published["components"]["schemas"]["ElevenLabsCreateNoteResponse"]
    success = published["paths"]["/api/webhook/elevenlabs/tools/create-note"]["post"]["responses"]["200"]
    del success["content"]
    run, words = tree.update(published, "--json"), tree.update(published, "--")

    assert run.code == words.code == 1
    assert "The page says the duration is non-negative." in run.err
    assert "properties.duration" in run.report["error"]
    assert len(run.report["broken"]) >= 2
    assert any("ElevenLabsCreateNoteResponse" in broken for broken in run.report["broken"])
    assert "property removed" in {change["what"] for change in run.report["changes"]}
    assert "property removed (duration)" in words.out
    assert tree.files() == before


@pytest.mark.parametrize("names", [("größe", "gr__e"), ("a-b", "a_b")])
def test_parameters_that_are_one_name_in_python_change_nothing(
    tree: Tree, published: dict[str, Any], names: tuple[str, str]
) -> None:
    """Code that cannot be imported is never written."""
    before = tree.files()
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]
    published["paths"]["/api/calls/recent"] = {"get": HISTORY["get"] | {"parameters": parameters}}
    run = tree.update(published, "--json")

    if run.code:
        assert "rename" in run.report["error"]
        assert tree.files() == before
    else:
        assert tree.request("GET", "/api/calls/recent", "JWT").out.startswith("500 ")


@pytest.mark.parametrize("operation_id", ["binding", "request", "final", "models", "class_var"])
def test_operation_id_that_is_a_word_of_the_generator_leaves_a_tree_that_starts(
    tree: Tree, published: dict[str, Any], operation_id: str
) -> None:
    """Taken and served, or refused with every file as it was."""
    before = tree.files()
    published["paths"]["/api/calls/recent"] = {"get": HISTORY["get"] | {"operationId": operation_id}}
    run = tree.update(published, "--json")

    if run.code:
        assert operation_id in run.report["error"]
        assert tree.files() == before
    else:
        assert tree.request("GET", "/api/calls/recent", "JWT").out.startswith("500 ")


def test_preview_writes_nothing(tree: Tree, published: dict[str, Any]) -> None:
    """It reports what an update would."""
    before = tree.files()
    published["paths"] |= {"/api/calls/recent": HISTORY}
    preview, words = tree.update(published, "--json", "--dry-run").report, tree.update(published, "--dry-run")

    assert "Would write:" in words.out
    assert tree.files() == before
    assert tree.update(published).report == preview
    assert tree.files() != before


def test_report_off_a_terminal_cuts_nothing(tree: Tree, published: dict[str, Any]) -> None:
    """Each change is one line with its whole path, however narrow the terminal was said to be."""
    path = "/api/calls/" + "/".join(f"a-long-word-{number}" for number in range(20))
    published["paths"] |= {path: HISTORY}
    new = tree.root.parent / "new.yaml"
    new.write_text(json.dumps(published))
    run = tree.contract("update", str(new), COLUMNS="40")

    assert any(path in line and "operation added" in line for line in run.out.splitlines())


def test_update_that_was_killed_is_finished_by_the_next_run(tree: Tree, published: dict[str, Any]) -> None:
    """The check says so and leaves it alone; generating finishes it."""
    published["paths"] |= {"/api/calls/recent": HISTORY}
    new = tree.root.parent / "new.yaml"
    new.write_text(json.dumps(published))
    killed = tree.run("-c", _KILLED_AT_THE_SECOND_FILE, str(new))
    checked = tree.contract("check")
    finished = tree.contract("generate", "--json")

    assert killed.code == -signal.SIGKILL
    assert (checked.code, "cut short" in checked.err) == (1, True)
    assert finished.code == 0
    assert not (tree.root / "openapi" / ".update").exists()
    assert tree.update(published).report["written"] == []


_KILLED_AT_THE_SECOND_FILE = """
import os, signal, sys
from pathlib import Path
from openapi.generating import generate

renamed = []
def step(event, given):
    if event == "os.rename" and str(given[0]).endswith(".new"):
        renamed.append(given)
        if len(renamed) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(step)
generate.update(Path.cwd(), Path(sys.argv[1]).read_bytes())
"""


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"openapi: [", "new.yaml is not YAML"),
        (b"\x00\x01", "new.yaml is not YAML"),
        (b"hello: world", "OpenAPI 3.0"),
        (b"{openapi: 3.0.3, info: {}, paths: {}}", "info"),
        ("dangling", "leads nowhere"),
        ("duplicate", "is already that of"),
    ],
)
def test_unusable_document_changes_nothing(
    tree: Tree, published: dict[str, Any], broken: bytes | str, words: str
) -> None:
    """A clear error with its place, a non-zero exit, and every file as it was."""
    before = tree.files()
    if broken == "dangling":
        published["components"]["schemas"]["CallsErrorResponse"]["properties"]["x"] = {"$ref": "#/components/schemas/X"}
    elif broken == "duplicate":
        published["paths"][INGEST]["post"]["operationId"] = "post_calls_voice_ai_config"
    run = tree.update(broken if isinstance(broken, bytes) else published, "--json")

    assert run.code == 1
    assert words in run.report["error"]
    assert words in run.err
    assert "Traceback" not in run.err
    assert tree.files() == before


def test_missing_document_is_one_sentence(tree: Tree) -> None:
    """A path that leads nowhere is said so."""
    run = tree.contract("update", "nowhere.yaml")

    assert run.code == 1
    assert "nowhere.yaml cannot be read" in run.err


def test_report_can_be_read_on_a_terminal(tree: Tree, published: dict[str, Any]) -> None:
    """Without --json the same is said in words."""
    published["paths"] |= {"/api/calls/recent": HISTORY}
    run = tree.update(published, "--")

    assert "operation added (get_calls_recent)" in run.out
    assert "handlers/calls.py" in run.out
    assert "calls.get_calls_recent is still a stub" in run.out


def test_diff_tells_what_the_overlay_does(tree: Tree) -> None:
    """Every action with its reason, every difference with its weight."""
    words = " ".join(re.sub(r"[│┃┏┓┗┛━─├┤┼]", " ", tree.contract("diff").out).split())
    report = tree.contract("diff", "--json").report

    assert "The page says the duration is non-negative." in words
    assert "security changed (open → bearerAuth)" in words
    assert {change["what"] for change in report["changes"]} >= {"status added", "operation added", "security changed"}
    assert len(report["actions"]) == len(document.load().actions)


# The whole of Tether's API


def test_hundreds_of_operations_are_taken_and_served(tree: Tree, cache: Path) -> None:
    """Three hundred operations more: generated, started, and clean to the type checker and the linter."""
    new = json.dumps(synthetic()).encode()
    report = tree.update(new).report
    again = tree.update(new).report
    answer = tree.request("PUT", "/api/res-07/x", "JWT", '{"kind":"sms","number":"5"}')
    refused = tree.request("PUT", "/api/res-07/x", "JWT", '{"kind":"email","number":"5"}')

    assert len(report["created"]) == OPERATIONS
    assert len({name.partition(".")[0] for name in report["created"]}) == RESOURCES
    assert again["written"] == []
    assert answer.out.startswith('500 {"success":false,"error":"This operation is not available yet"')
    assert refused.out.startswith('400 {"success":false,"error":{"code":"VALIDATION_ERROR","message":"Missing required')
    assert tree.types(cache) == []
    assert tree.run("-m", "ruff", "check", "handlers").out == "All checks passed!\n"
    assert tree.run("-m", "ruff", "format", "--check", "handlers").code == 0
