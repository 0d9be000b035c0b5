import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from domain import errors
from openapi import models, operations
from openapi.exchange import NotWritten, Response
from tests.openapi.conftest import ANSWERS, CREATED, MAX_BODY, MAX_DOCUMENT, Relay
from tests.support.contract import CONTRACT
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="session")

INGEST = "/api/calls/ingest"
CONFIG = "/api/calls/voice-ai/config"
TOOLS = "/api/webhook/elevenlabs/tools"
NOTE, SMS, TRANSFER = f"{TOOLS}/create-note", f"{TOOLS}/send-sms", f"{TOOLS}/transfer"
POSTS = [INGEST, CONFIG, NOTE, SMS, TRANSFER]
TOKEN = {INGEST: "key-of-org-1", CONFIG: "jwt-of-org-1"} | dict.fromkeys((NOTE, SMS, TRANSFER), "secret-of-org-1")

EXAMPLES = {
    path: CONTRACT.served["components"]["schemas"][name]["example"]
    for path, name in {
        INGEST: "CallsIngestExternalCallRequest",
        CONFIG: "CallsSaveVoiceAiConfigRequest",
        NOTE: "ElevenLabsCreateNoteRequest",
        SMS: "ElevenLabsSendSmsRequest",
        TRANSFER: "ElevenLabsTransferRequest",
    }.items()
}

# What no JSON reader may let in, and no server may fall over.
BROKEN = {
    "broken utf-8": b'{"a":"\xff\xfe"}',
    "lone surrogate": b'{"a":"\\ud800"}',
    "nul character": b'{"a":"\\u0000"}',
    "not a number": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "number out of range": b'{"a":1e999}',
    "10,000 levels": b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "10,000 opened": b"[" * 10_000,
    "empty": b"",
    "only spaces": b"   ",
    "cut off": b'{"a":',
    "two documents": b"{}{}",
    "form data": b"phone_number=1&note=2",
    "utf-16": '{"a":1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "a number": b"5",
    "a list": b"[]",
    "null": b"null",
    "a word": b'"x"',
}


async def post(relay: Relay, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN[path]}"} | headers
    return await relay.http.post(path, content=content, headers=given)


def without(path: str, *names: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (EXAMPLES[path] | changes).items() if name not in names}


def sentence(response: httpx.Response) -> str:
    """Return what a voice agent would say, having checked that it can."""
    assert response.status_code == 200, response.text
    assert response.json()["success"] is False
    said = str(response.json()["error"])
    assert 0 < len(said) < 200
    assert not re.search(r"[_{}\[\]<>\\\n]|[0-9a-f]{24}", said), said
    return said


# What is right


@pytest.mark.parametrize("path", POSTS)
async def test_published_example_is_let_through(relay: Relay, path: str) -> None:
    """The example of the page reaches the handler, and the handler's answer reaches the caller."""
    response = await post(relay, path, EXAMPLES[path])
    (given,) = relay.lab.given

    assert response.status_code == ANSWERS[given["request"].operation].status
    assert response.headers["content-type"] == "application/json"
    assert given["body"].model_dump(mode="json", exclude_unset=True) == EXAMPLES[path]


async def test_handler_is_given_principal_headers_and_peer(relay: Relay) -> None:
    """Besides the body, a handler knows who asks and from where."""
    await post(relay, NOTE, EXAMPLES[NOTE], **{"X-Something": "else"})
    request = relay.lab.given[0]["request"]

    assert request.caller.organization_id == "org-1"
    assert request.headers["x-something"] == "else"
    assert request.client == "127.0.0.1"


async def test_unknown_fields_reach_the_handler(relay: Relay) -> None:
    """Extra fields are accepted everywhere the page allows them, and not lost."""
    for path in POSTS:
        await post(relay, path, EXAMPLES[path] | {"somethingNew": {"a": [1]}})

    assert [given["body"].model_extra for given in relay.lab.given] == [{"somethingNew": {"a": [1]}}] * 5


