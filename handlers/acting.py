"""Who acts in a request, for the audit log, and what they read."""

from collections.abc import Callable
from typing import Any, TypeVar

from actions.audit_reading import note_reading
from actions.relay import Relay
from domain.audit import Actor, AuditAction
from openapi.exchange import Request

R = TypeVar("R")


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


async def noted_reading(
    current: Request[Relay], action: AuditAction, subject: str | None = None, **details: Any
) -> None:
    """Write down that the caller reads, if reading is audited; call this once a request, after what may not be found.

    Raises:
        Overloaded: if it cannot be written down; nothing is shown then.
    """
    organization_id, actor = current.caller.organization_id, actor_of(current)
    await note_reading(current.relay, organization_id, action, actor, subject=subject, details=details)


async def built(current: Request[Relay], build: Callable[[], R], *, is_heavy: bool) -> R:
    """Return what `build` makes of rows, off the event loop if that is heavy."""
    return await current.relay.heavy_work.run(current.caller.organization_id, build) if is_heavy else build()
