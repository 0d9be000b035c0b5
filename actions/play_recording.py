"""Listening to a recording: a link that expires, and the audio behind it while recordings are kept on disk.

A bucket serves its own links. For a folder the link leads back to us; what is signed is its path, so a link opens one
recording and nothing is looked up before its signature was believed.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from actions.audit_reading import note_reading
from actions.read_calls import existing
from actions.relay import Relay
from domain.audit import Actor, AuditAction
from domain.errors import NotFound, Unauthenticated
from domain.times import later
from persistence import audit, recordings
from persistence.models import Call, Recording
from providers.storage.disk import DiskStore

LINK_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Audio:
    """A recording that may be played: `size` in bytes, `tag` differs for different content."""

    organization_id: str
    key: str
    content_type: str
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class LinkedRecording:
    """The recording of a call, and the address of its audio, which works until `expires_at`."""

    call: Call
    recording: Recording
    url: str
    expires_at: str


async def link_recording(relay: Relay, organization_id: str, call_id: str, actor: Actor) -> LinkedRecording:
    """Return the call's recording, with a link that is good for LINK_SECONDS.

    Raises:
        NotFound: when the organization has no such call, or the call no recording.
    """

    def unit() -> tuple[Call, Recording]:
        call = existing(organization_id, call_id)
        recording = recordings.of_call(organization_id, call_id)
        if recording is None:
            raise NotFound("This call has no recording")
        audit.record(organization_id, AuditAction.RECORDING_LISTENED, actor, subject=recording.id)
        return call, recording

    call, recording = await relay.database.write(unit)
    expires_at = later(LINK_SECONDS)
    return LinkedRecording(call, recording, await _link(relay, recording), expires_at)


async def find_audio(relay: Relay, recording_id: str, expires: str, signature: str) -> Audio:
    """Return the recording a link leads to.

    Raises:
        Unauthenticated: when we did not sign the link, or it has expired.
        NotFound: when the recording is gone.
    """
    store = relay.store
    if not isinstance(store, DiskStore) or not store.verify_link(_path(recording_id), expires, signature):
        raise Unauthenticated("This link is not valid or has expired")
    recording = await relay.database.read(lambda: recordings.get(recording_id))
    if recording is None:
        raise NotFound("Recording not found")
    try:
        size = await store.size(recording.key)
    except FileNotFoundError as error:
        raise NotFound("Recording not found") from error
    return Audio(recording.organization_id, recording.key, recording.content_type, size, recording.sha256)


async def note_playing(relay: Relay, audio: Audio, recording_id: str, actor: Actor) -> None:
    """Write down that the audio is fetched, if reading is audited: by whoever has the link, from where.

    Raises:
        Overloaded: if it cannot be written down.
    """
    await note_reading(relay, audio.organization_id, AuditAction.RECORDING_FETCHED, actor, subject=recording_id)


def play(relay: Relay, audio: Audio, start: int, end: int) -> AsyncGenerator[bytes, None]:
    """Yield the audio from `start` up to, not including, `end`, in small chunks."""
    return relay.store.read(audio.key, start, end)


async def _link(relay: Relay, recording: Recording) -> str:
    served_by_us = isinstance(relay.store, DiskStore)
    return await relay.store.link(_path(recording.id) if served_by_us else recording.key, LINK_SECONDS)


def _path(recording_id: str) -> str:
    return f"api/recordings/{recording_id}/audio"
