"""Writing down who looked at what, with AUDIT_READS=on. What cannot be written down is not shown."""

from typing import Any

from actions.relay import Relay
from domain.audit import Actor, AuditAction
from domain.principals import Principal
from persistence import audit


async def note_reading(
    relay: Relay,
    organization_id: str,
    action: AuditAction,
    actor: Actor,
    *,
    subject: str | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Write down that somebody reads, before they are answered; do nothing unless reading is audited.

    Raises:
        Overloaded: if it cannot be written down.
    """
    if relay.rules.audit_reads:
        # As a write of the organization it shares their commits.
        await relay.database.write(
            lambda: audit.record(organization_id, action, actor, subject=subject, details=details), of=organization_id
        )


async def note_socket(relay: Relay, principal: Principal, client: str, *, is_open: bool) -> None:
    """Write down that a socket was opened or closed; do nothing unless reading is audited.

    Raises:
        Overloaded: if it cannot be written down.
    """
    action = AuditAction.SOCKET_OPENED if is_open else AuditAction.SOCKET_CLOSED
    actor = Actor(principal.user_id, client)
    await note_reading(relay, principal.organization_id, action, actor, details={"by": principal.kind.value})
