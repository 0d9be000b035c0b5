"""Forgetting in time: what an organization no longer wants to keep goes, in bounded batches.

It can be killed anywhere and run again. A recording's object goes before its row, as in an erasure; erasures that were
interrupted are finished on the way. Two things go without being asked for: a recording whose call never came, because
nobody could find or erase it, and the memory of tool calls too old to be repeated.
"""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from functools import partial

from actions.attach_recording import let_go
from actions.erase_contact import finish_erasure, remove_left_recordings
from actions.relay import Relay
from domain.audit import COMMAND_LINE, AuditAction
from domain.errors import InvalidRequest
from domain.replay import MAX_REPLAY_SECONDS
from domain.times import later
from persistence import audit, erasure, organizations, recordings, retention
from persistence.retention import Retention

_ROWS = 500
_DAY = 86_400
MAX_DAYS = 36_500
_WAITING_DAYS = 30
_REPEATABLE_DAYS = MAX_REPLAY_SECONDS // _DAY


@dataclass(frozen=True, slots=True)
class Due:
    """What of one organization is past its time, and the erasures that are not over.

    `requests` are transfer requests without a contact, which go with the transcripts. `left` counts recordings that an
    erasure of an earlier version did not find.
    """

    organization_id: str
    name: str
    retention: Retention
    recordings: int = 0
    transcripts: int = 0
    requests: int = 0
    events: int = 0
    tool_calls: int = 0
    erasures: int = 0
    left: int = 0

    @property
    def total(self) -> int:
        """All of it together."""
        return (
            self.recordings
            + self.transcripts
            + self.requests
            + self.events
            + self.tool_calls
            + self.erasures
            + self.left
        )


async def read_retention(relay: Relay, organization_id: str) -> Retention:
    """Return for how many days the organization keeps what."""
    return await relay.database.read(lambda: retention.get(organization_id))


async def set_retention(relay: Relay, organization_id: str, chosen: Retention) -> None:
    """Replace for how many days the organization keeps what.

    Raises:
        InvalidRequest: when a number of days makes no sense.
    """
    for days in (chosen.recordings, chosen.transcripts, chosen.events):
        if days is not None and not 1 <= days <= MAX_DAYS:
            raise InvalidRequest(f"Days go from 1 to {MAX_DAYS}")

    def unit() -> None:
        retention.put(organization_id, chosen)
        audit.record(organization_id, AuditAction.RETENTION_CHANGED, COMMAND_LINE, details=asdict(chosen))

    await relay.database.write(unit)


async def due(relay: Relay) -> list[Due]:
    """Return what is past its time, organization by organization; nothing is changed."""

    def unit() -> list[Due]:
        return [_due(one.id, one.name) for one in organizations.everyone()]

    return await relay.database.read(unit)


async def apply_retention(relay: Relay, found: Due) -> AsyncIterator[int]:
    """Remove what is past its time; yield how many went, batch by batch."""
    organization_id, kept = found.organization_id, found.retention
    async for count in _remove_recordings(relay, organization_id, _before(kept.recordings)):
        yield count
    async for count in _remove_held(relay, organization_id, _waiting_before(kept)):
        yield count
    for days, remove in (
        (kept.transcripts, retention.clear_transcripts),
        (kept.transcripts, erasure.erase_old_requests),
        (kept.events, retention.prune_events),
        (_REPEATABLE_DAYS, retention.forget_invocations),
    ):
        if before := _before(days):
            unit = partial(remove, organization_id, before, _ROWS)
            while count := await relay.database.write(unit, of=organization_id):
                yield count
    for contact_id in await relay.database.read(lambda: erasure.under_way(organization_id)):
        await finish_erasure(relay, organization_id, contact_id)
        yield 1
    async for count in remove_left_recordings(relay, organization_id):
        yield count
    await relay.database.scrub()


def _due(organization_id: str, name: str) -> Due:
    kept = retention.get(organization_id)
    recordings, transcripts, events = _before(kept.recordings), _before(kept.transcripts), _before(kept.events)
    return Due(
        organization_id,
        name,
        kept,
        recordings=(retention.count_recordings(organization_id, recordings) if recordings else 0)
        + retention.count_held(organization_id, _waiting_before(kept)),
        transcripts=retention.count_transcripts(organization_id, transcripts) if transcripts else 0,
        requests=erasure.count_old_requests(organization_id, transcripts) if transcripts else 0,
        events=retention.count_events(organization_id, events) if events else 0,
        tool_calls=retention.count_invocations(organization_id, _before(_REPEATABLE_DAYS) or ""),
        erasures=len(erasure.under_way(organization_id)),
        left=erasure.count_left(organization_id),
    )


def _before(days: int | None) -> str | None:
    return None if days is None else later(-days * _DAY)


def _waiting_before(kept: Retention) -> str:
    return later(-min(kept.recordings or _WAITING_DAYS, _WAITING_DAYS) * _DAY)


async def _remove_recordings(relay: Relay, organization_id: str, before: str | None) -> AsyncIterator[int]:
    while before:
        found = await relay.database.read(partial(retention.old_recordings, organization_id, before, _ROWS))
        if not found:
            return
        for recording in found:
            await relay.store.remove(recording.key)
        ids = [recording.id for recording in found]
        await relay.database.write(partial(recordings.remove, organization_id, ids), of=organization_id)
        yield len(found)


async def _remove_held(relay: Relay, organization_id: str, before: str) -> AsyncIterator[int]:
    while found := await relay.database.read(partial(retention.old_held, organization_id, before, _ROWS)):
        for held in found:
            await let_go(relay, held)
        yield len(found)