async def test_of_a_repeated_key_the_last_counts(relay: Relay) -> None:
    """Duplicate keys are not an error, and which of them counts is known."""
    await post(relay, NOTE, b'{"phone_number":"+14165550100","note":"first","note":"last"}')

    assert relay.lab.given[0]["body"].note == "last"


async def test_absent_and_null_are_told_apart(relay: Relay) -> None:
    """A partial update must know the difference."""
    await post(relay, CONFIG, {"aiVoiceProvider": None})
    await post(relay, CONFIG, {})

    assert [given["body"].model_fields_set for given in relay.lab.given] == [{"aiVoiceProvider"}, set()]


@pytest.mark.parametrize(
    "content_type", ["application/json", "APPLICATION/JSON; charset=utf-8", "application/vnd.api+json"]
)
async def test_any_json_media_type_is_accepted(relay: Relay, content_type: str) -> None:
    """Case, parameters and structured suffixes do not matter."""
    response = await post(relay, TRANSFER, {}, **{"Content-Type": content_type})

    assert len(relay.lab.given) == 1
    assert response.status_code == 200


# Bad bodies


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("path", [NOTE, SMS, TRANSFER])
async def test_tool_answers_a_broken_body_with_a_sentence(relay: Relay, path: str, name: str) -> None:
    """Whatever the bytes, a tool answers 200 with something the agent can say, and does nothing."""
    assert sentence(await post(relay, path, BROKEN[name]))
    assert relay.lab.given == []


@pytest.mark.parametrize("name", BROKEN)
async def test_ingest_answers_a_broken_body_with_400(relay: Relay, name: str) -> None:
    """Whatever the bytes, ingest answers 400 in its own envelope."""
    response = await post(relay, INGEST, BROKEN[name])

    assert response.status_code == 400
    assert response.json().keys() == {"success", "error"}
    assert relay.lab.given == []


@pytest.mark.parametrize("name", BROKEN)
async def test_config_answers_a_broken_body_with_a_structured_400(relay: Relay, name: str) -> None:
    """Whatever the bytes, the configuration answers the structured error of its page."""
    response = await post(relay, CONFIG, BROKEN[name])

    assert response.status_code == 400
    assert response.json()["success"] is False
    assert response.json()["error"]["code"] == "VALIDATION_ERROR"
    assert relay.lab.given == []


@pytest.mark.parametrize("missing", ["direction", "fromNumber", "toNumber", "duration", "status"])
async def test_ingest_names_the_missing_field(relay: Relay, missing: str) -> None:
    """In the page's words."""
    response = await post(relay, INGEST, without(INGEST, missing))

    assert response.json() == {"success": False, "error": f"Missing required field: {missing}"}


@pytest.mark.parametrize("missing", ["transcript", "summary", "recording"])
async def test_completed_call_needs_transcript_summary_and_recording(relay: Relay, missing: str) -> None:
    """The page's prose rule is part of the contract."""
    response = await post(relay, INGEST, without(INGEST, missing))

    assert response.status_code == 400
    assert response.json() == {"success": False, "error": f"Missing required field: {missing}"}


