"""Reading back calls: a list, one of them, and what they add up to."""

from dataclasses import dataclass, replace

from actions.relay import Relay
from domain.calls import CallFilter
from domain.errors import NotFound
from domain.times import from_wire, to_wire
from persistence import calls, transfer_requests
from persistence.calls import Figures
from persistence.models import Call, TransferRequest


@dataclass(frozen=True, slots=True)
class ShownCall:
    """A call as lists show it, without its transcript and with the beginning of its summary."""

    row: Call
    has_recording: bool


@dataclass(frozen=True, slots=True)
class CallList:
    """One page of calls, newest first, and how many there are altogether."""

    calls: list[ShownCall]
    total: int


@dataclass(frozen=True, slots=True)
class WholeCall:
    """A call with everything that is known of it."""

    row: Call
    has_recording: bool
    transfer_requests: list[TransferRequest]


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """What calls add up to, altogether and by status."""

    altogether: Figures
    by_status: dict[str, Figures]


async def list_calls(relay: Relay, organization_id: str, wanted: CallFilter, *, limit: int, offset: int) -> CallList:
    """Return the calls `offset` to `offset + limit` that are wanted; `since` and `before` are RFC 3339.

    Raises:
        InvalidRequest: when a moment is none.
    """
    exact = replace(wanted, since=_moment(wanted.since), before=_moment(wanted.before))

    def unit() -> CallList:
        total = calls.count(organization_id, exact)
        page = calls.page(organization_id, exact, total=total, offset=offset, limit=limit)
        return CallList(shown_calls(organization_id, page), total)

    # The total is counted row by row, as are the figures below.
    return await relay.database.read_aside(unit)


async def read_call(relay: Relay, organization_id: str, call_id: str) -> WholeCall:
    """Return one call with its transcript and what its provider said about it.

    Raises:
        NotFound: when the organization has no such call.
    """

    def unit() -> WholeCall:
        found = existing(organization_id, call_id)
        has_recording = bool(calls.with_recording(organization_id, [call_id]))
        return WholeCall(found, has_recording, transfer_requests.of_call(organization_id, call_id))

    return await relay.database.read(unit)


async def count_calls(relay: Relay, organization_id: str, start: str | None, end: str | None) -> CallStatistics:
    """Return how many calls there were from `start` until `end`, and how long they took.

    Raises:
        InvalidRequest: when one is no RFC 3339.
    """
    since, before = _moment(start), _moment(end)
    by_status = await relay.database.read_aside(lambda: calls.figures(organization_id, since, before))
    altogether = Figures(
        sum(figures.count for figures in by_status.values()), sum(figures.duration for figures in by_status.values())
    )
    return CallStatistics(altogether, by_status)


def existing(organization_id: str, call_id: str) -> Call:
    """Return the organization's call, in a unit.

    Raises:
        NotFound: when it has none of that id.
    """
    found = calls.get(organization_id, call_id)
    if found is None:
        raise NotFound("Call not found")
    return found


def shown_calls(organization_id: str, page: list[Call]) -> list[ShownCall]:
    """Return the calls of a list with whether each has a recording, in a unit."""
    recorded = calls.with_recording(organization_id, [call.id for call in page])
    return [ShownCall(call, call.id in recorded) for call in page]


def _moment(text: str | None) -> str | None:
    return None if text is None else to_wire(from_wire(text))
