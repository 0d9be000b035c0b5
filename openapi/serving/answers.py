"""One answer, ready to send, and how it is sent."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

Scope = Any
Send = Any

ANSWERING = "relay_answering"
"""Where the scope says that an answer has begun, so that no second one can be sent."""


class Answer(NamedTuple):
    """One answer, ready to send; `media_type` is None when there is no body, `streamed` comes in place of `body`."""

    status: int
    body: bytes
    media_type: str | None = "application/json"
    headers: Mapping[str, str] = MappingProxyType({})
    streamed: AsyncGenerator[bytes, None] | None = None


async def send_answer(answer: Answer, scope: Scope, send: Send) -> None:
    """Send `answer`; a HEAD request gets its headers alone."""
    scope[ANSWERING] = True
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    if answer.media_type is not None:
        headers.append((b"content-type", answer.media_type.encode("latin-1")))
    if answer.status not in (204, 304) and answer.streamed is None:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.streamed is not None:
        async with contextlib.aclosing(answer.streamed) as chunks:
            await _send_chunks(chunks, scope, send)
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


async def _send_chunks(chunks: AsyncIterator[bytes], scope: Scope, send: Send) -> None:
    if scope["method"] != "HEAD":
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
