from typing import Any

import httpx
import pytest

from domain.errors import Unauthenticated
from openapi.exchange import Request, Response
from tests.support.api import serving
from tests.support.contracts import Answered, Lab, bindings_of, build, contract_of
from tests.support.waiting import patience

LIMIT = 100_000
RAW: dict[str, Any] = {
    "x-public": "a test",
    "x-raw-body": True,
    "x-max-body-bytes": LIMIT,
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
    "responses": {
        "200": {"description": "ok", "content": {"application/json": {"schema": {}}}},
        "413": {"description": "too large"},
    },
}


async def count(request: Request[Lab]) -> Response[Any]:
    chunks = [len(chunk) async for chunk in request.stream()]
    return Answered({"bytes": sum(chunks)})


def app() -> Any:
    contract = contract_of({"/api/raw": {"post": RAW}})
    return build(contract, Lab(), {"POST /api/raw": count}, bindings_of(contract))


async def test_undecoded_body_is_read_by_the_handler() -> None:
    """Byte for byte, JSON or not: what a signature was made over must not be touched."""
    async with serving(app()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        answers = [(await http.post("/api/raw", content=content)).json() for content in (b"", b"\xff{", b"x" * LIMIT)]

    assert answers == [{"bytes": 0}, {"bytes": 2}, {"bytes": LIMIT}]


@pytest.mark.parametrize("chunked", [True, False])
async def test_undecoded_body_has_a_limit_too(chunked: bool) -> None:
    """Announced or not."""

    async def pieces() -> Any:
        for _ in range(11):
            yield b"x" * (LIMIT // 10)

    async with serving(app()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        response = await http.post("/api/raw", content=pieces() if chunked else b"x" * (LIMIT + 1))

    assert response.status_code == 413


async def test_request_without_a_token_has_no_caller() -> None:
    """A handler that asks who is calling on an open operation does not get a wrong answer."""
    request = Request(relay=None, operation="x")

    with pytest.raises(Unauthenticated):
        _ = request.caller


async def test_request_without_a_body_has_an_empty_stream() -> None:
    """There is always something to read, if nothing."""
    request = Request(relay=None, operation="x")

    async with patience():
        assert [chunk async for chunk in request.stream()] == []
