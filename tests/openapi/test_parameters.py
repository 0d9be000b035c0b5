from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from openapi.exchange import Handler, Request, Response
from tests.support.contracts import Answered, Lab, bindings_of, build, contract_of

NUL = "%00"


def parameter(name: str, schema: dict[str, Any], place: str = "query", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema} | more


PARAMETERS = [
    parameter("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 50}),
    parameter("ratio", {"type": "number"}),
    parameter("exact", {"type": "boolean"}),
    parameter("status", {"type": "string", "enum": ["open", "closed"]}),
    parameter("tags", {"type": "array", "items": {"type": "integer"}}),
    parameter("ids", {"type": "array", "items": {"type": "string"}, "maxItems": 3}, explode=False),
    parameter("piped", {"type": "array", "items": {"type": "string"}}, style="pipeDelimited", explode=False),
    parameter(
        "filter", {"type": "object", "properties": {"age": {"type": "integer"}}}, style="deepObject", explode=True
    ),
    parameter("from", {"type": "string", "format": "date-time"}),
    parameter("X-Trace", {"type": "string", "maxLength": 5}, "header"),
    parameter("session", {"type": "string"}, "cookie"),
    {"name": "where", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}},
    parameter("spaced", {"type": "array", "items": {"type": "string"}}, style="spaceDelimited", explode=False),
    parameter("paired", {"type": "object", "properties": {"age": {"type": "integer"}}}, explode=False),
    parameter("spread", {"type": "object", "properties": {"left": {"type": "integer"}, "top": {"type": "integer"}}}),
]
KEYWORDS = ["limit", "ratio", "exact", "status", "tags", "ids", "piped", "filter_", "from_", "x_trace"]
KEYWORDS += ["session", "where", "spaced", "paired", "spread"]
PATHS: dict[str, Any] = {
    "/api/things": {
        "get": {
            "operationId": "get_things",
            "parameters": PARAMETERS,
            "responses": {"200": {"description": "ok", "content": {"application/json": {"schema": {}}}}},
        }
    },
    "/api/things/{thingId}": {
        "parameters": [parameter("thingId", {"type": "integer"}, "path", required=True)],
        "get": {
            "operationId": "get_thing",
            "parameters": [parameter("view", {"type": "string"}, required=True)],
            "responses": {"200": {"description": "ok"}},
        },
    },
    "/api/things/newest": {"get": {"operationId": "get_newest", "responses": {"200": {"description": "ok"}}}},
    "/api/things/{thingId}/parts/{partId}": {
        "get": {
            "operationId": "get_part",
            "parameters": [
                parameter("thingId", {"type": "string"}, "path", required=True),
                parameter("partId", {"type": "string", "format": "uuid"}, "path", required=True),
            ],
            "responses": {"200": {"description": "ok"}},
        }
    },
    "/api/things/newest/parts/{partId}": {
        "get": {
            "operationId": "get_newest_part",
            "parameters": [parameter("partId", {"type": "string"}, "path", required=True)],
            "responses": {"200": {"description": "ok"}},
        }
    },
}


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def http(lab: Lab) -> httpx.AsyncClient:
    async def handler(request: Request[Lab], **arguments: Any) -> Response[Any]:
        request.relay.given.append({"operation": request.operation, **arguments})
        return Answered({})

    contract = contract_of({path: item | {"get": item["get"] | {"x-public": "a test"}} for path, item in PATHS.items()})
    handlers: dict[str, Handler] = {operation.key: handler for operation in contract.operations}
    app: Any = build(contract, lab, handlers, bindings_of(contract))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://x")


async def given(http: httpx.AsyncClient, lab: Lab, target: str, **headers: str) -> dict[str, Any]:
    response = await http.get(target, headers=headers)
    assert response.status_code == 200, response.text
    return {name: value for name, value in lab.given[-1].items() if value is not None}


async def refused(http: httpx.AsyncClient, lab: Lab, target: str, **headers: str) -> str:
    response = await http.get(target, headers=headers)
    assert response.status_code == 400
    assert lab.given == []
    return str(response.json()["error"])