@pytest.mark.parametrize("status", ["no-answer", "busy", "failed"])
async def test_call_that_was_not_completed_needs_none_of_them(relay: Relay, status: str) -> None:
    """A call nobody answered has no transcript."""
    response = await post(relay, INGEST, without(INGEST, "transcript", "summary", "recording", status=status))

    assert response.status_code == 201


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"duration": -0.5}, "Invalid field: duration must be at least 0"),
        ({"duration": "154"}, "Invalid field: duration must be a number"),
        ({"duration": True}, "Invalid field: duration must be a number"),
        ({"direction": "sideways"}, "Invalid field: direction must be one of: inbound, outbound"),
        ({"fromNumber": "4165550100"}, "Invalid field: fromNumber must be an E.164 number such as +14155551234"),
        ({"toNumber": "+1416555010012345"}, "Invalid field: toNumber must be an E.164 number such as +14155551234"),
        ({"toNumber": "+14165550100\n"}, "Invalid field: toNumber must be an E.164 number such as +14155551234"),
        ({"transcript": "Hi"}, "Invalid field: transcript must be an array"),
        ({"transcript": [{"role": "agent"}]}, "Missing required field: transcript[0].message"),
        (
            {"transcript": [{"role": "agent", "message": "Hi", "mood": "good"}]},
            "Unknown field: transcript[0].mood",
        ),
        (
            {"transcript": [{"role": "bot", "message": "Hi"}]},
            "Invalid field: transcript[0].role must be one of: agent, user",
        ),
        ({"summary": None}, "Invalid field: summary must be text"),
        ({"metadata": []}, "Invalid field: metadata must be an object"),
        ({"callStartTime": "yesterday"}, "Invalid field: callStartTime must be a valid date-time"),
        ({"callStartTime": "2026-05-15T09:10:00"}, "Invalid field: callStartTime must be a valid date-time"),
        ({"callStartTime": "0001-01-01T00:00:00+23:59"}, "Invalid field: callStartTime is not valid"),
        ({"callStartTime": "0000-01-01T00:00:00Z"}, "Invalid field: callStartTime is not valid"),
        ({"callStartTime": "2016-12-31T23:59:60Z"}, "Invalid field: callStartTime is not valid"),
    ],
)
async def test_ingest_says_what_is_wrong(relay: Relay, changes: dict[str, Any], error: str) -> None:
    """The first problem, by the name of its field."""
    response = await post(relay, INGEST, EXAMPLES[INGEST] | changes)

    assert response.status_code == 400
    assert response.json() == {"success": False, "error": error}


async def test_first_problem_is_first_in_the_document(relay: Relay) -> None:
    """Of several problems the one the document lists first is named, whatever order they were sent in."""
    response = await post(relay, INGEST, {"status": "completed", "toNumber": 5, "direction": "inbound"})

    assert response.json()["error"] == "Missing required field: fromNumber"


async def test_config_lists_every_problem(relay: Relay) -> None:
    """The structured error carries one entry per problem."""
    response = await post(relay, CONFIG, {"sinchEstKeyId": 5, "generateToolSecret": "yes"})

    assert response.json()["error"] == {
        "code": "VALIDATION_ERROR",
        "message": "Invalid field: generateToolSecret must be a boolean",
        "details": [
            {"field": "generateToolSecret", "code": "type", "message": "must be a boolean"},
            {"field": "sinchEstKeyId", "code": "type", "message": "must be text"},
        ],
    }


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (NOTE, {"note": "x"}, "The phone number is missing."),
        (NOTE, {"phone_number": "+14165550100"}, "The note is missing."),
        (SMS, {"phone_number": "+14165550100"}, "The message is missing."),
        (SMS, {"phone_number": 14165550100, "message": "x"}, "The phone number is not valid."),
        (NOTE, {"phone_number": None, "note": "x"}, "The phone number is not valid."),
        (NOTE, {"phone_number": "+14165550100", "note": "x", "called_number": 5}, "The called number is not valid."),
        (TRANSFER, {"reason": ["x"]}, "The reason is not valid."),
        (TRANSFER, [], "Sorry, I could not understand that request."),
    ],
)
async def test_tool_says_what_is_wrong(relay: Relay, path: str, body: Any, said: str) -> None:
    """A caller can be told which detail is missing, in words."""
    assert sentence(await post(relay, path, body)) == said


async def test_transfer_says_it_where_its_page_looks(relay: Relay) -> None:
    """The page of the transfer tool knows only `message`, so the sentence stands there too."""
    body = (await post(relay, TRANSFER, {"reason": 5})).json()

    assert body["message"] == body["error"]


async def test_values_are_never_repeated(relay: Relay) -> None:
    """What was wrong is named, never quoted: it may be a secret or somebody's words."""
    secret = "sk_live_do_not_tell"
    answers = [
        await post(relay, CONFIG, {"generateToolSecret": secret, "elevenlabsApiKey": [secret]}),
        await post(relay, INGEST, EXAMPLES[INGEST] | {"transcript": [{"role": secret, "message": secret}]}),
        await post(relay, INGEST, EXAMPLES[INGEST] | {"callStartTime": secret}),
        await post(relay, NOTE, {"phone_number": [secret], "note": secret}),
    ]

    assert [answer.text for answer in answers if secret in answer.text] == []


