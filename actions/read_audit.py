"""Reading the audit log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actions.relay import Relay
from domain.audit import AuditAction
from domain.documents import load
from domain.errors import NotFound
from domain.times import from_wire, to_wire
from persistence import audit, organizations, users
from persistence.models import AuditEntry


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One entry as a person or a machine reads it; the names are stable.

    `who` is the address a user signs in with, or the id of one who has gone. `sequence` counts the entries of the
    organization, `digest` is of this entry and `previous_digest` of the one before.
    """

    at: str
    action: str
    organization_id: str | None
    who: str | None
    client: str | None
    request_id: str | None
    subject: str | None
    details: dict[str, Any]
    id: str
    sequence: int
    previous_digest: str
    digest: str


async def audit_entries(
    relay: Relay,
    organization: str | None = None,
    *,
    action: AuditAction | None = None,
    since: str | None = None,
    limit: int = 50,
    oldest_first: bool = False,
) -> list[AuditLine]:
    """Return the newest entries first, or the oldest; `organization` is an id or a name, None means all.

    Raises:
        NotFound: when there is no such organization.
        InvalidRequest: when `since` is no date-time.
    """
    earliest = to_wire(from_wire(since)) if since else None
    select = audit.oldest if oldest_first else audit.newest
    return await relay.database.read_aside(lambda: _lines(select, organization, action, earliest, limit))


def _lines(
    select: Callable[..., list[AuditEntry]],
    organization: str | None,
    action: AuditAction | None,
    since: str | None,
    limit: int,
) -> list[AuditLine]:
    organization_id = _organization_id(organization) if organization else None
    entries = select(organization_id, action=action.value if action else None, since=since, limit=limit)
    emails = {user.id: user.email for user in users.everyone(organization_id)}
    return [
        AuditLine(
            at=entry.at,
            action=entry.action,
            organization_id=entry.organization_id,
            who=emails.get(entry.user_id, entry.user_id),
            client=entry.client,
            request_id=entry.request_id,
            subject=entry.subject,
            details=load(entry.details),
            id=entry.id,
            sequence=entry.sequence,
            previous_digest=entry.previous_digest,
            digest=audit.digest_of(entry),
        )
        for entry in entries
    ]


def _organization_id(organization: str) -> str:
    found = organizations.get(organization) or organizations.by_name(organization)
    if found is None:
        raise NotFound(f"There is no organization {organization!r}; `manage.py org list` shows them all.")
    return str(found.id)
