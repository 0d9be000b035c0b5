"""The outbox: every event is written in the transaction that caused it, under a sequence of its organization.

The guarantee: within an organization sequences start at 1, have no gaps, and ascend in commit order. It rests on one
thing: the sequence is taken by updating the organization's row, whose lock is held until commit, so no other
transaction can take the next one before this one is visible. Taking sequences any other way (a separate counter,
MAX + 1 without the lock) would break it.

Order *across* organizations is not promised. `following` reads what was committed after a position in the log. On
SQLite, with its single writer, row ids are the order of commits. On PostgreSQL they are not: they become visible out of
order, and `id > last` would miss events, so there a position is one sequence per organization.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from peewee import fn

from domain.documents import dump
from domain.epochs import Standing
from domain.events import Event, StoredEvent
from domain.times import now
from persistence import models
from persistence.statements import Among, Ask, Given, Insertion, Statement
from persistence.units import announce, ids_follow_commits

_EVENT = Insertion(models.Event)

Cursor = int | dict[str, int]


class Passage(NamedTuple):
    """Events that follow a cursor, where to go on from, and whether more may have been committed by then."""

    cursor: Cursor
    events: list[StoredEvent]
    has_more: bool


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
    announce(organization_id)
    return head


def hold(organization_id: str) -> None:
    """Acquire the organization's row, so that no other unit that does so goes on before this one is over.

    A unit that is run with `of=organization_id` begins with it. Call this in a unit about several organizations.
    """
    _advance(organization_id, 0)


def head(organization_id: str) -> int:
    """Return the sequence of the organization's newest event, 0 when it has had none."""
    query = models.Organization.select(models.Organization.event_sequence)
    return query.where(models.Organization.id == organization_id).scalar() or 0


def heads() -> dict[str, int]:
    """Return every organization's newest sequence."""
    return dict(_HEADS.run().fetchall())


def standing(organization_id: str) -> Standing | None:
    """Return where the organization's log stands, None when there is no such organization."""
    row = _STANDING.row(organization=organization_id)
    return Standing(*row) if row else None


def standings() -> dict[str, Standing]:
    """Return where every organization's log stands."""
    return {organization_id: Standing(*found) for organization_id, *found in _STANDINGS.run().fetchall()}


def standings_of(organization_ids: Collection[str]) -> dict[str, Standing]:
    """Return where the logs of these organizations stand."""
    return {organization_id: Standing(*found) for organization_id, *found in _STANDINGS_OF.find(organization_ids)}


def oldest(organization_id: str) -> int | None:
    """Return the lowest sequence still held for the organization, None when nothing is."""
    query = models.Event.select(fn.MIN(models.Event.sequence))
    sequence: int | None = query.where(models.Event.organization == organization_id).scalar()
    return sequence


def after(organization_id: str, sequence: int, limit: int, up_to: int | None = None) -> list[StoredEvent]:
    """Return at most `limit` events of the organization after `sequence` (and not after `up_to`), in order."""
    last = _NO_LAST if up_to is None else up_to
    return _stored(_AFTER.rows(organization=organization_id, after=sequence, last=last, limit=limit))


def tail_position() -> Cursor:
    """Return the position after everything committed so far."""
    return _last_id() if ids_follow_commits() else heads()


async def following(ask: Ask, cursor: Cursor, limit: int, among: Collection[str] | None = None) -> Passage:
    """Read about `limit` events committed after `cursor`; each organization's come in sequence and without a gap.

    On an engine that is asked organization by organization, only those `among` are asked, if given.
    """
    return await (_after_id(ask, cursor, limit) if isinstance(cursor, int) else _after_heads(ask, cursor, limit, among))


def prune(before: str, limit: int) -> int:
    """Delete at most `limit` events that are older than `before` from the beginnings of logs; return how many went.

    An organization that says for itself how long it keeps events is left alone.
    """
    deleted = 0
    for (organization_id,) in _TO_PRUNE.run(before=before).fetchall():
        deleted += prune_one(organization_id, before, limit - deleted)
        if deleted >= limit:
            break
    return deleted


