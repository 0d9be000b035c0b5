"""Recordings: the audio behind a signed link, whole or in part."""

from typing import TypeVar

from actions.play_recording import Audio, find_audio, note_playing, play
from actions.relay import Relay
from domain.byte_ranges import Unsatisfiable, requested
from handlers.acting import actor_of
from openapi import models
from openapi.exchange import Request
from openapi.operations import (
    GetRecordingsAudio200,
    GetRecordingsAudio206,
    GetRecordingsAudio416,
    GetRecordingsAudioAnswer,
)

Whole = TypeVar("Whole", GetRecordingsAudio200, GetRecordingsAudio206)


async def get_recordings_audio(
    request: Request[Relay], *, recording_id: str, expires: str, signature: str, range_: str | None
) -> GetRecordingsAudioAnswer:
    """Send the audio, or the part of it that was asked for."""
    audio = await find_audio(request.relay, recording_id, expires, signature)
    try:
        part = requested(_applicable(request, range_, audio), audio.size)
    except Unsatisfiable:
        return _outside(audio)
    await note_playing(request.relay, audio, recording_id, actor_of(request))
    if part is None:
        return _answer(GetRecordingsAudio200, request, audio, 0, audio.size, {})
    start, end = part
    bounds = {"Content-Range": f"bytes {start}-{end - 1}/{audio.size}"}
    return _answer(GetRecordingsAudio206, request, audio, start, end, bounds)


def _answer(
    kind: type[Whole], request: Request[Relay], audio: Audio, start: int, end: int, headers: dict[str, str]
) -> Whole:
    return kind(
        b"",
        headers={
            "Content-Type": audio.content_type,
            "Content-Length": str(end - start),
            "Accept-Ranges": "bytes",
            "ETag": f'"{audio.tag}"',
            # What was erased here must not live on in a cache, and what a caller sent must not pass for a page.
            "Cache-Control": "private, no-store",
            "X-Content-Type-Options": "nosniff",
            **headers,
        },
        streamed=play(request.relay, audio, start, end),
    )


def _applicable(request: Request[Relay], range_: str | None, audio: Audio) -> str | None:
    # A range of what has changed since is of no use: If-Range asks for the whole then (RFC 9110, 13.1.5).
    condition = request.headers.get("If-Range")
    return range_ if condition is None or condition.strip() == f'"{audio.tag}"' else None


def _outside(audio: Audio) -> GetRecordingsAudio416:
    body = models.CallsErrorResponse(success=False, error="The range lies outside the audio")
    return GetRecordingsAudio416(body, headers={"Content-Range": f"bytes */{audio.size}"})
