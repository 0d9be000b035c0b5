"""Handlers of the operations on events."""

from actions.relay import Relay
from openapi import exchange, operations


async def get_events(request: exchange.Request[Relay], *, since: int, limit: int) -> operations.GetEventsAnswer:
    """Read the events of the organization."""
    del request, since, limit
    raise exchange.NotWritten
