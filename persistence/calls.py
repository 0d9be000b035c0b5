"""Calls: finished ones, unique by the caller's own id as long as they exist."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peewee import Expression, fn

from domain.calls import EVERY_CALL, CallFilter
from domain.statuses import CallStatus
from domain.texts import MAX_SHOWN
from persistence import pages
from persistence.models import Call, Organization, Recording
from persistence.statements import Given, Insertion, Lookup, Statement

_BY_EXTERNAL_ID = Lookup(Call, "organization", "external_call_id")
_BY_CONVERSATION = Lookup(Call, "organization", "elevenlabs_conversation_id", newest_by="id")
_CALL = Insertion(Call, unless_taken=True)
_COUNT = Statement(lambda: Organization.select(Organization.call_count).where(_its_own()))
_COUNTED = Statement(lambda: Organization.update(call_count=Organization.call_count + 1).where(_its_own()))


def _its_own() -> Expression:
    return Organization.id == Given("organization")


@dataclass(frozen=True, slots=True)
class Figures:
    """How many calls there were, and how long they took together, in seconds."""

    count: int
    duration: float

    @property
    def average(self) -> float:
        """How long a call took on average, 0 when there was none."""
        return round(self.duration / self.count, 2) if self.count else 0.0


def by_external_id(organization_id: str, external_call_id: str) -> Call | None:
    """Return the call the outside knows by that id."""
    return _BY_EXTERNAL_ID.find(organization_id, external_call_id)


def by_elevenlabs_conversation(organization_id: str, elevenlabs_conversation_id: str) -> Call | None:
    """Return the newest call that took place in that ElevenLabs conversation."""
    return _BY_CONVERSATION.find(organization_id, elevenlabs_conversation_id)


def by_conversation(organization_id: str, conversation_id: str) -> Call | None:
    """Return the call of that ElevenLabs conversation, whichever of its two ids is the conversation's."""
    return by_elevenlabs_conversation(organization_id, conversation_id) or by_external_id(
        organization_id, conversation_id
    )


def change(organization_id: str, call_id: str, values: Mapping[str, object]) -> None:
    """Replace the given columns of the call."""
    Call.update(values).where(Call.organization == organization_id, Call.id == call_id).execute()


def add(organization_id: str, call: Call) -> bool:
    """Write the call and count it; False, and nothing written, when its external id is taken."""
    call.organization_id = organization_id
    if not _CALL.add(call):
        return False
    _COUNTED.run(organization=organization_id)
    return True


def get(organization_id: str, call_id: str) -> Call | None:
    """Return the organization's call of that id."""
    return Call.get_or_none(Call.organization == organization_id, Call.id == call_id)


def count(organization_id: str, wanted: CallFilter = EVERY_CALL) -> int:
    """Return how many of the organization's calls are wanted; all of them are not counted anew."""
    if wanted == EVERY_CALL:
        return int(_COUNT.value(organization=organization_id) or 0)
    return int(Call.select(fn.COUNT(1)).where(_matching(organization_id, wanted)).scalar())


def page(organization_id: str, wanted: CallFilter, *, total: int, offset: int, limit: int) -> list[Call]:
    """Return the calls `offset` to `offset + limit` of the `total` wanted ones, newest first, as `among` does."""
    matching = _matching(organization_id, wanted)
    ids = pages.numbered(Call, matching, Call.started_at, total=total, offset=offset, limit=limit)
    return among(organization_id, ids)


def among(organization_id: str, ids: Sequence[str]) -> list[Call]:
    """Return the organization's calls with these ids, in their order, without transcripts; long summaries are cut."""
    query = Call.select(*_LISTED).where(pages.among(Call, organization_id, Call.id, ids))
    found = {call.id: call for call in query} if ids else {}
    return [found[call_id] for call_id in ids if call_id in found]


def with_recording(organization_id: str, ids: Sequence[str]) -> set[str]:
    """Return which of these calls have a recording."""
    query: Any = Recording.select(Recording.call).where(pages.among(Recording, organization_id, Recording.call, ids))
    return {row[0] for row in query.tuples()} if ids else set()


def figures(organization_id: str, since: str | None, before: str | None) -> dict[str, Figures]:
    """Return the figures of the calls that began in that time, by status."""
    found = {
        status.value: _figures(organization_id, CallFilter(status=status.value, since=since, before=before))
        for status in CallStatus
    }
    return {status: figure for status, figure in found.items() if figure.count}


_TEXTS = ("transcript", "provider_metadata", "summary")
_LISTED = [
    *(field for field in Call._meta.sorted_fields if field.name not in _TEXTS),
    # One character more than is shown, which tells that there is more. A summary may have millions.
    fn.SUBSTR(Call.summary, 1, MAX_SHOWN + 1).alias("summary"),
]


def _figures(organization_id: str, wanted: CallFilter) -> Figures:
    # One status at a time, so that each is read from one stretch of an index.
    query: Any = Call.select(fn.COUNT(1), fn.SUM(Call.duration)).where(_matching(organization_id, wanted))
    number, duration = query.tuples().get()
    return Figures(number, duration or 0.0)


def _matching(organization_id: str, wanted: CallFilter) -> Expression:
    given = [
        (Call.contact, wanted.contact_id),
        (Call.user, wanted.user_id),
        (Call.status, wanted.status),
    ]
    matching = _all_or_known_by(organization_id, wanted.external_call_id)
    for column, value in given:
        matching = matching if value is None else matching & (column == value)
    if wanted.since is not None:
        matching &= Call.started_at >= wanted.since
    return matching if wanted.before is None else matching & (Call.started_at < wanted.before)


def _all_or_known_by(organization_id: str, outside_id: str | None) -> Expression:
    if outside_id is None:
        return Call.organization == organization_id
    # Two queries, each of which an index serves. A reported call gets another external id from its push.
    first, second = (
        Call.select(Call.id).where(Call.organization == organization_id, column == outside_id)
        for column in (Call.external_call_id, Call.elevenlabs_conversation_id)
    )
    # Written so that no index serves it, as in `pages.among`: the few ids are what is to be sought.
    return Call.id.in_(first.union_all(second)) & (Call.organization.concat("") == organization_id)
