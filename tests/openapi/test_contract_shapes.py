"""Shapes that today's document lacks and the next one may have, on their way from the document to the wire."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from openapi.exchange import Request, Response
from tests.support.contracts import Answered, Lab, bindings_of, build, contract_of

OK: dict[str, Any] = {"responses": {"200": {"description": "ok"}}}
PUBLIC: dict[str, Any] = {"x-public": "a test"} | OK


@contextlib.asynccontextmanager
async def served(
    paths: dict[str, Any], answer: Any = None, **more: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Lab]]:
    """Serve `paths` with handlers that answer `answer`, or what they were given."""
    contract, lab = contract_of(paths, **more), Lab()

    async def handler(request: Request[Lab], **arguments: Any) -> Response[Any]:
        return Answered({"operation": request.operation, **arguments} if answer is None else answer)

    app: Any = build(contract, lab, {one.key: handler for one in contract.operations}, bindings_of(contract))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        yield http, lab


async def test_security_for_all_holds_unless_an_operation_says_otherwise() -> None:
    """`security: []` opens one operation, and the others ask for the token."""
    paths = {"/api/open": {"get": PUBLIC | {"security": []}}, "/api/closed": {"get": OK}}
    token = {"Authorization": "Bearer jwt-of-org-1"}
    async with served(paths, security=[{"token": []}]) as (http, _):
        statuses = [(await http.get(path)).status_code for path in ("/api/open", "/api/closed")]
        with_token = await http.get("/api/closed", headers=token)

    assert statuses == [200, 401]
    assert with_token.status_code == 200


async def test_an_operation_narrows_a_parameter_of_its_path() -> None:
    """What the operation says of a parameter replaces what its path says."""

    def limit(most: int) -> dict[str, Any]:
        return {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": most}}

    paths = {"/api/things": {"parameters": [limit(100)], "get": PUBLIC | {"parameters": [limit(10)]}, "delete": PUBLIC}}
    async with served(paths) as (http, _):
        narrow = [(await http.get(f"/api/things?limit={count}")).status_code for count in (10, 11)]
        wide = [(await http.delete(f"/api/things?limit={count}")).status_code for count in (100, 101)]

    assert narrow == wide == [200, 400]


async def test_head_is_an_operation_where_it_is_declared() -> None:
    """And GET where it is not."""
    paths = {"/api/things": {"get": PUBLIC, "head": PUBLIC | {"x-public": "another"}}}
    async with served(paths) as (http, _):
        head, get = await http.head("/api/things"), await http.get("/api/things")

    assert get.json() == {"operation": "get_things"}
    assert int(head.headers["content-length"]) == len('{"operation":"head_things"}')


async def test_an_optional_body_may_be_left_out() -> None:
    """The handler is given None then, and a required one is asked for."""
    body = {"content": {"application/json": {"schema": {"type": "object"}}}}
    paths = {
        "/api/may": {"post": PUBLIC | {"requestBody": body}},
        "/api/must": {"post": PUBLIC | {"requestBody": body | {"required": True}}},
    }
    async with served(paths) as (http, _):
        may, must = await http.post("/api/may"), await http.post("/api/must")

    assert (may.status_code, may.json()["body"]) == (200, None)
    assert must.status_code == 400


async def test_a_property_that_travels_one_way_is_asked_for_on_that_way_only() -> None:
    """An id is the server's to give, a password the client's; neither is missed on the other's way."""
    schema = {
        "type": "object",
        "required": ["id", "name", "password"],
        "properties": {
            "id": {"type": "string", "readOnly": True},
            "name": {"type": "string"},
            "password": {"type": "string", "writeOnly": True},
        },
    }
    content = {"content": {"application/json": {"schema": schema}}}
    paths = {
        "/api/users": {
            "post": {"x-public": "x", "requestBody": content, "responses": {"200": {"description": "ok"} | content}}
        }
    }
    full, without_id = {"id": "1", "name": "Sam"}, {"name": "Sam"}
    for answer, body, status in (
        (full, {"name": "Sam", "password": "p"}, 200),
        (full, {"name": "Sam", "id": "1"}, 400),
        (without_id, {"name": "Sam", "password": "p"}, 500),
    ):
        async with served(paths, answer) as (http, _):
            assert (await http.post("/api/users", json=body)).status_code == status
