"""Reading the audit log."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from actions.relay import Relay
from domain.audit import AuditAction
from domain.documents import load
from domain.errors import NotFound
from domain.positions import Position
from domain.times import from_wire, to_wire
from persistence import audit, organizations, users
from persistence.models import AuditEntry

PAGE = 500


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One entry as a person or a machine reads it; the names are stable.

    `who` is the address the user of `user_id` signs in with, or the id of one who has gone. `sequence` counts the
    entries of the organization, `digest` is of this entry and `previous_digest` of the one before.
    """

    at: str
    action: str
    organization_id: str | None
    who: str | None
    user_id: str | None
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
    """Return what `audit_pages` yields, at once.

    Raises:
        NotFound: when there is no such organization.
        InvalidRequest: when `since` is no date-time.
    """
    pages = audit_pages(relay, organization, action=action, since=since, limit=limit, oldest_first=oldest_first)
    return [line async for page in pages for line in page]


async def audit_pages(
    relay: Relay,
    organization: str | None = None,
    *,
    action: AuditAction | None = None,
    since: str | None = None,
    limit: int | None = None,
    oldest_first: bool = False,
) -> AsyncIterator[list[AuditLine]]:
    """Yield the newest entries first, or the oldest, in pages, so that the memory used does not grow with the log.

    `organization` is an id or a name, None means all; `limit` None means every entry.

    Raises:
        NotFound: when there is no such organization.
        InvalidRequest: when `since` is no date-time.
    """
    earliest = to_wire(from_wire(since)) if since else None
    select = partial(
        audit.oldest if oldest_first else audit.newest, action=action.value if action else None, since=earliest
    )
    left, after = limit, None
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = await relay.database.read_aside(partial(_lines, select, organization, after, size))
        if page:
            yield page
        if len(page) < size:
            return
        after = Position(page[-1].at, page[-1].id)
        left = None if left is None else left - len(page)


def _lines(
    select: Callable[..., list[AuditEntry]], organization: str | None, after: Position | None, limit: int
) -> list[AuditLine]:
    organization_id = _organization_id(organization) if organization else None
    entries = select(organization_id, after=after, limit=limit)
    emails = users.emails({entry.user_id for entry in entries if entry.user_id})
    return [
        AuditLine(
            at=entry.at,
            action=entry.action,
            organization_id=entry.organization_id,
            who=emails.get(entry.user_id or "", entry.user_id),
            user_id=entry.user_id,
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