# Bodies and the wire


@pytest.mark.parametrize("path", POSTS)
async def test_body_may_come_in_chunks_without_a_length(relay: Relay, path: str) -> None:
    """A chunked body without Content-Length is a body like any other."""

    async def pieces() -> AsyncIterator[bytes]:
        for byte in json.dumps(EXAMPLES[path]).encode():
            yield bytes([byte])

    headers = {"Authorization": f"Bearer {TOKEN[path]}", "Content-Type": "application/json"}
    response = await relay.http.post(path, content=pieces(), headers=headers)

    assert response.status_code < 300
    assert len(relay.lab.given) == 1


@pytest.mark.parametrize("path", POSTS)
async def test_body_that_is_too_large_is_refused_while_it_streams(relay: Relay, path: str) -> None:
    """The answer is there before the body has an end."""
    reader, writer = await asyncio.open_connection(relay.host, relay.port)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN[path]}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    writer.write(head.encode() + f"{MAX_BODY + 1:x}\r\n".encode() + b'"' * (MAX_BODY + 1) + b"\r\n")
    await writer.drain()
    answer = await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE_SECONDS)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than" in answer
    assert relay.lab.given == []


async def test_announced_length_is_refused_before_the_body_is_read(relay: Relay) -> None:
    """An honest Content-Length saves everybody the transfer."""
    head = f"POST {INGEST} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-of-org-1\r\nConnection: close\r\n"
    answer = await relay.raw(f"{head}Content-Type: application/json\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_largest_body_is_accepted(relay: Relay) -> None:
    """The limit itself is within the limit; one byte more is not."""
    body = _with_recording(b"")
    body = _with_recording(b"A" * (MAX_BODY - len(body)))

    assert (await post(relay, INGEST, body)).status_code == 201
    assert (await post(relay, INGEST, body + b" ")).status_code == 413


async def test_json_is_refused_earlier_than_a_recording(relay: Relay) -> None:
    """Everybody waits while it is parsed, so what is not the recording has a limit of its own."""
    bare, recording = _with_recording(b""), b"A" * (MAX_DOCUMENT // 2)
    blanks = b" " * (MAX_DOCUMENT - len(bare))

    assert (await post(relay, INGEST, _with_recording(recording) + blanks)).status_code == 201
    refused = await post(relay, INGEST, _with_recording(recording) + blanks + b" ")
    assert refused.status_code == 413
    assert refused.json()["error"] == f"Request body without its recording is larger than {MAX_DOCUMENT} bytes"


async def test_a_body_without_recording_is_json_altogether(relay: Relay) -> None:
    """What nobody marked as large is refused as soon as it is."""
    body = json.dumps(EXAMPLES[CONFIG]).encode()
    padded = body + b" " * (MAX_DOCUMENT - len(body))

    assert (await post(relay, CONFIG, padded)).status_code == 200
    refused = await post(relay, CONFIG, padded + b" ")
    assert refused.status_code == 413


def _with_recording(text: bytes) -> bytes:
    return json.dumps({**EXAMPLES[INGEST], "recording": "AUDIO"}).encode().replace(b"AUDIO", text)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("headers", [{"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}])
async def test_other_media_types_are_refused(relay: Relay, path: str, headers: dict[str, str]) -> None:
    """What is declared to be something else than JSON is 415 in the operation's envelope."""
    response = await post(relay, path, EXAMPLES[path], **headers)

    assert response.status_code == 415
    assert response.headers["content-type"] == "application/json"
    assert "error" in response.json()


async def test_absent_content_type_is_taken_for_json(relay: Relay) -> None:
    """A client that does not say what it sends is believed to follow the page."""
    body = json.dumps(EXAMPLES[NOTE]).encode()
    head = f"POST {NOTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret-of-org-1\r\nConnection: close\r\n"
    answer = await relay.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"note_id"' in answer


async def test_client_that_goes_away_leaves_no_trace(relay: Relay) -> None:
    """A connection that breaks in the middle of a body reaches no handler and is no error of ours."""
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection(relay.host, relay.port)
        head = (
            f"POST {NOTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret-of-org-1\r\nContent-Length: 100\r\n\r\n"
        )
        writer.write(head.encode() + b'{"phone_number":')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        # The server has seen the end of the first connection when it has answered on another.
        await post(relay, TRANSFER, {})

    assert [given["request"].operation for given in relay.lab.given] == ["post_webhook_elevenlabs_tools_transfer"]
    assert [log for log in logs if log["log_level"] == "error"] == []


# Tokens

BAD_AUTHORIZATIONS = {
    "none": {},
    "empty": {"Authorization": ""},
    "scheme alone": {"Authorization": "Bearer"},
    "no scheme": {"Authorization": "key-of-org-1"},
    "basic": {"Authorization": "Basic a2V5OnZhbHVl"},
    "two tokens": {"Authorization": "Bearer key-of-org-1 key-of-org-1"},
    "two in a list": {"Authorization": "Bearer key-of-org-1, Bearer key-of-org-1"},
    "unknown": {"Authorization": "Bearer nobody-knows-me"},
    "not ascii": {"Authorization": "Bearer ké"},
    "very long": {"Authorization": f"Bearer {'a' * 9000}"},
}


@pytest.mark.parametrize("name", BAD_AUTHORIZATIONS)
@pytest.mark.parametrize("path", POSTS)
async def test_bad_token_is_401_in_the_operations_envelope(relay: Relay, path: str, name: str) -> None:
    """Whatever is wrong with the token; and the body, however bad, is not looked at."""
    headers = [(key.encode(), value.encode("latin-1")) for key, value in BAD_AUTHORIZATIONS[name].items()]
    response = await relay.http.post(path, content=b"{", headers=[(b"Content-Type", b"application/json"), *headers])

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["success"] is False
    assert relay.lab.given == []


@pytest.mark.parametrize("path", POSTS)
async def test_each_kind_of_token_is_refused_on_the_others_routes(relay: Relay, path: str) -> None:
    """A JWT is no API key, an API key no tool secret."""
    others = {"key-of-org-1", "jwt-of-org-1", "secret-of-org-1"} - {TOKEN[path]}
    answers = [await post(relay, path, EXAMPLES[path], Authorization=f"Bearer {other}") for other in others]

    assert [answer.status_code for answer in answers] == [401, 401]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
async def test_scheme_is_read_whatever_its_case(relay: Relay, scheme: str) -> None:
    """RFC 9110: the name of a scheme has no case."""
    response = await post(relay, TRANSFER, {}, Authorization=f"{scheme} secret-of-org-1")

    assert response.status_code == 200


async def test_two_authorization_headers_are_refused(relay: Relay) -> None:
    """Which of two tokens is meant is not for us to guess."""
    headers = [("Authorization", "Bearer secret-of-org-1")] * 2
    response = await relay.http.post(TRANSFER, json={}, headers=headers)

    assert response.status_code == 401


async def test_fault_while_authenticating_is_ours(relay: Relay) -> None:
    """A database that fails during authentication is a 500, not a 401."""
    relay.lab.authentication_error = RuntimeError("the database is gone")
    with capture_logs():
        response = await post(relay, NOTE, EXAMPLES[NOTE])

    assert response.status_code == 500
    assert "www-authenticate" not in response.headers


# Paths and methods


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/calls", "/api/calls/ingest/", "/API/calls/ingest", "/api/%00", "//"]
)
async def test_unknown_path_is_404_in_an_envelope(relay: Relay, path: str) -> None:
    """Nothing is redirected, guessed or revealed."""
    response = await relay.http.get(path)

    assert response.status_code == 404
    assert response.json() == {"success": False, "error": "Not found"}


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE"])
@pytest.mark.parametrize("path", [INGEST, NOTE])
async def test_other_methods_are_405_with_allow(relay: Relay, path: str, method: str) -> None:
    """In the envelope of the path's operation, naming every method it has."""
    response = await relay.http.request(method, path)

    assert response.status_code == 405
    assert response.headers["allow"] == "OPTIONS, POST"
    assert response.json() == {"error": "Method not allowed", "success": False}


async def test_allow_names_all_operations_of_the_path(relay: Relay) -> None:
    """A path with two operations offers both, and HEAD with GET."""
    response = await relay.http.delete(CONFIG)

    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"


async def test_options_offers_the_methods(relay: Relay) -> None:
    """Asking what is possible needs no token and reaches no handler."""
    response = await relay.http.options(CONFIG)

    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert relay.lab.given == []


async def test_head_is_get_without_a_body(relay: Relay) -> None:
    """Headers as for GET, length included."""
    headers = {"Authorization": "Bearer jwt-of-org-1"}
    head, get = await relay.http.head(CONFIG, headers=headers), await relay.http.get(CONFIG, headers=headers)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(get.content))


# Errors


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (errors.InvalidRequest("Not a phone number"), 400, "Not a phone number"),
        (errors.RecordingRejected("The recording is not audio"), 400, "The recording is not audio"),
        (
            errors.Unauthenticated("This operation needs the role superadmin"),
            401,
            "This operation needs the role superadmin",
        ),
        (errors.Unauthenticated(), 401, "Missing or invalid token"),
        (errors.PayloadTooLarge(7), 413, "Request body is larger than 7 bytes"),
        (errors.Overloaded("queue of 512 is full"), 503, "Temporarily unavailable, please try again"),
        (errors.StorageUnavailable("bucket secret-bucket"), 500, "Internal server error"),
        (errors.ProviderUnavailable("twilio", "reset by peer"), 500, "Internal server error"),
        (errors.RateLimited("Slow down", 30), 429, "Slow down"),
        (NotWritten(), 500, "This operation is not available yet"),
        (RuntimeError("select * from secrets"), 500, "Internal server error"),
        (KeyError("x"), 500, "Internal server error"),
    ],
)
async def test_every_error_of_a_handler_is_answered_in_the_envelope(
    relay: Relay, error: Exception, status: int, said: str
) -> None:
    """One table maps errors to statuses; what the document does not name becomes the nearest that it does."""
    relay.lab.error = error
    with capture_logs():
        response = await post(relay, INGEST, EXAMPLES[INGEST])

    assert (response.status_code, response.json()) == (status, {"success": False, "error": said})


async def test_speakable_error_of_a_tool_is_said(relay: Relay) -> None:
    """A problem the agent can tell the caller is 200 with that sentence."""
    relay.lab.error = errors.Speakable("I could not find your number.")

    assert sentence(await post(relay, SMS, EXAMPLES[SMS])) == "I could not find your number."


async def test_fault_of_ours_in_a_tool_is_500(relay: Relay) -> None:
    """A tool hides nothing behind 200 that is our own fault."""
    relay.lab.error = RuntimeError("x")
    with capture_logs():
        response = await post(relay, SMS, EXAMPLES[SMS])

    assert (response.status_code, response.json()) == (500, {"error": "Internal server error", "success": False})


@pytest.mark.parametrize(
    ("error", "seconds"), [(errors.Overloaded(), "5"), (errors.RateLimited("Slow down", 30), "30")]
)
async def test_retry_after_says_when(relay: Relay, error: Exception, seconds: str) -> None:
    """Who is asked to come back is told when."""
    relay.lab.error = error

    assert (await post(relay, INGEST, EXAMPLES[INGEST])).headers["retry-after"] == seconds


async def test_unexpected_error_is_logged_without_what_was_sent(relay: Relay) -> None:
    """The log says which operation failed and where in the code; never with whose words."""
    relay.lab.error = RuntimeError("the caller said hush-hush")
    with capture_logs() as logs:
        await post(relay, NOTE, EXAMPLES[NOTE] | {"note": "hush-hush"})
    (entry,) = [log for log in logs if log["event"] == "request.failed"]

    assert entry["operation"] == "post_webhook_elevenlabs_tools_create_note"
    assert entry["error"] == "RuntimeError"
    assert "conftest.py" in entry["frames"][-1]
    assert "hush-hush" not in repr(logs)


# Answers that are not as promised


async def test_answer_of_another_operation_is_a_fault(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """An undeclared answer never leaves the server; it is logged and answered 500."""
    monkeypatch.setitem(ANSWERS, "post_calls_ingest", ANSWERS["post_calls_voice_ai_config"])
    with capture_logs() as logs:
        response = await post(relay, INGEST, EXAMPLES[INGEST])

    assert (response.status_code, response.json()["error"]) == (500, "Internal server error")
    assert [log["reason"] for log in logs if log["event"] == "request.failed"] == [
        "an answer of type PostCallsVoiceAiConfig200"
    ]


async def test_answer_with_a_wrong_body_is_a_fault(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body the document would refuse never leaves the server."""
    body = models.CallsIngestCreatedResponse.model_validate(CREATED)
    body.__dict__["callId"] = 5
    monkeypatch.setitem(ANSWERS, "post_calls_ingest", operations.PostCallsIngest201(body))
    with capture_logs() as logs:
        response = await post(relay, INGEST, EXAMPLES[INGEST])

    assert response.status_code == 500
    assert [log["reason"] for log in logs if log["event"] == "request.failed"] == [
        "an answer 201 whose callId must be text"
    ]


async def test_headers_of_an_answer_are_sent(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler may add headers to its answer."""
    answer: Response[Any] = ANSWERS["post_calls_voice_ai_config"]
    monkeypatch.setitem(
        ANSWERS, "post_calls_voice_ai_config", type(answer)(answer.body, headers={"Cache-Control": "no-store"})
    )

    assert (await post(relay, CONFIG, {})).headers["cache-control"] == "no-store"


# The server's own pages


async def test_served_document_is_what_is_enforced(relay: Relay) -> None:
    """GET /openapi.json answers the published document with the overlay."""
    assert (await relay.http.get("/openapi.json")).json() == CONTRACT.served


async def test_swagger_ui_shows_the_served_document(relay: Relay) -> None:
    """The pages under /docs come from this server alone."""
    page = await relay.http.get("/docs/")
    script = await relay.http.get("/docs/swagger-ui-bundle.js")

    assert "/openapi.json" in page.text
    assert not re.search(r"(src|href)=\"https?://", page.text)
    assert script.status_code == 200
    assert (await relay.http.get("/docs")).headers["location"].endswith("/docs/")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/docs/no.js", 404), ("POST", "/docs/", 405), ("POST", "/contract", 405)]
)
async def test_pages_answer_errors_in_an_envelope(relay: Relay, method: str, path: str, status: int) -> None:
    """Also where no operation stands behind the path."""
    response = await relay.http.request(method, path)

    assert response.status_code == status
    assert response.json()["success"] is False
    assert ("allow" in response.headers) == (status == 405)


async def test_server_tells_about_its_contract(relay: Relay) -> None:
    """GET /contract names the documents by digest, and every operation with its state and its deviations."""
    body = (await relay.http.get("/contract")).json()
    by_path: Mapping[str, Any] = {f"{one['method']} {one['path']}": one for one in body["operations"]}
    reasons = [deviation["reason"] for deviation in by_path[f"POST {INGEST}"]["deviations"]]

    assert body["published"]["sha256"] == CONTRACT.published_digest
    assert body["served"]["sha256"] == CONTRACT.served_digest
    assert {one["state"] for one in body["operations"]} == {"implemented"}
    assert {key for key, one in by_path.items() if one["published"]} == {
        f"POST {path}" for path in CONTRACT.published["paths"]
    }
    assert "The page says both numbers are E.164." in reasons
    assert not any("tool" in reason and "note" in reason for reason in reasons)
