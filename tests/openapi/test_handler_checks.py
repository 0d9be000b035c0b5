import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, ClassVar

import httpx
import pytest

from openapi.exchange import Binding, Bindings, Handler, Request, Response
from tests.support.api import serving
from tests.support.contracts import Answered, Lab, build, contract_of

SCHEMES = {
    "secret": {"type": "http", "scheme": "bearer", "bearerFormat": "tool secret"},
    "signature": {"type": "apiKey", "in": "header", "name": "X-Signature", "x-verified-by-handler": True},
    "link": {"type": "apiKey", "in": "query", "name": "signature", "x-verified-by-handler": True},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "signature", "x-verified-by-handler": True},
    "unmarked": {"type": "apiKey", "in": "header", "name": "X-Signature"},
}
SECRET = {"Authorization": "Bearer secret-of-org-1"}
ANYTHING = {"200": {"description": "x", "content": {"application/json": {"schema": {}}}}}
SOUND = {"200": {"description": "x", "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}}}


class Sound(Response[bytes]):
    """Audio of some kind."""

    __slots__ = ()
    status: ClassVar[int] = 200
    media_type: ClassVar[str | None] = "audio/*"


class Nothing(Response[None]):
    """An answer without content."""

    __slots__ = ()
    status: ClassVar[int] = 204
    media_type: ClassVar[str | None] = None


@contextlib.asynccontextmanager
async def one_operation(handler: Handler, **definition: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Lab]]:
    """Serve one operation at /api/x/y with `handler`; without a body it is a GET."""
    method = "post" if "requestBody" in definition else "get"
    operation = {"operationId": "act", "responses": ANYTHING} | definition
    contract = contract_of({"/api/x/y": {method: operation}}, securitySchemes=SCHEMES)
    (key,) = (operation.key for operation in contract.operations)
    bindings = Bindings(contract.served_digest, {key: Binding("x.act", Any, {}, (Answered, Sound, Nothing))})
    lab = Lab()
    app = build(contract, lab, {key: handler}, bindings)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        yield http, lab


async def tell_principal(request: Request[Lab]) -> Response[Any]:
    principal = request.principal
    return Answered({"organization": principal.organization_id if principal else None})


async def let_in(http: httpx.AsyncClient, headers: Mapping[str, str], query: str = "") -> object:
    """Return whose token was believed, or the status of the refusal."""
    answer = await http.get(f"/api/x/y{query}", headers=headers)
    return answer.json()["organization"] if answer.status_code == 200 else answer.status_code


async def test_a_signature_lets_a_request_through_for_the_handler_to_check() -> None:
    """It is believed by nobody yet, so there is no principal; a good token of the other scheme brings one."""
    async with one_operation(tell_principal, security=[{"secret": []}, {"signature": []}]) as (http, _):
        signed = {"X-SIGNATURE": "t=1,v0=00"}

        assert await let_in(http, signed) is None
        assert await let_in(http, SECRET) == "org-1"
        assert await let_in(http, signed | SECRET) == "org-1"
        assert await let_in(http, signed | {"Authorization": "Bearer nonsense"}) is None


async def test_without_a_signature_only_a_good_token_lets_in() -> None:
    """A header that is absent or blank is none, and neither is one of another name."""
    async with one_operation(tell_principal, security=[{"secret": []}, {"signature": []}]) as (http, _):
        for headers in ({}, {"X-Signature": ""}, {"Signature": "x"}, {"Authorization": "Bearer jwt-of-org-1"}):
            assert await let_in(http, headers) == 401
        assert await let_in(http, {}, "?signature=x") == 401


async def test_a_signature_may_be_part_of_a_link() -> None:
    """Then the query must hold it, and a header does not help."""
    async with one_operation(tell_principal, security=[{"link": []}]) as (http, _):
        assert await let_in(http, {}, "?expires=1&signature=abc") is None
        assert await let_in(http, {}, "?expires=1") == 401
        assert await let_in(http, {}, "?signature=") == 401
        assert await let_in(http, {"signature": "abc"} | SECRET) == 401


@pytest.mark.parametrize("scheme", ["unmarked", "cookie"])
async def test_a_key_nobody_checks_opens_nothing(scheme: str) -> None:
    """A scheme that is not marked for the handler, or lies where we do not look, is closed to everyone."""
    async with one_operation(tell_principal, security=[{scheme: []}]) as (http, _):
        assert await let_in(http, {"X-Signature": "abc", "Cookie": "signature=abc"} | SECRET, "?signature=a") == 401


async def test_a_handler_gets_the_body_as_it_was_sent_and_where_it_was_sent_to() -> None:
    """Byte for byte and in pieces; and the path and the query as they came, which signatures are made over."""
    got: dict[str, Any] = {}

    async def handler(request: Request[Lab]) -> Response[Any]:
        got.update(body=b"".join([chunk async for chunk in request.stream()]), target=request.target)
        return Answered({})

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b'{ "a" : 1}\xff\n'

    body = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    raw = {"x-raw-body": True, "x-max-body-bytes": 100, "requestBody": body, "security": [{"signature": []}]}
    async with one_operation(handler, **raw) as (http, _):
        signed = {"X-Signature": "x", "Content-Type": "application/json"}
        accepted = await http.post("/api/x/y?b=%7e&a=+1", content=pieces(), headers=signed)
        refused = await http.post("/api/x/y", content=b"x" * 101, headers=signed)

    assert accepted.status_code == 200
    assert got["body"] == b'{ "a" : 1}\xff\n' * 3
    assert got["target"] == "/api/x/y?b=%7e&a=+1"
    assert refused.status_code == 413


# Answers that are not JSON


class Source:
    """Chunks that say how many of them were asked for, and whether the end was reached or the rest let go."""

    def __init__(self, count: int) -> None:
        self.count, self.taken, self.is_closed = count, 0, False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(self.count):
                self.taken += 1
                yield bytes([number]) * 1000
        finally:
            self.is_closed = True


async def test_audio_is_sent_chunk_by_chunk() -> None:
    """With the length and the media type its headers say; a HEAD request reads nothing."""
    sources = [Source(5), Source(5)]
    left = iter(sources)

    async def handler(request: Request[Lab]) -> Response[Any]:
        del request
        headers = {"Content-Length": "5000", "Content-Type": "audio/mpeg"}
        return Sound(b"", headers, next(left).chunks())

    async with one_operation(handler, responses=SOUND, security=[{"link": []}]) as (http, _):
        got = await http.get("/api/x/y?signature=x")
        head = await http.head("/api/x/y?signature=x")

    assert got.content == b"".join(bytes([number]) * 1000 for number in range(5))
    assert (got.headers["content-type"], got.headers["content-length"]) == ("audio/mpeg", "5000")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "5000")
    assert [(source.taken, source.is_closed) for source in sources] == [(5, True), (0, False)]


async def test_an_answer_without_content_has_no_length() -> None:
    """RFC 9110, 8.6: a server must not send Content-Length with 204."""

    async def handler(request: Request[Lab]) -> Response[Any]:
        del request
        return Nothing(None)

    responses = {"204": {"description": "nothing"}}
    async with one_operation(handler, responses=responses, security=[{"link": []}]) as (http, _):
        answer = await http.get("/api/x/y?signature=x")

    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers
    assert "content-type" not in answer.headers


@pytest.mark.parametrize("media_type", ["video/mp4", "text/html", "audio/*", None])
async def test_audio_of_a_kind_the_document_does_not_declare_is_a_fault_of_ours(media_type: str | None) -> None:
    """A range is what the document declares, and no answer."""

    async def handler(request: Request[Lab]) -> Response[Any]:
        del request
        return Sound(b"x", {"Content-Type": media_type} if media_type else {})

    async with one_operation(handler, responses=SOUND, security=[{"link": []}]) as (http, _):
        assert (await http.get("/api/x/y?signature=x")).status_code == 500
