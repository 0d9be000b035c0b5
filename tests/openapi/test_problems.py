import json
from typing import Any

import pytest

from domain import errors
from openapi.envelopes import Envelopes
from openapi.schemas import Schemas
from openapi.serving.problems import Problems
from tests.support.contract import CONTRACT
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
    envelopes = Envelopes(contract.served, Schemas(contract.served))
    complaints = envelopes.complaints(contract.operations)
    if complaints:
        raise errors.ConfigurationError("; ".join(complaints))
    return Problems(contract.operations[0], envelopes.of(contract.operations[0]))


def obj(*required: str, says: Any = None, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema | ({"required": list(required)} if required else {}) | ({"x-error-field": says} if says else {})


ERROR = {"error": "message"}


SAID = "Missing required field: a"
BAD = errors.InvalidRequest(SAID, [{"field": "a", "code": "required", "message": "is required"}])


# The envelopes Tether publishes, and others an API may have.
@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (
            obj(
                "success",
                "error",
                says={"success": False, "error": "message"},
                success={"type": "boolean", "enum": [False]},
                error=TEXT,
            ),
            {"success": False, "error": SAID},
        ),
        (obj(says=ERROR, error=TEXT, message=TEXT, code=TEXT), {"error": SAID}),
        (
            obj(
                says={"error.code": "code", "error.message": "message"},
                error=obj("code", "message", code=TEXT, message=TEXT),
            ),
            {"error": {"code": "VALIDATION_ERROR", "message": SAID}},
        ),
        (
            obj(
                says=[
                    {"success": False, "error": "message"},
                    {
                        "success": False,
                        "error.code": "code",
                        "error.message": "message",
                        "error.details": "details",
                    },
                ],
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
        (
            obj(says={"success": False, "message": "message"}, success={"type": "boolean"}, message=TEXT),
            {"success": False, "message": SAID},
        ),
        (
            obj(
                "status",
                "title",
                says={"status": "status", "title": "message"},
                type=TEXT,
                title=TEXT,
                status={"type": "integer"},
                detail=TEXT,
            ),
            {"title": SAID, "status": 400},
        ),
        ({"allOf": [obj("error", error=TEXT), obj(code=TEXT)], "x-error-field": ERROR}, {"error": SAID}),
        (
            obj("error", "code", says={"error": "message", "code": "code"}, error=TEXT, code=TEXT),
            {"error": SAID, "code": "VALIDATION_ERROR"},
        ),
        (
            obj(
                "errors",
                says={"title": "message", "errors": "details"},
                title=TEXT,
                errors={"type": "array", "items": {"type": "object"}},
            ),
            {"title": SAID, "errors": [BAD.details[0]]},
        ),
        (
            {"oneOf": [obj("error", error=TEXT), obj("other", other=TEXT)], "x-error-field": {"other": "message"}},
            {"other": SAID},
        ),
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


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (obj("error", error=TEXT), "has no `x-error-field`"),
        (obj(says={"error": "sentence"}, error=TEXT), "has no `x-error-field`"),
        (obj(says={"code": "code"}, code=TEXT), "has an `x-error-field` without a place for the message"),
        (
            obj(says={"errors": "message"}, error=TEXT),
            "has an `x-error-field` that names what it does not have",
        ),
        (obj("when", says=ERROR, error=TEXT, when=TEXT), "requires more than its `x-error-field` says"),
        (obj(says=ERROR, error={"type": "integer"}), "requires more than its `x-error-field` says, or other values"),
        (
            obj(says=[ERROR, {"error": "message", "list": "details"}], error=TEXT, list=TEXT),
            "requires more than its `x-error-field` says, or other values",
        ),
    ],
)
def test_envelope_nobody_can_fill_stops_the_server(schema: dict[str, Any], complaint: str) -> None:
    """It is found at start, and not when the first error comes."""
    with pytest.raises(errors.ConfigurationError, match=rf"The schema of POST /api/things 400 {complaint}"):
        problems_of(s400=schema)


def test_bad_request_is_never_answered_with_a_fact() -> None:
    """An answer 200 without a place for words is refused, not filled with whatever its schema accepts."""
    is_open = obj("is_open", is_open={"type": "boolean"})
    with pytest.raises(errors.ConfigurationError, match=r"The schema of POST /api/things 200 has no `x-error-field`"):
        problems_of(200, s200=is_open)
    with pytest.raises(errors.ConfigurationError, match=r"requires more than its `x-error-field` says"):
        problems_of(200, s200=obj("is_open", says=ERROR, is_open={"type": "boolean"}, error=TEXT))


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
    problems = problems_of(**{f"s{key}": obj("error", says=ERROR, error=TEXT) for key in declared})

    assert problems.answer(error).status == status


@pytest.mark.parametrize(
    ("error", "status", "seconds"), [(errors.RateLimited("x", 7), 400, "7"), (errors.Overloaded(), 500, "5")]
)
def test_when_to_come_back_is_told_whatever_status_says_so(error: Exception, status: int, seconds: str) -> None:
    """Also where the document has no status of its own for it."""
    answer = problems_of(s400=obj(says=ERROR, error=TEXT), s500=obj(says=ERROR, error=TEXT)).answer(error)

    assert (answer.status, answer.headers["retry-after"]) == (status, seconds)


def test_range_of_statuses_comes_before_the_default() -> None:
    """A caller's mistake is answered in the envelope declared for mistakes, a fault of ours in the other."""
    problems = problems_of(
        sdefault=obj("fault", says={"fault": "message"}, fault=TEXT), s4XX=obj("error", says=ERROR, error=TEXT)
    )

    assert json.loads(problems.answer(BAD).body) == {"error": SAID}
    assert json.loads(problems.answer(RuntimeError()).body) == {"fault": "Internal server error"}


def test_speakable_answer_needs_the_operations_leave() -> None:
    """Only an operation that says so answers bad requests with 200."""
    words = {"success": False, "error": "message"}
    result = obj("success", says=words, success={"type": "boolean"}, error=TEXT)
    tool, other = problems_of(200, s200=result), problems_of(s200=result, s400=obj(says=ERROR, error=TEXT))
    said = errors.Speakable("I could not find that.")

    assert json.loads(tool.answer(said).body) == {"success": False, "error": "I could not find that."}
    assert tool.answer(said).status == 200
    assert (other.answer(said).status, json.loads(other.answer(said).body)) == (
        400,
        {"error": "I could not find that."},
    )


def test_every_status_of_every_operation_can_be_answered() -> None:
    """The whole of the served document: each operation, each error, in a body its own schema accepts."""
    schemas = Schemas(CONTRACT.served)
    envelopes = Envelopes(CONTRACT.served, schemas)
    raised: list[Exception] = [
        BAD, errors.Unauthenticated(), errors.NotFound(), errors.PayloadTooLarge(1), errors.UnsupportedMediaType("x"),
        errors.RateLimited("x", 1), errors.Overloaded(), errors.StorageUnavailable(), RuntimeError("x"),
    ]  # fmt: skip

    for operation in CONTRACT.operations:
        problems = Problems(operation, envelopes.of(operation))
        for error in raised:
            answer = problems.answer(error)
            response = operation.response(answer.status)
            content = (response or {}).get("content", {}).get("application/json")
            if content is not None:
                assert schemas.compile(content["schema"], "response").is_valid(json.loads(answer.body)), operation.key
