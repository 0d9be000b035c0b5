"""The served document, as tests walk it: every operation, whose token it wants, a request that is good."""

import re
from typing import Any

from openapi_schema_validator import OAS30Validator

from domain.principals import TokenKind
from openapi import document
from openapi.document import Operation
from tests.support.samples import sample
from tests.support.wire import Answer

CONTRACT = document.load()

_SCHEMES = CONTRACT.served["components"]["securitySchemes"]
_GOOD: dict[str, dict[str, Any]] = {
    "POST /api/calls/ingest": {
        "direction": "inbound",
        "fromNumber": "+14165550100",
        "toNumber": "+12362320246",
        "duration": 0,
        "status": "busy",
        "externalCallId": "good-1",
    },
    # Its example makes a new tool secret, which would end the one that the tests have.
    "POST /api/calls/voice-ai/config": {},
    "POST /api/webhook/elevenlabs/tools/create-note": {"phone_number": "+14165550100", "note": "good"},
    "POST /api/webhook/elevenlabs/tools/send-sms": {"phone_number": "+14165550100", "message": "good"},
    "POST /api/webhook/elevenlabs/tools/transfer": {"reason": "good"},
    "POST /api/webhook/elevenlabs/tools/check-availability": {"conversation_id": "conv_good"},
    "POST /api/webhook/elevenlabs/tools/check-business-hours": {"conversation_id": "conv_good"},
    "POST /api/webhook/elevenlabs/tools/update-contact": {"phone_number": "+14165550100", "last_name": "Good"},
    "POST /api/webhook/elevenlabs/personalization": {"conversation_id": "conv_good"},
}


def kinds_of(operation: Operation) -> set[TokenKind]:
    """Return the kinds of bearer token the document accepts; none for an operation that wants a signature instead."""
    schemes = [_SCHEMES[name] for requirement in operation.security for name in requirement]
    formats = {scheme["bearerFormat"] for scheme in schemes if scheme["type"] == "http"}
    return {TokenKind(kind) for kind in (operation.token_kinds or formats)} if formats else set()


def target_of(operation: Operation) -> str:
    """Return the operation's path with something in the place of its parameters."""
    return re.sub(r"\{[^{}]*\}", "0" * 24, operation.path)


# The published operations: what a test sends them is known to be accepted. One that reads its body itself has tests of
# its own.
PUBLISHED = [
    one
    for one in CONTRACT.operations
    if one.path in CONTRACT.published["paths"] and one.body and not one.definition.get("x-raw-body")
]


def good_body(operation: Operation) -> dict[str, Any]:
    """Return a body that is accepted; an operation nobody thought of gets what its schema says."""
    if operation.key not in _GOOD and operation.body_schema is not None:
        return dict(sample(CONTRACT.served, operation.body_schema))
    return dict(_GOOD.get(operation.key, {}))


def assert_documented(answer: Answer, operation: Operation) -> Any:
    """Hold an answer against what the document says of its status, with a validator of its own; return its body."""
    assert str(answer.status) in operation.responses, answer
    described = operation.responses[str(answer.status)]["content"]["application/json"]
    body = answer.json()
    assert answer.header("Content-Type") == "application/json"
    OAS30Validator({**described["schema"], "components": CONTRACT.served["components"]}).validate(body)
    return body
