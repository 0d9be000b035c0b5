"""Storing a recording that comes on its own, before or after the call it belongs to.

When the call is there, the recording is attached to it; else the audio is held, and the call takes it over when it is
recorded. Either way listeners hear of it once. A call has one recording: what comes again is let go.
"""

import asyncio
from collections.abc import AsyncIterable
from dataclasses import asdict

from actions.announcements import recording_ready
from actions.quotas import insist_on_room, insist_within
from actions.relay import Relay
from actions.stored_audio import MP3, StoredAudio, discard, keep, recording_key
from domain.errors import CommitUnknown
from domain.identifiers import new_id
from persistence import calls, held_recordings, outbox, recordings
from persistence.models import Call, HeldRecording


async def attach_recording(
    relay: Relay, organization_id: str, conversation_id: str, audio: AsyncIterable[bytes]
) -> str | None:
    """Store the MP3 of a conversation of the voice agent; return its call's id, or None while there is no call.

    Raises:
        StorageUnavailable: when it cannot be stored.
        QuotaExceeded: when the organization's recordings are as large as they may be.
    """
    async with relay.turns.of(("audio", organization_id, conversation_id)):
        call, is_wanted = await relay.database.read(lambda: _state(organization_id, conversation_id))
        if not is_wanted:
            return call.id if call else None
        call_id = call.id if call else new_id()
        key = recording_key(organization_id, call_id, new_id() if call else "recording")
        with relay.quotas.noted(organization_id):
            limit = await insist_on_room(relay, organization_id)
            stored = await keep(relay, key, audio, MP3)
            # Once audio is stored the rest must run to its end, or the object would be left without its call.
            return await asyncio.shield(_commit(relay, organization_id, conversation_id, call_id, stored, limit))


async def let_go(relay: Relay, held: HeldRecording) -> None:
    """Remove audio whose call never came.

    Raises:
        StorageUnavailable: when it cannot be removed; an erasure, `retention` and `sweep` find it again.
    """
    organization_id, held_id = held.organization_id, held.id

    # A call that comes just now must not take over audio that is gone.
    if await relay.database.write(lambda: held_recordings.give_up(organization_id, held_id), of=organization_id):
        await relay.store.remove(held.key)
        await relay.database.write(lambda: held_recordings.remove(organization_id, held_id), of=organization_id)


def _state(organization_id: str, conversation_id: str) -> tuple[Call | None, bool]:
    """Return the call of the conversation, and whether a recording of it is to be stored.

    It is not if the call has one, its contact was erased, or retention removed the recording.
    """
    call = calls.by_conversation(organization_id, conversation_id)
    if call is None:
        return None, held_recordings.in_conversation(organization_id, conversation_id) is None
    is_gone = call.contact_id is None or call.recording_removed_at is not None
    return call, not is_gone and recordings.of_call(organization_id, call.id) is None


async def _commit(
    relay: Relay, organization_id: str, conversation_id: str, call_id: str, stored: StoredAudio, limit: int
) -> str | None:
    def unit() -> tuple[str | None, bool]:
        call, is_wanted = _state(organization_id, conversation_id)
        if is_wanted:
            _write(organization_id, conversation_id, call, call_id, stored)
            insist_within(organization_id, limit)
        return call.id if call else None, is_wanted

    try:
        known_id, is_kept = await relay.database.write(unit, of=organization_id)
    except CommitUnknown:
        raise
    except Exception:
        await discard(relay, stored)
        raise
    if not is_kept:
        await discard(relay, stored)
    return known_id


def _write(organization_id: str, conversation_id: str, call: Call | None, call_id: str, stored: StoredAudio) -> None:
    if call is None:
        held_recordings.add(organization_id, conversation_id, call_id=call_id, **asdict(stored))
        return
    recordings.add(organization_id, call.id, **asdict(stored))
    outbox.append(organization_id, [recording_ready(call, stored)])
