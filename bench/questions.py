"""What the servers are asked: requests prepared as bytes, each unlike the one before where that matters."""

import base64
import itertools
from collections.abc import Callable
from typing import Any

import orjson

CREATE_NOTE = "/api/webhook/elevenlabs/tools/create-note"
INGEST = "/api/calls/ingest"
CONTACT = "+14165550100"
OURS = "+12362320246"

# 128 kbit/s at 44.1 kHz: 417 bytes a frame; a zeroed frame decodes to silence.
_FRAME = b"\xff\xfb\x90\x64" + bytes(413)

_numbers = itertools.count(1)


def request(path: str, token: str, body: Any, method: str = "POST") -> bytes:
    """Return one HTTP/1.1 request as bytes."""
    content = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def note() -> dict[str, Any]:
    """A note nobody has sent before."""
    text = f"Caller {next(_numbers):08} asked about availability on Friday and wants to be called back."
    return {"phone_number": CONTACT, "note": text, "conversation_id": "conv_bench"}


def call() -> dict[str, Any]:
    """A finished call without a recording, which nobody has reported before."""
    return {
        "direction": "inbound",
        "fromNumber": CONTACT,
        "toNumber": OURS,
        "duration": 61.5,
        "status": "no-answer",
        "externalCallId": f"bench-{next(_numbers):010}",
        "transcript": [
            {"role": "agent", "message": "Good morning, how can I help you?", "timestamp": 0.4},
            {"role": "user", "message": "I would like to know whether you are open on Friday.", "timestamp": 3.1},
            {"role": "agent", "message": "We are, from nine to five.", "timestamp": 6.9},
        ],
        "summary": "The caller asked for the opening hours.",
        "agentName": "Front desk",
        "callStartTime": "2026-05-15T09:10:00.000Z",
        "metadata": {"campaign": "spring", "attempt": 1},
    }


def audio(size: int) -> bytes:
    """Silence, about `size` bytes of it."""
    return _FRAME * (size // len(_FRAME))


def recorded_call(recording: str) -> dict[str, Any]:
    """A finished call with a recording."""
    return call() | {"status": "completed", "recording": recording}


def fresh(path: str, token: str, make: Callable[[], dict[str, Any]]) -> Callable[[], bytes]:
    """Return what makes a new request each time it is called."""
    return lambda: request(path, token, make())


def with_recording(token: str, size: int) -> Callable[[], bytes]:
    """The same for a call with `size` bytes of audio; the audio is encoded once."""
    encoded = base64.b64encode(audio(size)).decode()
    body = orjson.dumps(recorded_call(encoded) | {"externalCallId": "@@"})
    before, after = body.split(b"@@")
    return lambda: request(INGEST, token, b"%sbench-%010d%s" % (before, next(_numbers), after))