async def test_absent_parameters_are_their_default_or_none(http: httpx.AsyncClient, lab: Lab) -> None:
    """A handler gets every declared parameter, always."""
    await http.get("/api/things")

    assert lab.given == [
        {"operation": "get_things", "limit": 50} | {name: None for name in KEYWORDS if name != "limit"}
    ]


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("limit=7", "limit", 7),
        ("ratio=1.5e1", "ratio", 15.0),
        ("ratio=-3", "ratio", -3.0),
        ("exact=true", "exact", True),
        ("exact=false", "exact", False),
        ("status=open", "status", "open"),
        ("status=open&status=closed", "status", "closed"),
        ("tags=1&tags=2", "tags", [1, 2]),
        ("ids=a,b", "ids", ["a", "b"]),
        ("piped=a%7Cb", "piped", ["a", "b"]),
        ("filter[age]=5&filter[name]=x", "filter_", {"age": 5, "name": "x"}),
        ("from=2026-05-15T09:10:00Z", "from_", "2026-05-15T09:10:00Z"),
        ("where=%7B%22a%22%3A1%7D", "where", {"a": 1}),
        ("spaced=a%20b", "spaced", ["a", "b"]),
        ("paired=age,5,name,x", "paired", {"age": 5, "name": "x"}),
        ("left=1&top=2&other=3", "spread", {"left": 1, "top": 2}),
        ("unknown=x&limit=2", "limit", 2),
    ],
)
async def test_query_is_read_as_the_document_says(
    http: httpx.AsyncClient, lab: Lab, query: str, name: str, value: Any
) -> None:
    """Types, repetition, separators and deep objects; unknown names are ignored."""
    assert (await given(http, lab, f"/api/things?{query}"))[name] == value


async def test_headers_and_cookies_are_parameters_too(http: httpx.AsyncClient, lab: Lab) -> None:
    """Header names have no case."""
    found = await given(http, lab, "/api/things", **{"x-trace": "abc", "Cookie": "a=b; session=s%20t"})

    assert (found["x_trace"], found["session"]) == ("abc", "s t")


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("/api/things?limit=0", "Invalid query parameter: limit must be at least 1"),
        ("/api/things?limit=x", "Invalid query parameter: limit must be an integer"),
        ("/api/things?limit=1.0", "Invalid query parameter: limit must be an integer"),
        ("/api/things?limit=", "Invalid query parameter: limit must be an integer"),
        (f"/api/things?limit={'9' * 5000}", "Invalid query parameter: limit must be an integer"),
        ("/api/things?ratio=nan", "Invalid query parameter: ratio must be a number"),
        ("/api/things?ratio=1e999", "Invalid query parameter: ratio must be a number"),
        ("/api/things?ratio=1_0", "Invalid query parameter: ratio must be a number"),
        ("/api/things?exact=yes", "Invalid query parameter: exact must be a boolean"),
        ("/api/things?status=ajar", "Invalid query parameter: status must be one of: open, closed"),
        ("/api/things?tags=1&tags=x", "Invalid query parameter: tags[1] must be an integer"),
        ("/api/things?ids=a,b,c,d", "Invalid query parameter: ids must have at most 3 items"),
        ("/api/things?filter[age]=old", "Invalid query parameter: filter.age must be an integer"),
        ("/api/things?from=soon", "Invalid query parameter: from must be a valid date-time"),
        ("/api/things?where=%7B", "Invalid query parameter: where must be valid JSON"),
        (f"/api/things?status={NUL}", "Invalid query parameter: status must be one of: open, closed"),
        (f"/api/things?ids=a{NUL}", "Invalid query parameter: ids must not contain the character U+0000"),
        ("/api/things?limit=%FF", "The query string cannot be read"),
        (f"/api/things?{'&'.join(['a=1'] * 1001)}", "The query string cannot be read"),
        ("/api/things/x?view=v", "Invalid path parameter: thingId must be an integer"),
        ("/api/things/5", "Missing required query parameter: view"),
        ("/api/things/5/parts/none", "Invalid path parameter: partId must be a valid uuid"),
    ],
)
async def test_bad_parameter_is_named(http: httpx.AsyncClient, lab: Lab, target: str, error: str) -> None:
    """A parameter that does not match the document is 400, and never reaches the handler."""
    assert await refused(http, lab, target) == error


