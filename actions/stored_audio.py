"""The audio of calls on its way into the recording store: under which key it is kept, and how it gets there."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

import structlog

from actions.relay import Relay
from domain.errors import RelayError
from domain.large_texts import LargeText
from domain.recordings import RecordingForm, classify, decode, decode_pieces

MP3 = "audio/mpeg"

_CHUNK = 256 * 1024

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoredAudio:
    """Audio in the store; `size` in bytes."""

    key: str
    content_type: str
    size: int
    sha256: str


def recording_key(organization_id: str, call_id: str, name: str = "recording") -> str:
    """Return where the audio of a call is stored."""
    return f"org/{organization_id}/calls/{call_id}/{name}.mp3"


async def keep_reported(
    relay: Relay, organization_id: str, key: str, recording: str | LargeText | None
) -> StoredAudio | None:
    """Store the recording of a reported call: base64, a data URL, or a link it is downloaded from.

    Raises:
        RecordingRejected: when the recording cannot be fetched, decoded or recognised as audio.
        StorageUnavailable: when it cannot be stored.
        Overloaded: when too many recordings are being fetched.
    """
    if recording is None:
        return None
    if isinstance(recording, LargeText):
        return await keep(relay, key, _decoded(recording, relay.rules.max_recording_bytes), MP3)
    if classify(recording) is RecordingForm.LINK:
        async with relay.downloads.of(organization_id):
            return await _keep_downloaded(relay, key, recording)
    audio = decode(recording, relay.rules.max_recording_bytes)
    return await keep(relay, key, _pieces(audio), MP3)


async def keep(relay: Relay, key: str, chunks: AsyncIterable[bytes], content_type: str) -> StoredAudio:
    """Store audio under a key nobody has used."""
    stored = await relay.store.store(key, chunks, content_type)
    return StoredAudio(stored.key, content_type, stored.size, stored.sha256)


async def discard(relay: Relay, stored: StoredAudio | None) -> None:
    """Remove audio that nothing refers to; what stays behind is found by the sweep."""
    if stored is None:
        return
    try:
        await relay.store.remove(stored.key)
    except RelayError as error:
        log.warning("recording.orphaned", key=stored.key, reason=str(error))


async def _keep_downloaded(relay: Relay, key: str, url: str) -> StoredAudio:
    async with relay.downloader.open(url) as download:
        return await keep(relay, key, download.chunks(), download.content_type)


async def _decoded(text: LargeText, max_bytes: int) -> AsyncIterator[bytes]:
    # A piece is decoded in a tenth of the time a thread would need to begin; enough of them are worth one to the store.
    audio: list[bytes] = []
    for piece in decode_pieces(text.drain(), max_bytes):
        audio.append(piece)
        if sum(map(len, audio)) >= _CHUNK // 2:
            yield b"".join(audio)
            audio.clear()
    yield b"".join(audio)


async def _pieces(audio: bytes) -> AsyncIterator[bytes]:
    view = memoryview(audio)
    for start in range(0, len(view), _CHUNK):
        yield bytes(view[start : start + _CHUNK])
