"""Callers' requests to speak to a person."""

from collections.abc import Mapping
from datetime import timedelta

from peewee import Query, fn

from domain.times import from_wire, to_wire
from persistence.models import Call, TransferRequest
from persistence.statements import Given, Statement

_MOST_OF_CALL = 100


def add(organization_id: str, values: Mapping[str, object]) -> TransferRequest:
    """Write down that a person is wanted."""
    return TransferRequest.create(organization=organization_id, **values)


def of_call(organization_id: str, call_id: str) -> list[TransferRequest]:
    """Return the requests made during the call, oldest first."""
    request = TransferRequest
    query = request.select().where(request.organization == organization_id, request.call == call_id)
    return list(query.order_by(request.requested_at, request.id).limit(_MOST_OF_CALL))


def settle(organization_id: str, request_id: str, outcome: str, reason: str | None) -> bool:
    """Record what became of the request; False, and nothing recorded, if that is known already."""
    request = TransferRequest
    open_one = (request.organization == organization_id) & (request.id == request_id) & request.outcome.is_null()
    return bool(request.update(outcome=outcome, outcome_reason=reason).where(open_one).execute())


def attach_to_call(organization_id: str, elevenlabs_conversation_id: str, call_id: str, contact_id: str) -> None:
    """Tie every request made during that conversation to the call it turned out to be."""
    _ATTACH.run(organization=organization_id, conversation=elevenlabs_conversation_id, call=call_id, contact=contact_id)


def attach_by_time(organization_id: str, our_number: str, call: Call) -> None:
    """Tie requests that name nothing but `our_number` to `call`, if nobody else called that number at the time.

    A request during calls of several contacts is tied to none of them,
    also if it was tied to one before another one's call was recorded. Calls that began more than a day before `call`
    are taken for over: an organization may have a million of them.
    """
    request = TransferRequest
    others = Call.alias()
    of_others = others.select(others.id).where(
        others.organization == organization_id,
        (others.to_number == our_number) | (others.from_number == our_number),
        others.started_at >= _day_before(call.started_at),
        others.started_at <= request.requested_at,
        others.ended_at >= request.requested_at,
        others.contact.is_null() | (others.contact != call.contact_id),
    )
    meanwhile = (
        (request.organization == organization_id)
        & (request.called_number == our_number)
        & request.requested_at.between(call.started_at, call.ended_at)
        & request.elevenlabs_conversation_id.is_null()
    )
    tied_to_others = request.contact.is_null(False) & (request.contact != call.contact_id)
    request.update(call=None, contact=None).where(meanwhile, tied_to_others).execute()
    request.update(call=call.id, contact=call.contact_id).where(
        meanwhile, request.contact.is_null(), ~fn.EXISTS(of_others)
    ).execute()


def _day_before(at: str) -> str:
    day = from_wire(at)
    return to_wire(day - timedelta(days=1)) if day.year > 1 else at


def _attach() -> Query:
    return TransferRequest.update(call=Given("call"), contact=Given("contact")).where(
        TransferRequest.organization == Given("organization"),
        TransferRequest.elevenlabs_conversation_id == Given("conversation"),
        TransferRequest.call.is_null(),
    )


_ATTACH = Statement(_attach)
