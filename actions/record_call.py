"""Recording a finished call: contact, conversation, call, recording and events, all of them or nothing.

The recording is stored first, under a key of ours, and everything else is committed after it in one transaction; if
that fails, the object goes again. The outside's own id makes a call unique for as long as it exists: a repeat touches
nothing and is told whether it said the same thing.

Ingest and the post-call webhook both end here. What happened during the call is tied to it by the voice agent's own
conversation id: notes, texts, requests for a person, and a recording that came before the call did.

A report and a push of one conversation are one call, whichever comes first. A report finds the call that was pushed by
its conversation. A push finds the call that was reported and adds what the report lacked: its own id, the recording,
names, the transcript. It replaces nothing.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from actions.announcements import call_recorded, note_created, recording_ready
from actions.quotas import insist_on_room, insist_within
from actions.relay import Relay
from actions.stored_audio import StoredAudio, discard, keep_reported, recording_key
from domain.documents import canonical, dump, load
from domain.errors import CommitUnknown, InvalidRequest, Overloaded
from domain.events import Event
from domain.identifiers import new_id
from domain.large_texts import LargeText
from domain.phones import to_e164
from domain.texts import shown
from domain.times import from_wire, now, to_wire
from persistence import (
    calls,
    contact_notes,
    contacts,
    conversations,
    held_recordings,
    messages,
    outbox,
    recordings,
    transfer_requests,
)
from persistence.models import Call

R = TypeVar("R")

_WORTH_A_THREAD = 256 * 1024


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """A finished call as it was reported; `duration` in seconds, `started_at` in wire form, None for now.

    `payload` is what was sent, field by field; it decides whether a repeat says the same thing. `user_id` is whose API
    key pushed the call in. With `noted_by` the summary also becomes a note about the contact, written by that source.
    `is_heavy` says that going through the payload takes more than a few milliseconds.
    """

    direction: str
    from_number: str = field(repr=False)
    to_number: str = field(repr=False)
    duration: float
    status: str
    source: str = "ingest"
    transcript: list[dict[str, Any]] | None = field(default=None, repr=False)
    summary: str | None = field(default=None, repr=False)
    recording: str | LargeText | None = field(default=None, repr=False)
    external_call_id: str | None = None
    elevenlabs_conversation_id: str | None = None
    agent_name: str | None = None
    caller_name: str | None = field(default=None, repr=False)
    started_at: str | None = None
    provider_metadata: dict[str, Any] = field(default_factory=dict, repr=False)
    payload: dict[str, Any] = field(default_factory=dict, repr=False)
    user_id: str | None = None
    noted_by: str | None = None
    is_heavy: bool = False

    @property
    def noted(self) -> str:
        """What the note about the contact says, "" when there is to be none."""
        return shown((self.summary or "").strip()) or "" if self.noted_by else ""

    @property
    def goes_by_conversation(self) -> bool:
        """Whether the outside knows the call by nothing but the conversation of the voice agent."""
        return self.external_call_id is not None and self.external_call_id == self.elevenlabs_conversation_id

    @property
    def conversation_ids(self) -> list[str]:
        """The ids under which the voice agent may have spoken of the call, without repetition."""
        return list(dict.fromkeys(one for one in (self.elevenlabs_conversation_id, self.external_call_id) if one))


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """What became of a report: the call's ids, and for a repeat which fields said something else.

    A repeat of a call whose person was erased is known by its id and nothing else: it has no contact, and what was
    said is not compared.
    """

    call_id: str
    contact_id: str
    conversation_id: str
    is_repeat: bool = False
    is_erased: bool = False
    differing_fields: list[str] = field(default_factory=list)


async def record_call(relay: Relay, organization_id: str, finished: FinishedCall) -> RecordedCall:
    """Record the call once.

    Raises:
        InvalidRequest: when a number, the start or the duration makes no sense.
        RecordingRejected: when the recording cannot be fetched, decoded or recognised as audio.
        StorageUnavailable: when the recording cannot be stored.
        Overloaded: when too many recordings are being fetched.
        QuotaExceeded: when the organization's recordings are as large as they may be.
    """
    if not finished.conversation_ids:
        return await _record_new(relay, organization_id, finished)
    async with relay.turns.of((organization_id, finished.external_call_id or finished.elevenlabs_conversation_id)):
        known = await relay.database.read(lambda: _known(organization_id, finished))
        if known is None:
            return await _record_new(relay, organization_id, finished)
        return await _repeated(relay, organization_id, known, finished)


def _known(organization_id: str, finished: FinishedCall) -> Call | None:
    """Return the call that was recorded before under the same id, or of the same conversation from the other source."""
    external_id, conversation_id = finished.external_call_id, finished.elevenlabs_conversation_id
    # Without an id of its own a push goes by its conversation, as a report does.
    goes_by = external_id or conversation_id
    found = calls.by_external_id(organization_id, goes_by) if goes_by else None
    if found is not None or conversation_id is None:
        return found
    spoken = calls.by_elevenlabs_conversation(organization_id, conversation_id)
    is_same = spoken is not None and (finished.goes_by_conversation or _awaits(spoken, finished))
    return spoken if is_same else None


def _awaits(call: Call, finished: FinishedCall) -> bool:
    """Return whether `finished` is the first push about a call that was reported."""
    return finished.user_id is not None and call.user_id is None and call.source != finished.source


async def _record_new(relay: Relay, organization_id: str, finished: FinishedCall) -> RecordedCall:
    call_id = new_id()
    row = await _aside(relay, organization_id, finished, lambda: _row(call_id, finished))
    with relay.quotas.noted(organization_id):
        limit = await insist_on_room(relay, organization_id) if finished.recording is not None else 0
        key = recording_key(organization_id, call_id)
        stored = await keep_reported(relay, organization_id, key, finished.recording)
        # Once audio is stored the rest must run to its end, or the object would be left without its call.
        return await asyncio.shield(_commit(relay, organization_id, finished, row, stored, limit))


async def _commit(
    relay: Relay,
    organization_id: str,
    finished: FinishedCall,
    row: Call,
    stored: StoredAudio | None,
    limit: int,
) -> RecordedCall:
    def unit() -> tuple[RecordedCall, StoredAudio | None]:
        written = _write(organization_id, finished, row, stored)
        if stored is not None:
            insist_within(organization_id, limit)
        return written

    try:
        recorded, superfluous = await relay.database.write(unit, of=organization_id)
    except CommitUnknown:
        # The call may be there, so its recording stays. If it is not, `sweep` finds the object later.
        raise
    except _Taken:
        # Another process was faster with the same id; ours becomes the repeat.
        await discard(relay, stored)
        return await _repeated_elsewhere(relay, organization_id, finished)
    except Exception:
        await discard(relay, stored)
        raise
    await discard(relay, superfluous)
    return recorded


async def _repeated_elsewhere(relay: Relay, organization_id: str, finished: FinishedCall) -> RecordedCall:
    known = await relay.database.read(lambda: _known(organization_id, finished))
    if known is None:
        raise Overloaded("Another call of the same conversation was recorded meanwhile; report this one once more")
    return await _repeated(relay, organization_id, known, finished)


class _Taken(Exception):
    """Raised in a unit, which is then undone, if the call is known by now."""


def _row(call_id: str, finished: FinishedCall) -> Call:
    """Return what was reported as a row; its contact and its conversation are found when it is written."""
    started_at = finished.started_at or now()
    return Call(
        # Defaults hold from when it is written.
        __no_default__=True,
        id=call_id,
        user=finished.user_id,
        source=finished.source,
        external_call_id=finished.external_call_id,
        elevenlabs_conversation_id=finished.elevenlabs_conversation_id,
        direction=finished.direction,
        from_number=_number(finished.from_number, "fromNumber"),
        to_number=_number(finished.to_number, "toNumber"),
        status=finished.status,
        duration=finished.duration + 0.0,  # the engines keep -0.0 differently
        started_at=started_at,
        ended_at=_end(started_at, finished.duration),
        summary=finished.summary,
        transcript=None if finished.transcript is None else dump(finished.transcript).decode(),
        agent_name=finished.agent_name,
        caller_name=finished.caller_name,
        provider_metadata=dump(finished.provider_metadata).decode(),
        payload_digests=dump(_digests(finished)).decode(),
    )


def _number(text: str, name: str) -> str:
    try:
        return to_e164(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"Invalid field: {name} is not an E.164 phone number") from error


def _end(started_at: str, duration: float) -> str:
    try:
        return to_wire(from_wire(started_at) + timedelta(seconds=duration))
    except OverflowError as error:
        raise InvalidRequest("Invalid field: duration is out of range") from error


# Writing.


def _write(
    organization_id: str, finished: FinishedCall, row: Call, stored: StoredAudio | None
) -> tuple[RecordedCall, StoredAudio | None]:
    """Write everything; return what was recorded, and audio that is of no use now."""
    if finished.elevenlabs_conversation_id and _known(organization_id, finished) is not None:
        raise _Taken
    held_id, held = _held(organization_id, finished.conversation_ids)
    # Audio that waits was stored under the id its call is to have.
    call_id = held_id if held_id and stored is None else row.id
    inbound = finished.direction == "inbound"
    far, ours = (row.from_number, row.to_number) if inbound else (row.to_number, row.from_number)
    contact = contacts.upsert(organization_id, far, (finished.caller_name or "").strip() or None)
    conversation = conversations.find_or_create(organization_id, contact.id, "voice", ours)
    call = Call(**row.__data__ | {"id": call_id, "contact": contact.id, "conversation": conversation.id})
    if not calls.add(organization_id, call):
        # The contact and the conversation may be new, and must not stay without the call.
        raise _Taken
    audio = stored or held
    if audio is not None:
        recordings.add(organization_id, call_id, **asdict(audio))
    if held_id is not None:
        held_recordings.remove(organization_id, held_id)
    conversations.touch(conversation.id, row.ended_at)
    _join(organization_id, finished.conversation_ids, call_id, contact.id)
    transfer_requests.attach_by_time(organization_id, ours, call)
    outbox.append(organization_id, [*call_recorded(call, audio), *_noted(organization_id, finished, call)])
    return RecordedCall(call_id, contact.id, conversation.id), held if stored else None


def _held(organization_id: str, conversation_ids: list[str]) -> tuple[str | None, StoredAudio | None]:
    for conversation_id in conversation_ids:
        if held := held_recordings.in_conversation(organization_id, conversation_id):
            return held.id, StoredAudio(held.key, held.content_type, held.size, held.sha256)
    return None, None


def _join(organization_id: str, conversation_ids: list[str], call_id: str, contact_id: str) -> None:
    for conversation_id in conversation_ids:
        transfer_requests.attach_to_call(organization_id, conversation_id, call_id, contact_id)
        contact_notes.attach_to_call(organization_id, conversation_id, call_id)
        messages.attach_to_call(organization_id, conversation_id, call_id)


def _noted(organization_id: str, finished: FinishedCall, call: Call) -> list[Event]:
    contact_id = call.contact_id
    if not finished.noted or contact_id is None:
        return []
    note = contact_notes.add_from_tool(
        organization_id,
        contact_id,
        finished.noted,
        tool=finished.noted_by or "",
        elevenlabs_conversation_id=finished.elevenlabs_conversation_id,
        call_id=call.id,
    )
    return [note_created(note)]


async def _note_afterwards(relay: Relay, organization_id: str, finished: FinishedCall, known: Call) -> None:
    """Write the note to a call that was recorded without it, because it came in another way before."""

    def missing() -> Call | None:
        call = calls.get(organization_id, known.id)
        is_there = contact_notes.is_written(organization_id, known.id, finished.noted_by or "")
        return None if call is None or call.contact_id is None or is_there else call

    def unit() -> None:
        # The person may have been erased, or the note written, since it was found to be missing.
        if call := missing():
            outbox.append(organization_id, _noted(organization_id, finished, call))

    if finished.noted and (await relay.database.read(missing)) is not None:
        await relay.database.write(unit, of=organization_id)


# Repeats.


async def _repeated(relay: Relay, organization_id: str, known: Call, finished: FinishedCall) -> RecordedCall:
    await _note_afterwards(relay, organization_id, finished, known)
    if known.contact_id is None:
        return RecordedCall(known.id, "", "", is_repeat=True, is_erased=True)
    before, again = await _aside(
        relay, organization_id, finished, lambda: (load(known.payload_digests), _digests(finished))
    )
    if _awaits(known, finished):
        before = _compared(before, again)
        if not await _add_push(relay, organization_id, known, finished, dump(before).decode()):
            return await _repeated_elsewhere(relay, organization_id, finished)
    differing = sorted(name for name in before.keys() | again.keys() if before.get(name) != again.get(name))
    return RecordedCall(
        known.id, known.contact_id, known.conversation_id or "", is_repeat=True, differing_fields=differing
    )


# A push about a call that was reported.


def _compared(reported: dict[str, str], pushed: dict[str, str]) -> dict[str, str]:
    """Return the digests a push is compared with: what was reported, where both speak of the same thing.

    The report has an id and metadata of its own, so a push that brings others does not contradict it.
    """
    return {name: pushed[name] if name in _OWN_TO_EACH else reported.get(name, pushed[name]) for name in pushed}


_OWN_TO_EACH = ("externalCallId", "metadata")


async def _add_push(relay: Relay, organization_id: str, known: Call, finished: FinishedCall, digests: str) -> bool:
    """Add what the push brings and the reported call lacks; listeners hear of a recording.

    Returns:
        whether it was added, which it is not if another push was, or the person was erased, since `known` was read.
    """
    added = await _aside(
        relay, organization_id, finished, lambda: _added(known, finished) | {"payload_digests": digests}
    )
    lacks = await relay.database.read(lambda: _lacks_recording(organization_id, known))
    with relay.quotas.noted(organization_id):
        limit = await insist_on_room(relay, organization_id) if lacks and finished.recording is not None else 0
        # Another push may be stored at the same time, so each has a key of its own.
        key = recording_key(organization_id, known.id, new_id())
        stored = await keep_reported(relay, organization_id, key, finished.recording) if lacks else None
        return await asyncio.shield(_commit_push(relay, organization_id, finished, (known.id, added), stored, limit))


async def _commit_push(
    relay: Relay,
    organization_id: str,
    finished: FinishedCall,
    change: tuple[str, dict[str, str | None]],
    stored: StoredAudio | None,
    limit: int,
) -> bool:
    call_id, added = change

    def unit() -> tuple[bool, bool]:
        call = calls.get(organization_id, call_id)
        if call is None or call.contact_id is None or not _awaits(call, finished):
            return False, False
        calls.change(organization_id, call.id, added)
        if name := (finished.caller_name or "").strip():
            contacts.name_if_unknown(organization_id, call.contact_id, name)
        _join(organization_id, finished.conversation_ids, call.id, call.contact_id)
        if stored is None or not _lacks_recording(organization_id, call):
            return True, False
        recordings.add(organization_id, call.id, **asdict(stored))
        insist_within(organization_id, limit)
        outbox.append(organization_id, [recording_ready(call, stored)])
        return True, True

    try:
        is_added, is_used = await relay.database.write(unit, of=organization_id)
    except CommitUnknown:
        raise
    except Exception:
        await discard(relay, stored)
        raise
    if not is_used:
        await discard(relay, stored)
    return is_added


def _lacks_recording(organization_id: str, call: Call) -> bool:
    return call.recording_removed_at is None and recordings.of_call(organization_id, call.id) is None


def _added(call: Call, finished: FinishedCall) -> dict[str, str | None]:
    """Return the columns that a push adds to a reported call."""
    transcript = None if finished.transcript is None else dump(finished.transcript).decode()
    lacking = {
        "summary": finished.summary,
        "transcript": transcript,
        "agent_name": finished.agent_name,
        "caller_name": finished.caller_name,
    }
    added = {name: value for name, value in lacking.items() if getattr(call, name) is None}
    kept = load(call.provider_metadata)
    if "metadata" in finished.provider_metadata and "metadata" in kept:
        kept["reported"] = kept.pop("metadata")
    metadata = dump(kept | finished.provider_metadata).decode()
    return added | {
        "external_call_id": finished.external_call_id or call.external_call_id,
        "user": finished.user_id,
        "provider_metadata": metadata,
    }


def _digests(finished: FinishedCall) -> dict[str, str]:
    said = finished.payload | _numbers(finished.payload)
    return {name: _digest(value) for name, value in said.items()}


def _numbers(payload: dict[str, Any]) -> dict[str, Any]:
    # The same number or duration, spelled otherwise, is no difference.
    numbers = {name: _number(payload[name], name) for name in ("fromNumber", "toNumber") if name in payload}
    return numbers | {name: payload[name] + 0.0 for name in ("duration",) if name in payload}


def _digest(value: Any) -> str:
    if isinstance(value, LargeText):
        return value.sha256()[:32]
    return hashlib.sha256(value.encode() if isinstance(value, str) else canonical(value)).hexdigest()[:32]


async def _aside(relay: Relay, organization_id: str, finished: FinishedCall, work: Callable[[], R]) -> R:
    # Megabytes of base64 would hold up every other caller; a few kilobytes are done before a thread could start.
    if finished.is_heavy:
        return await relay.heavy_work.run(organization_id, work)
    if len(finished.recording or "") > _WORTH_A_THREAD:
        return await asyncio.to_thread(work)
    return work()
