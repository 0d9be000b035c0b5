"""How long an organization keeps what, and the rows that are older than that, a bounded number at a time.

Age counts from when something was stored here, so that importing old calls does not empty them at once.
"""

from dataclasses import asdict, dataclass
from typing import Any

from peewee import Expression, fn

from persistence import outbox
from persistence.models import Call, Event, HeldRecording, Organization, Recording, ToolInvocation


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days each is kept; None keeps it for good, or events as long as everybody's."""

    recordings: int | None = None
    transcripts: int | None = None
    events: int | None = None


def get(organization_id: str) -> Retention:
    """Return the organization's retention."""
    found = Organization.get_by_id(organization_id)
    return Retention(found.recording_retention_days, found.transcript_retention_days, found.event_retention_days)


def put(organization_id: str, retention: Retention) -> None:
    """Replace the organization's retention."""
    given = asdict(retention)
    columns = {f"{name.removesuffix('s')}_retention_days": days for name, days in given.items()}
    Organization.update(columns).where(Organization.id == organization_id).execute()


# Recordings. Their objects go before their rows.


def count_recordings(organization_id: str, before: str) -> int:
    """Return how many recordings were stored before that moment."""
    return _count(Recording, _old(Recording, organization_id, before))


def old_recordings(organization_id: str, before: str, limit: int) -> list[Recording]:
    """Return at most `limit` recordings that were stored before that moment."""
    query = Recording.select().where(_old(Recording, organization_id, before))
    return list(query.order_by(Recording.created_at).limit(limit))


# Recordings that wait for their call.


def count_held(organization_id: str, before: str) -> int:
    """Return how many recordings have waited for their call since before that moment."""
    return _count(HeldRecording, _old(HeldRecording, organization_id, before))


def old_held(organization_id: str, before: str, limit: int) -> list[HeldRecording]:
    """Return at most `limit` recordings that have waited for their call since before that moment."""
    query = HeldRecording.select().where(_old(HeldRecording, organization_id, before))
    return list(query.order_by(HeldRecording.created_at).limit(limit))


# Transcripts. Summary and figures of the call stay.


def count_transcripts(organization_id: str, before: str) -> int:
    """Return how many calls that were stored before that moment have a transcript."""
    return _count(Call, _old(Call, organization_id, before) & Call.transcript.is_null(False))


def clear_transcripts(organization_id: str, before: str, limit: int) -> int:
    """Clear at most `limit` transcripts of calls stored before that moment; return how many were."""
    old = Call.select(Call.id).where(_old(Call, organization_id, before), Call.transcript.is_null(False))
    chosen = Call.id.in_(old.order_by(Call.created_at).limit(limit))
    return int(Call.update(transcript=None).where(chosen).execute())


# Events. Only ever the oldest, so that no hole comes into the sequence, and never the newest.


def count_events(organization_id: str, before: str) -> int:
    """Return how many events stand before the first that is not older than that moment and before the newest."""
    of_this = Event.organization == organization_id
    newest = Organization.select(Organization.event_sequence).where(Organization.id == organization_id).scalar() or 0
    young = Event.select(fn.MIN(Event.sequence)).where(of_this, Event.at >= before).scalar()
    return _count(Event, of_this & (Event.sequence < (newest if young is None else min(young, newest))))


def prune_events(organization_id: str, before: str, limit: int) -> int:
    """Delete at most `limit` events from the beginning of the log, up to the first that is not older than `before`."""
    return outbox.prune_one(organization_id, before, limit)


# Tool calls, by which repeats are recognised. What came of them stays.


def count_invocations(organization_id: str, before: str) -> int:
    """Return how many tool calls made before that moment are still remembered."""
    return _count(ToolInvocation, _invoked(organization_id, before))


def forget_invocations(organization_id: str, before: str, limit: int) -> int:
    """Forget at most `limit` tool calls made before that moment; return how many were."""
    old = ToolInvocation.select(ToolInvocation.id).where(_invoked(organization_id, before)).limit(limit)
    return int(ToolInvocation.delete().where(ToolInvocation.id.in_(old)).execute())


def _invoked(organization_id: str, before: str) -> Expression:
    return (ToolInvocation.organization == organization_id) & (ToolInvocation.invoked_at < before)


def _old(model: Any, organization_id: str, before: str) -> Expression:
    return (model.organization == organization_id) & (model.created_at < before)


def _count(model: Any, chosen: Any) -> int:
    return int(model.select(fn.COUNT(1)).where(chosen).scalar())
