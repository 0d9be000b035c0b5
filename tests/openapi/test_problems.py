import json
from typing import Any

import pytest

from domain import errors
from openapi import document
from openapi.schemas import Schemas
from openapi.serving.problems import Problems
from tests.support.contracts import contract_of

TEXT = {"type": "string"}


def problems_of(invalid: int | None = None, /, **responses: Any) -> Problems:
    """Return the problems of an operation that declares `s400={schema}` and so on."""
    declared = {
        key.removeprefix("s"): {"description": "x", "content": {"application/json": {"schema": schema}}}
        if schema is not None
        else {"description": "x"}
        for key, schema in responses.items()
    }
    operation: dict[str, Any] = {"responses": declared} | ({} if invalid is None else {"x-invalid-request": invalid})
    contract = contract_of({"/api/things": {"post": operation}})
    return Problems(contract.served, contract.operations[0], Schemas(contract.served))


def obj(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


SAID = "Missing required field: a"
BAD = errors.InvalidRequest(SAID, [{"field": "a", "code": "required", "message": "is required"}])


# The envelopes Tether publishes, and others an API may have.
@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (
            obj("success", "error", success={"type": "boolean", "enum": [False]}, error=TEXT),
            {"success": False, "error": SAID},
        ),
        (obj(error=TEXT, message=TEXT, code=TEXT), {"error": SAID}),
        (
            obj(error=obj("code", "message", code=TEXT, message=TEXT)),
            {"error": {"code": "VALIDATION_ERROR", "message": SAID}},
        ),
        (
            obj(
                success={"type": "boolean", "enum": [False]},
                error={"oneOf": [TEXT, obj(code=TEXT, message=TEXT, details={"type": "array", "items": {}})]},
            ),
            {
                "success": False,
                "error": {
                    "code": "VALIDATION_ERROR",
                    "message": SAID,
                    "details": [{"field": "a", "code": "required", "message": "is required"}],
                },
            },
        ),
        (obj(success={"type": "boolean"}, message=TEXT), {"success": False, "message": SAID}),
        (
            obj("status", "title", type=TEXT, title=TEXT, status={"type": "integer"}, detail=TEXT),
            {"title": SAID, "status": 400},
        ),
        ({"allOf": [obj("error", error=TEXT), obj(code=TEXT)]}, {"error": SAID}),
        (
            obj("error", "code", error=TEXT, code=TEXT),
            {"error": SAID, "code": "VALIDATION_ERROR"},
        ),
        (
            obj("error", "kind", error=TEXT, kind={"type": "string", "enum": ["bad"]}),
            {"error": SAID, "kind": "bad"},
        ),
        (obj("errors", errors={"type": "array", "items": {"type": "object"}}), {"errors": [BAD.details[0]]}),
        ({"oneOf": [obj("error", error=TEXT), obj("other", other=TEXT)]}, {"error": SAID}),
    ],
)
def test_error_fills_the_envelope_of_its_status(schema: dict[str, Any], body: Any) -> None:
    """Whatever the shape: a flag, a sentence, an object, a list."""
    answer = problems_of(s400=schema).answer(BAD)

    assert (answer.status, json.loads(answer.body)) == (400, body)


def test_answer_without_content_has_no_body() -> None:
    """A status that is declared without a body is answered without one."""
    answer = problems_of(s400=None).answer(BAD)

    assert (answer.status, answer.body, answer.media_type) == (400, b"", None)


def test_envelope_nobody_can_fill_stops_the_server() -> None:
    """It is found at start, and not when the first error comes."""
    with pytest.raises(errors.ConfigurationError, match=r"POST /api/things declares an answer 400"):
        problems_of(s400=obj("when", when={"type": "string", "format": "date-time"}))


@pytest.mark.parametrize(
    ("declared", "error", "status"),
    [
        (["400", "500"], errors.NotFound(), 404),
        (["400", "500"], errors.PayloadTooLarge(1), 400),
        (["500"], errors.PayloadTooLarge(1), 413),
        (["400", "500"], errors.RateLimited("x", 1), 400),
        (["400", "500"], errors.Overloaded(), 500),
        (["400"], errors.Overloaded(), 503),
        (["503"], errors.Overloaded(), 503),
        (["4XX"], errors.UnsupportedMediaType("x"), 415),
        (["default"], errors.Overloaded(), 503),
        (["200"], RuntimeError(), 500),
    ],
)
def test_undeclared_status_becomes_the_nearest_declared(declared: list[str], error: Exception, status: int) -> None:
    """And a caller's mistake never becomes a fault of ours."""
    problems = problems_of(**{f"s{key}": obj("error", error=TEXT) for key in declared})

    assert problems.answer(error).status == status


@pytest.mark.parametrize(
    ("error", "status", "seconds"), [(errors.RateLimited("x", 7), 400, "7"), (errors.Overloaded(), 500, "5")]
)
def test_when_to_come_back_is_told_whatever_status_says_so(error: Exception, status: int, seconds: str) -> None:
    """Also where the document has no status of its own for it."""
    answer = problems_of(s400=obj("error", error=TEXT), s500=obj("error", error=TEXT)).answer(error)

    assert (answer.status, answer.headers["retry-after"]) == (status, seconds)


def test_range_of_statuses_comes_before_the_default() -> None:
    """A caller's mistake is answered in the envelope declared for mistakes, a fault of ours in the other."""
    problems = problems_of(sdefault=obj("fault", fault=TEXT), s4XX=obj("error", error=TEXT))

    assert json.loads(problems.answer(BAD).body) == {"error": SAID}
    assert json.loads(problems.answer(RuntimeError()).body) == {"fault": "Internal server error"}


def test_speakable_answer_needs_the_operations_leave() -> None:
    """Only an operation that says so answers bad requests with 200."""
    result = obj("success", success={"type": "boolean"}, error=TEXT)
    tool, other = problems_of(200, s200=result), problems_of(s200=result, s400=obj(error=TEXT))
    said = errors.Speakable("I could not find that.")

    assert json.loads(tool.answer(said).body) == {"success": False, "error": "I could not find that."}
    assert tool.answer(said).status == 200
    assert (other.answer(said).status, json.loads(other.answer(said).body)) == (
        400,
        {"error": "I could not find that."},
    )


def test_every_status_of_every_operation_can_be_answered() -> None:
    """The whole of the served document: each operation, each error, in a body its own schema accepts."""
    contract = document.load()
    schemas = Schemas(contract.served)
    raised: list[Exception] = [
        BAD, errors.Unauthenticated(), errors.NotFound(), errors.PayloadTooLarge(1), errors.UnsupportedMediaType("x"),
        errors.RateLimited("x", 1), errors.Overloaded(), errors.StorageUnavailable(), RuntimeError("x"),
    ]  # fmt: skip

    for operation in contract.operations:
        problems = Problems(contract.served, operation, schemas)
        for error in raised:
            answer = problems.answer(error)
            response = operation.response(answer.status)
            content = (response or {}).get("content", {}).get("application/json")
            if content is not None:
                assert schemas.compile(content["schema"], "response").is_valid(json.loads(answer.body)), operation.key
