"""What became of a caller's transfer requests, as the report of the finished call tells it."""

from datetime import timedelta

from actions.announcements import transfer_ended
from actions.relay import Relay
from domain.statuses import TransferOutcome
from domain.times import from_wire, to_wire
from persistence import calls, outbox, transfer_requests
from persistence.models import Call, TransferRequest
from providers.elevenlabs_calls import ReportedCall, ReportedTransfer


async def settle_transfers(relay: Relay, organization_id: str, call_id: str, reported: ReportedCall) -> None:
    """Record the outcome of each request of the call that has none, and tell the listeners.

    Requests and uses of the agent's own transfer tool are told apart by their order. A use that nobody requested is
    recorded as a request of its own; a request without a use was not attempted. A report that comes again changes
    nothing.
    """
    if not await relay.database.read(lambda: _has_work(organization_id, call_id, reported)):
        return
    await relay.database.write(lambda: _settle(organization_id, call_id, reported), of=organization_id)


def _has_work(organization_id: str, call_id: str, reported: ReportedCall) -> bool:
    known = transfer_requests.of_call(organization_id, call_id)
    return any(one.outcome is None for one in known) or len(known) < len(reported.transfers)


def _settle(organization_id: str, call_id: str, reported: ReportedCall) -> None:
    call = calls.get(organization_id, call_id)
    if call is None or call.contact_id is None:
        return
    known = transfer_requests.of_call(organization_id, call_id)
    uses = _one_each(reported.transfers, len(known))
    for request, use in zip(known, uses, strict=False):
        _record(organization_id, call, request, use)
    for request in known[len(uses) :]:
        _record(organization_id, call, request, None)
    for use in uses[len(known) :]:
        _record(organization_id, call, _added(organization_id, call, use), use)


def _one_each(uses: tuple[ReportedTransfer, ...], requests: int) -> list[ReportedTransfer]:
    # An agent may try several numbers for one request: what counts for it is whether one of them took the call.
    if not requests or len(uses) <= requests:
        return list(uses)
    last = uses[requests - 1 :]
    best = next((use for use in last if use.outcome is TransferOutcome.CONNECTED), last[-1])
    return [*uses[: requests - 1], best]


def _added(organization_id: str, call: Call, use: ReportedTransfer) -> TransferRequest:
    at = to_wire(from_wire(call.started_at) + timedelta(seconds=min(use.at, call.duration)))
    return transfer_requests.add(
        organization_id,
        {
            "reason": use.reason,
            "elevenlabs_conversation_id": call.elevenlabs_conversation_id,
            "call": call.id,
            "contact": call.contact_id,
            "requested_at": at,
        },
    )


def _record(organization_id: str, call: Call, request: TransferRequest, use: ReportedTransfer | None) -> None:
    outcome = use.outcome if use else TransferOutcome.NOT_ATTEMPTED
    problem = use.problem if use else None
    if not transfer_requests.settle(organization_id, request.id, outcome.value, problem):
        return
    outbox.append(organization_id, [transfer_ended(call, request, outcome, problem)])
