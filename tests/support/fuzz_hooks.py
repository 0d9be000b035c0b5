"""What Schemathesis does besides: it gets past the front desk, asks a second opinion, and counts what it reached."""

import json
import os
import zlib
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import schemathesis
from schemathesis import GenerationMode

from tests.support import second_opinion
from tests.support.fuzz_data import POST_CALL, SMS_STATUS, TOKENS, Known, known_body, known_parameters, meant

_TALLY = "FUZZ_TALLY"
_RANGES = ("all of it", "bytes=0-9", "bytes=99999999-")


@lru_cache(maxsize=1)
def _known() -> Known | None:
    text = os.environ.get("FUZZ_KNOWN", "")
    return Known.loads(text) if text else None


def _asks_for_token(context: Any) -> bool:
    return any("bearerAuth" in one for one in context.operation.definition.raw.get("security", []))


@schemathesis.auth(refresh_interval=None, retry_on=[]).apply_to(_asks_for_token)
class Tokens:
    """A token of a kind the operation takes; the scheme is the same for all of them."""

    def get(self, case: Any, context: Any) -> str:
        """Return the token of the environment."""
        del context
        return os.environ[TOKENS[case.operation.definition.raw.get("x-token-kinds", ["JWT"])[0]]]

    def set(self, case: Any, data: str, context: Any) -> None:
        """Send it along."""
        del context
        case.headers = dict(case.headers or {}) | {"Authorization": f"Bearer {data}"}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Give every other good request what random data never hits on."""
    del context
    if isinstance(case.body, dict) and case.body.get("generateToolSecret") is True:
        # A third secret would end the first one's grace, and with it the run of the tools.
        case.body = case.body | {"generateToolSecret": False}
    known = _known()
    if known is None or not _is_good(case):
        return
    chance = _chance(case)
    # Of links, a random one is never more than a wrong one.
    if chance % 2 or case.operation.path.endswith("/audio"):
        _fill(case, known.sparing() if case.method.upper() == "DELETE" else known, chance >> 1)
        _sign(case, known, kwargs)


_turns: Counter[str] = Counter()


def _chance(case: Any) -> int:
    # What is written down in the document takes turns; what is random must fare alike when it is tried again.
    if case.meta is not None and case.meta.phase.name.value == "fuzzing":
        return zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode())
    _turns[case.operation.label] += 1
    return _turns[case.operation.label]


def _is_good(case: Any) -> bool:
    # What follows a link has its ids from there.
    return case.meta is None or (
        case.meta.generation.mode is GenerationMode.POSITIVE and case.meta.phase.name.value != "stateful"
    )


def _fill(case: Any, known: Known, chance: int) -> None:
    if case.path_parameters:
        path = case.operation.path
        case.path_parameters = {
            name: known.path.get(meant(path, name), old) for name, old in case.path_parameters.items()
        }
    if case.query:
        kept = {name: value for name, value in case.query.items() if name != "cursor" or chance % 4 == 3}
        case.query = known_parameters(known, case.operation.path, kept)
    if case.operation.path.endswith("/audio"):
        case.headers = dict(case.headers or {}) | {"Range": _RANGES[chance % 3]}
    case.body = known_body(known, case.body)


def _sign(case: Any, known: Known, kwargs: dict[str, Any]) -> None:
    path = case.operation.path
    if not isinstance(case.body, dict) or path not in (POST_CALL, SMS_STATUS):
        return
    is_form = case.media_type == "application/x-www-form-urlencoded"
    body = urlencode(case.body, doseq=True).encode() if is_form else json.dumps(case.body).encode()
    if is_form or path == POST_CALL:
        kwargs["data"] = body
        case.headers = dict(case.headers or {}) | known.signature(path, body)


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