def prune_one(organization_id: str, before: str, limit: int) -> int:
    """Delete at most `limit` events from the beginning of the log, up to the first that is not older than `before`.

    The newest event is kept. Whatever the clock said when an event was written, no hole comes into the log.

    Returns:
        how many were deleted.
    """
    event = models.Event
    query: Any = event.select(event.sequence, event.at).where(event.organization == organization_id)
    oldest = list(query.order_by(event.sequence).limit(limit + 1).tuples())
    young = next((index for index, (_, at) in enumerate(oldest) if at >= before), len(oldest))
    # The one more that was looked at is kept: it may be the newest there is.
    gone = oldest[: min(young, len(oldest) - 1, limit)] if oldest else []
    if not gone:
        return 0
    chosen = (event.organization == organization_id) & (event.sequence <= gone[-1][0])
    return int(event.delete().where(chosen).execute())


def _last_id() -> int:
    return models.Event.select(fn.MAX(models.Event.id)).scalar() or 0


def _stored(rows: Sequence[tuple[Any, ...]]) -> list[StoredEvent]:
    return [StoredEvent(*row) for row in rows]


async def _after_id(ask: Ask, cursor: int, limit: int) -> Passage:
    rows = await ask(_AFTER_ID, after=cursor, limit=limit)
    return Passage(rows[-1][-1] if rows else cursor, _stored([row[:-1] for row in rows]), len(rows) == limit)


async def _after_heads(ask: Ask, cursor: dict[str, int], limit: int, among: Collection[str] | None) -> Passage:
    if among is None:
        heads = await ask(_HEADS)
        among = [organization_id for organization_id, head in heads if head > cursor.get(organization_id, 0)]
    share = max(1, limit // max(1, len(among)))  # so that a busy organization does not hold up the others
    events, has_more = list[StoredEvent](), False
    for organization_id in among:
        after = cursor.get(organization_id, 0)
        rows = await ask(_AFTER, organization=organization_id, after=after, last=_NO_LAST, limit=share)
        events += _stored(rows)
        has_more = has_more or len(rows) == share
    # A mapping of every organization is too large to be copied for each passage.
    cursor.update({event.organization_id: event.sequence for event in events})
    return Passage(cursor, events, has_more)


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


def _to_prune() -> Any:
    this, event = models.Organization, models.Event
    oldest = event.select(event.at).where(event.organization == this.id, event.sequence < this.event_sequence)
    is_everybodys = this.event_retention_days.is_null()
    return this.select(this.id).where(is_everybodys, oldest.order_by(event.sequence).limit(1) < Given("before"))


def _standing() -> Any:
    this = models.Organization
    return this.select(this.event_sequence, this.epoch).where(this.id == Given("organization"))


def _reading() -> Any:
    event = models.Event
    chosen = (event.sequence > Given("after")) & (event.sequence <= Given("last"))
    return (
        _events()
        .where(event.organization == Given("organization"), chosen)
        .order_by(event.sequence)
        .limit(Given("limit"))
    )


def _reading_all() -> Any:
    event = models.Event
    return _events(event.id).where(event.id > Given("after")).order_by(event.id).limit(Given("limit"))


_NO_LAST = 2**63 - 1
_ADVANCE = Statement(_advancing)
_AFTER = Statement(_reading)
_AFTER_ID = Statement(_reading_all)
_TO_PRUNE = Statement(_to_prune)
_HEADS = Statement(lambda: models.Organization.select(models.Organization.id, models.Organization.event_sequence))
_STANDING = Statement(_standing)
_STANDINGS_OF = Among(models.Organization, "id", "id", "event_sequence", "epoch")
_STANDINGS = Statement(
    lambda: models.Organization.select(
        models.Organization.id, models.Organization.event_sequence, models.Organization.epoch
    )
)
