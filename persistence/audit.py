"""The audit log: entries are added and read, never changed; the database itself refuses anything else."""

from collections.abc import Mapping
from typing import Any

from domain import documents
from domain.audit import Actor, AuditAction
from persistence.models import AuditEntry


def record(
    organization_id: str | None,
    action: AuditAction,
    actor: Actor,
    *,
    subject: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write an entry, in the unit that does what it tells about.

    `organization_id` is None only for an attempt to sign in that belongs to nobody. `subject` is the id of what was
    acted on; `details` are JSON values and never hold a secret.
    """
    AuditEntry.create(
        organization=organization_id,
        action=action.value,
        user_id=actor.user_id,
        client=actor.client[:64] if actor.client else None,
        request_id=actor.request_id,
        subject=subject,
        details=documents.dump(dict(details or {})).decode(),
    )


def newest(
    organization_id: str | None = None, *, action: str | None = None, since: str | None = None, limit: int = 100
) -> list[AuditEntry]:
    """Return the newest entries first: of one organization or (None) of all, of one kind, from that moment on."""
    query = AuditEntry.select()
    if organization_id is not None:
        query = query.where(AuditEntry.organization == organization_id)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    return list(query.order_by(AuditEntry.at.desc(), AuditEntry.id.desc()).limit(limit))
