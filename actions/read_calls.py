"""Reading back calls: a list, one of them, and what they add up to."""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from actions import descriptions
from actions.relay import Relay
from domain.calls import CallFilter
from domain.documents import load
from domain.errors import NotFound
from domain.times import from_wire, to_wire
from persistence import calls, transfer_requests
from persistence.calls import Figures
from persistence.models import Call


@dataclass(frozen=True, slots=True)
class CallList:
    """One page of calls, newest first, and how many there are altogether."""

    calls: list[dict[str, Any]]
    total: int


async def list_calls(relay: Relay, organization_id: str, wanted: CallFilter, *, limit: int, offset: int) -> CallList:
    """Return the calls `offset` to `offset + limit` that are wanted; `since` and `before` are RFC 3339.

    Raises:
        InvalidRequest: when a moment is none.
    """
    exact = replace(wanted, since=_moment(wanted.since), before=_moment(wanted.before))

    def unit() -> CallList:
        total = calls.count(organization_id, exact)
        page = calls.page(organization_id, exact, total=total, offset=offset, limit=limit)
        return CallList(described(organization_id, page), total)

    # The total is counted row by row, as are the figures below.
    return await relay.database.read_aside(unit)


async def read_call(relay: Relay, organization_id: str, call_id: str) -> tuple[dict[str, Any], bool]:
    """Return one call with its transcript and what its provider said about it, and whether that is heavy.

    Raises:
        NotFound: when the organization has no such call.
    """

    def unit() -> tuple[Call, dict[str, Any]]:
        found = existing(organization_id, call_id)
        (told,) = described(organization_id, [found])
        requests = transfer_requests.of_call(organization_id, call_id)
        return found, told | {"transferRequests": [descriptions.transfer_request(one) for one in requests]}

    found, told = await relay.database.read(unit)

    def whole() -> dict[str, Any]:
        return told | {
            "summary": found.summary,
            "transcript": descriptions.turns(found),
            "providerMetadata": load(found.provider_metadata),
        }

    if descriptions.is_heavy(found):
        return await relay.heavy_work.run(organization_id, whole), True
    return whole(), False


async def count_calls(relay: Relay, organization_id: str, start: str | None, end: str | None) -> dict[str, Any]:
    """Return how many calls there were from `start` until `end`, and how long they took in seconds, by status.

    Both are a moment or a day in UTC; a day counts from its beginning or, as the end, to its end.

    Raises:
        InvalidRequest: when one is neither.
    """
    since, before = _beginning(start), _ending(end)
    by_status = await relay.database.read_aside(lambda: calls.figures(organization_id, since, before))
    altogether = Figures(
        sum(figures.count for figures in by_status.values()), sum(figures.duration for figures in by_status.values())
    )
    return {
        "totalCalls": altogether.count,
        "totalDuration": altogether.duration,
        "averageDuration": _average(altogether),
        "byStatus": {
            status: {"count": figures.count, "totalDuration": figures.duration, "avgDuration": _average(figures)}
            for status, figures in by_status.items()
        },
    }


def existing(organization_id: str, call_id: str) -> Call:
    """Return the organization's call, in a unit.

    Raises:
        NotFound: when it has none of that id.
    """
    found = calls.get(organization_id, call_id)
    if found is None:
        raise NotFound("Call not found")
    return found


def described(organization_id: str, page: list[Call]) -> list[dict[str, Any]]:
    """Return the calls in the contract's words, in a unit."""
    recorded = calls.with_recording(organization_id, [call.id for call in page])
    return [descriptions.call(call, has_recording=call.id in recorded) for call in page]


def _average(figures: Figures) -> float:
    return round(figures.duration / figures.count, 2) if figures.count else 0.0


def _moment(text: str | None) -> str | None:
    return None if text is None else to_wire(from_wire(text))


def _beginning(text: str | None) -> str | None:
    day = _day(text)
    return _moment(text) if day is None else f"{day.isoformat()}T00:00:00.000Z"


def _ending(text: str | None) -> str | None:
    day = _day(text)
    if day is None:
        return _moment(text)
    return None if day == date.max else f"{(day + timedelta(days=1)).isoformat()}T00:00:00.000Z"


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text and len(text) == len("2026-05-15") else None
    except ValueError:
        return None
