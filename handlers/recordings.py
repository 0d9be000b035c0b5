"""Handlers of the operations on recordings."""

from actions.relay import Relay
from openapi import exchange, operations


async def get_recordings_audio(
    request: exchange.Request[Relay], *, recording_id: str, expires: str, signature: str, range_: str | None
) -> operations.GetRecordingsAudioAnswer:
    """Download a recording by its link."""
    del request, recording_id, expires, signature, range_
    raise exchange.NotWritten
