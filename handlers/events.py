"""Events over plain HTTP."""

from actions import descriptions
from actions.read_events import read_events
from actions.relay import Relay
from domain.audit import AuditAction
from handlers.acting import noted_reading, written
from openapi import models
from openapi.exchange import Request
from openapi.operations import GetEvents200, GetEventsAnswer


async def get_events(request: Request[Relay], *, since: int, limit: int) -> GetEventsAnswer:
    """Read the events of the organization."""
    page = await read_events(request.relay, request.caller.organization_id, since=since, limit=limit)
    await noted_reading(request, AuditAction.EVENTS_READ, since=since, next=page.next)
    body = {"success": True, "events": page.events, "next": page.next, "oldest": page.oldest, "head": page.head}
    is_heavy = descriptions.is_heavy_page(page.events)
    return GetEvents200(await written(request, models.EventsResponse, body, is_heavy=is_heavy), is_heavy=is_heavy)
