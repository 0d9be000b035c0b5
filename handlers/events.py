"""Events over plain HTTP."""

from functools import partial
from typing import Literal

from actions.authenticate import is_revoked
from actions.read_events import EventPage, Wanted, await_events, read_events
from actions.relay import Relay
from domain.audit import AuditAction
from domain.documents import load
from domain.errors import Unauthenticated
from domain.events import StoredEvent
from domain.filters import Filter
from handlers import wire
from handlers.acting import built, noted_reading
from openapi import models
from openapi.exchange import Request
from openapi.operations import GetEvents200, GetEventsAnswer


async def get_events(
    request: Request[Relay],
    *,
    since: int,
    epoch: str | None,
    events: list[
        Literal[
            "call_initiated",
            "call_ended",
            "call_recording_ready",
            "fetch_messages",
            "note_created",
            "transfer_requested",
            "message_status",
            "voice_ai_webhook",
            "contact_erased",
            "erased",
        ]
    ]
    | None,
    contact_id: str | None,
    conversation_id: str | None,
    wait: float,
    limit: int,
) -> GetEventsAnswer:
    """Read the events of the organization."""
    names = None if events is None else frozenset[str](events)
    wanted = Wanted(since, limit, epoch, Filter(names, contact_id, conversation_id))
    page = await _page(request, wanted, wait)
    await noted_reading(request, AuditAction.EVENTS_READ, since=since, next=page.next)
    is_heavy = wire.is_long(event.data for event in page.events)
    body = await built(request, partial(_shown, page), is_heavy=is_heavy)
    return GetEvents200(body, is_heavy=is_heavy)


async def _page(request: Request[Relay], wanted: Wanted, wait: float) -> EventPage:
    if not wait:
        return await read_events(request.relay, request.caller.organization_id, wanted)
    page = await await_events(request.relay, request.caller.organization_id, wanted, wait)
    if await is_revoked(request.relay, request.caller):
        raise Unauthenticated("The token was revoked")
    return page


def _shown(page: EventPage) -> models.EventsResponse:
    return models.EventsResponse(
        success=True,
        events=[_frame(event) for event in page.events],
        next=page.next,
        oldest=page.oldest,
        head=page.head,
        epoch=page.epoch,
        gap=models.EventsResponseGap(since=page.gap.since, oldest=page.gap.oldest, reason=page.gap.reason.value)
        if page.gap
        else None,
    )


def _frame(event: StoredEvent) -> models.EventFrame:
    return models.EventFrame(
        type="event", seq=event.sequence, event=event.name, at=wire.moment(event.at), data=load(event.data)
    )
