"""The outbox: every event is written in the transaction that caused it, under a sequence of its organization.

The guarantee: within an organization sequences start at 1, have no gaps, and ascend in commit order. It rests on one
thing: the sequence is taken by updating the organization's row, whose lock is held until commit, so no other
transaction can take the next one before this one is visible. Taking sequences any other way (a separate counter,
MAX + 1 without the lock) would break it.

Order *across* organizations is not promised. `following` reads what was committed after a position in the log. On
SQLite, with its single writer, row ids are the order of commits. On PostgreSQL they are not: they become visible out of
order, and `id > last` would miss events, so there a position is one sequence per organization.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from peewee import fn

from domain.documents import dump
from domain.events import Event, StoredEvent
from domain.times import now
from persistence import models
from persistence.statements import Given, Insertion, Statement
from persistence.units import announce, ids_follow_commits

_EVENT = Insertion(models.Event)

Cursor = int | Mapping[str, int]


def append(organization_id: str, events: Sequence[Event]) -> int:
    """Write `events` in order, inside the caller's transaction; return the sequence of the last one."""
    head = _advance(organization_id, len(events))
    first, at = head - len(events) + 1, now()
    for sequence, event in enumerate(events, first):
        _EVENT.add(
            models.Event(
                organization=organization_id,
                sequence=sequence,
                name=event.name.value,
                at=at,
                contact_id=event.contact_id,
                conversation_id=event.conversation_id,
                data=dump(event.data).decode(),
            )
        )
    announce()
    return head


def hold(organization_id: str) -> None:
    """Let no other unit of the organization that holds or appends go on before this one is over.

    What two units look for and write in each other's absence they find if both begin with this.
    """
    _advance(organization_id, 0)


def head(organization_id: str) -> int:
    """Return the sequence of the organization's newest event, 0 when it has had none."""
    query = models.Organization.select(models.Organization.event_sequence)
    return query.where(models.Organization.id == organization_id).scalar() or 0


def heads() -> dict[str, int]:
    """Return every organization's newest sequence."""
    query: Any = models.Organization.select(models.Organization.id, models.Organization.event_sequence).tuples()
    return dict(query)


def oldest(organization_id: str) -> int | None:
    """Return the lowest sequence still held for the organization, None when nothing is."""
    query = models.Event.select(fn.MIN(models.Event.sequence))
    sequence: int | None = query.where(models.Event.organization == organization_id).scalar()
    return sequence


def after(organization_id: str, sequence: int, limit: int, up_to: int | None = None) -> list[StoredEvent]:
    """Return at most `limit` events of the organization after `sequence` (and not after `up_to`), in order."""
    query = _events().where(models.Event.organization == organization_id, models.Event.sequence > sequence)
    if up_to is not None:
        query = query.where(models.Event.sequence <= up_to)
    return [StoredEvent(*row) for row in query.order_by(models.Event.sequence).limit(limit).tuples()]


def tail_position() -> Cursor:
    """Return the position after everything committed so far."""
    return _last_id() if ids_follow_commits() else heads()


def following(cursor: Cursor, limit: int) -> tuple[Cursor, list[StoredEvent]]:
    """Return about `limit` events committed after `cursor`, and the position to go on from.

    Each organization's events come in sequence and without a gap. Nothing is left when none are returned.
    """
    return _after_id(cursor, limit) if isinstance(cursor, int) else _after_heads(cursor, limit)


def prune(before: str, limit: int) -> int:
    """Delete at most `limit` events older than `before`, never an organization's newest; return how many went.

    An organization that says for itself how long it keeps events is left alone.
    """
    newest = models.Event.organization.in_(
        models.Organization.select(models.Organization.id).where(
            models.Organization.event_sequence == models.Event.sequence
        )
    )
    everybodys = models.Event.organization.in_(
        models.Organization.select(models.Organization.id).where(models.Organization.event_retention_days.is_null())
    )
    old = models.Event.select(models.Event.id).where(models.Event.at < before, ~newest, everybodys).limit(limit)
    return int(models.Event.delete().where(models.Event.id.in_(old)).execute())


def _last_id() -> int:
    return models.Event.select(fn.MAX(models.Event.id)).scalar() or 0


def _after_id(cursor: int, limit: int) -> tuple[Cursor, list[StoredEvent]]:
    query = _events(models.Event.id).where(models.Event.id > cursor).order_by(models.Event.id)
    rows = list(query.limit(limit).tuples())
    return (rows[-1][-1] if rows else cursor), [StoredEvent(*row[:-1]) for row in rows]


def _after_heads(cursor: Mapping[str, int], limit: int) -> tuple[Cursor, list[StoredEvent]]:
    behind = [organization for organization, newest in heads().items() if newest > cursor.get(organization, 0)]
    share = max(1, limit // max(1, len(behind)))  # so that a busy organization does not hold up the others
    position, events = dict(cursor), list[StoredEvent]()
    for organization in behind:
        found = after(organization, position.get(organization, 0), share)
        events += found
        position[organization] = found[-1].sequence if found else position.get(organization, 0)
    return position, events


def _advance(organization_id: str, by: int) -> int:
    advanced: int | None = _ADVANCE.value(organization=organization_id, by=by)
    if advanced is None:
        raise LookupError(f"no organization {organization_id}")
    return advanced


def _events(*extra: Any) -> Any:
    event = models.Event
    return event.select(
        event.organization,
        event.sequence,
        event.name,
        event.at,
        event.data,
        event.contact_id,
        event.conversation_id,
        *extra,
    )


def _advancing() -> Any:
    this, counter = models.Organization, models.Organization.event_sequence
    return this.update({counter: counter + Given("by")}).where(this.id == Given("organization")).returning(counter)


_ADVANCE = Statement(_advancing)