async def test_bad_header_is_named(http: httpx.AsyncClient, lab: Lab) -> None:
    """As it is written in the document."""
    error = await refused(http, lab, "/api/things", **{"X-Trace": "too long"})

    assert error == "Invalid header parameter: X-Trace must have at most 5 characters"


async def test_path_parameters_are_typed(http: httpx.AsyncClient, lab: Lab) -> None:
    """And come under their snake_case name."""
    assert await given(http, lab, "/api/things/5?view=v") == {"operation": "get_thing", "thing_id": 5, "view": "v"}


async def test_concrete_path_wins_over_a_templated_one(http: httpx.AsyncClient, lab: Lab) -> None:
    """Whatever their order in the document, and also where both have a parameter."""
    assert await given(http, lab, "/api/things/newest") == {"operation": "get_newest"}
    assert await given(http, lab, "/api/things/newest/parts/1") == {"operation": "get_newest_part", "part_id": "1"}


async def test_segment_is_taken_whole(http: httpx.AsyncClient, lab: Lab) -> None:
    """A parameter is one segment, decoded; a slash ends it."""
    part = "0f8fad5b-d9cb-469f-a165-70867728950e"

    assert (await given(http, lab, f"/api/things/a%20b/parts/{part}"))["thing_id"] == "a b"
    assert (await http.get(f"/api/things/a/b/parts/{part}")).status_code == 404


async def test_operation_that_lost_its_security_stays_closed() -> None:
    """A document that asks for no token opens nothing until the overlay says why everybody may call."""

    async def handler(request: Request[Lab]) -> Response[Any]:
        raise AssertionError(request.operation)

    contract = contract_of({"/api/things": {"get": {"responses": {"200": {"description": "ok"}}}}})
    with capture_logs() as logs:
        app: Any = build(contract, Lab(), {"GET /api/things": handler}, bindings_of(contract))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            answers = [
                await http.get("/api/things", headers=headers)
                for headers in (
                    {},
                    {"Authorization": "Bearer jwt-of-org-1"},
                    {"Authorization": "Bearer none that exists"},
                )
            ]

    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert {"event": "security.closed", "operation": "GET /api/things", "log_level": "warning"} in logs


@pytest.mark.parametrize(
    "scheme",
    [
        {"type": "http", "scheme": "bearer", "bearerFormat": "of some other kind"},
        {"type": "http", "scheme": "bearer"},
        {"type": "http", "scheme": "basic"},
        {"type": "http", "scheme": "digest"},
        {"type": "apiKey", "in": "header", "name": "X-Key"},
        {"type": "apiKey", "in": "cookie", "name": "session"},
        {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "https://x.example", "scopes": {}}}},
        {"type": "openIdConnect", "openIdConnectUrl": "https://x.example"},
    ],
)
async def test_scheme_nobody_knows_is_refused_for_everyone(scheme: dict[str, Any]) -> None:
    """A new kind of proof in a new document lets nobody in before somebody has written how to check it."""

    async def handler(request: Request[Lab]) -> Response[Any]:
        raise AssertionError(request.operation)

    operation = {"security": [{"new": []}], "responses": {"200": {"description": "ok"}}}
    contract = contract_of({"/api/things": {"get": operation}}, securitySchemes={"new": scheme})
    with capture_logs():
        app: Any = build(contract, Lab(), {"GET /api/things": handler}, bindings_of(contract))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            proofs: list[dict[str, str]] = [
                {},
                {"Authorization": "Bearer jwt-of-org-1"},
                {"Authorization": "Basic YTpi", "X-Key": "k", "Cookie": "session=s"},
            ]
            answers = [await http.get("/api/things", headers=headers) for headers in proofs]

    assert [(answer.status_code, answer.headers["www-authenticate"]) for answer in answers] == [(401, "Bearer")] * 3
