"""Who acts in a request, for the audit log."""

from typing import Any

from domain.audit import Actor
from openapi.exchange import Request


def actor_of(request: Request[Any]) -> Actor:
    """Return the user whose token was believed, if any, the address they come from and the id of the request."""
    user_id = request.principal.user_id if request.principal else None
    return Actor(user_id, request.client, request.id)


def user_of(request: Request[Any]) -> tuple[str, str]:
    """Return the organization and the user of an operation that asks for a user's own token.

    Raises:
        Unauthenticated: when the token belongs to nobody in particular.
    """
    return request.caller.organization_id, request.caller.person
