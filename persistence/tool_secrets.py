"""Tool secrets: by their SHA-256, the newest of an organization without an end, each replaced one with its own."""

from typing import Any

from domain.times import now
from persistence.models import ToolSecret
from persistence.statements import Given, Statement

# Replaced secrets that keep working at the same time. One more ends the oldest.
MAX_REPLACED = 10


def find(digest: str) -> tuple[str, str, str | None] | None:
    """Return id, organization and last use of the secret with this digest, or None if there is none or it has ended."""
    row: Any = _FIND.row(digest=digest, now=now())
    return row


def current(organization_id: str) -> ToolSecret | None:
    """Return the organization's secret that has no end."""
    return ToolSecret.get_or_none(ToolSecret.organization == organization_id, ToolSecret.expires_at.is_null())


def living(organization_id: str) -> list[ToolSecret]:
    """Return the organization's secrets that work, the newest first."""
    query = ToolSecret.select().where(ToolSecret.organization == organization_id, _lives(now()))
    return list(query.order_by(ToolSecret.id.desc()))


def replace(organization_id: str, digest: str, expires_at: str) -> None:
    """Make `digest` the organization's secret; the one before it works until `expires_at`.

    Earlier ones keep their own ends. Call this in a unit of the organization.
    """
    mine = ToolSecret.organization == organization_id
    ToolSecret.update(expires_at=expires_at).where(mine, ToolSecret.expires_at.is_null()).execute()
    ToolSecret.create(organization=organization_id, digest=digest)
    kept = [secret.id for secret in living(organization_id)][: MAX_REPLACED + 1]
    ToolSecret.delete().where(mine, ToolSecret.id.not_in(kept)).execute()


def end(organization_id: str, secret_id: str | None = None) -> int:
    """End one secret, or every replaced one; return how many ended."""
    mine = ToolSecret.organization == organization_id
    chosen = ToolSecret.expires_at.is_null(False) if secret_id is None else ToolSecret.id == secret_id
    return int(ToolSecret.delete().where(mine, chosen).execute())


def mark_used(secret_id: str, before: str) -> None:
    """Record that the secret was used now, unless that was recorded since `before`."""
    last = ToolSecret.last_used_at
    ToolSecret.update({last: now()}).where(ToolSecret.id == secret_id, last.is_null() | (last < before)).execute()


def _lives(at: Any) -> Any:
    return ToolSecret.expires_at.is_null() | (ToolSecret.expires_at > at)


_FIND = Statement(
    lambda: ToolSecret.select(ToolSecret.id, ToolSecret.organization, ToolSecret.last_used_at).where(
        ToolSecret.digest == Given("digest"), _lives(Given("now"))
    )
)
