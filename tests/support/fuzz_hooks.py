"""What Schemathesis does besides: it gets past the front desk, asks a second opinion, and counts what it reached."""

import json
import os
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import schemathesis

from tests.support import second_opinion
from tests.support.audio import mp3_base64

_TALLY = "FUZZ_TALLY"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Give every other request what random data never hits on: a contact that exists, a recording that is one."""
    del context, kwargs
    if not isinstance(case.body, dict):
        return
    if case.body.get("generateToolSecret") is True:
        # A third secret would end the first one's grace, and with it the run of the tools.
        case.body = case.body | {"generateToolSecret": False}
    if zlib.crc32(repr(case.body).encode()) % 2:
        known = {"phone_number": os.environ.get("FUZZ_PHONE", ""), "recording": mp3_base64(2)}
        case.body = {name: known.get(name, old) if isinstance(old, str) else old for name, old in case.body.items()}


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count the status, and hear the second opinion; a disagreement fails the case."""
    del context
    with Path(os.environ[_TALLY]).open("a") as tally:
        tally.write(json.dumps([case.operation.method.upper(), case.operation.path, response.status_code]) + "\n")
    sent = response.request
    parts = urlsplit(sent.url)
    body = sent.body if isinstance(sent.body, bytes) else (sent.body or "").encode()
    second_opinion.insist(
        sent.method,
        f"{parts.path}?{parts.query}" if parts.query else parts.path,
        {name.lower(): _text(value) for name, value in sent.headers.items()},
        body,
        response.status_code,
        {name.lower(): ", ".join(values) for name, values in response.headers.items()},
        response.content,
    )


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
