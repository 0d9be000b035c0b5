"""Tool secrets: by their SHA-256, the newest of an organization without an end, each replaced one with its own.

A secret that is on its way to ElevenLabs is added beside the others; those end once it has arrived.
"""

from typing import Any

from peewee import Expression

from domain.times import now
from persistence.models import ToolSecret
from persistence.statements import Given, Statement

# Replaced secrets that keep working at the same time. One more ends the oldest.
MAX_REPLACED = 10
# Secrets without an end. There are several only while ElevenLabs has not taken the newest.
MAX_ENDLESS = 10


def find(digest: str) -> tuple[str, str, str | None] | None:
    """Return id, organization and last use of the secret with this digest, or None if there is none or it has ended."""
    row: Any = _FIND.row(digest=digest, now=now())
    return row


def current(organization_id: str) -> ToolSecret | None:
    """Return the newest of the organization's secrets that have no end."""
    endless = ToolSecret.select().where(ToolSecret.organization == organization_id, ToolSecret.expires_at.is_null())
    return endless.order_by(ToolSecret.id.desc()).first()


def living(organization_id: str) -> list[ToolSecret]:
    """Return the organization's secrets that work, the newest first."""
    query = ToolSecret.select().where(ToolSecret.organization == organization_id, _lives(now()))
    return list(query.order_by(ToolSecret.id.desc()))


def replace(organization_id: str, digest: str, expires_at: str) -> None:
    """Make `digest` the organization's secret; the one before it works until `expires_at`.

    Earlier ones keep their own ends. Call this in a unit of the organization.
    """
    ToolSecret.create(organization=organization_id, digest=digest)
    end_others(organization_id, digest, expires_at)


def add(organization_id: str, digest: str) -> bool:
    """Add a secret beside the others, without an end; False, and nothing added, if too many have none.

    Call this in a unit of the organization.
    """
    mine = (ToolSecret.organization == organization_id) & ToolSecret.expires_at.is_null()
    if ToolSecret.select().where(mine).count() >= MAX_ENDLESS:
        return False
    ToolSecret.create(organization=organization_id, digest=digest)
    return True


def end_others(organization_id: str, digest: str, expires_at: str) -> None:
    """Have every secret but `digest` that has no end work until `expires_at`, and keep a few of those with an end."""
    mine = ToolSecret.organization == organization_id
    endless = (ToolSecret.digest != digest) & ToolSecret.expires_at.is_null()
    ToolSecret.update(expires_at=expires_at).where(mine, endless).execute()
    kept = [secret.id for secret in living(organization_id)][: MAX_REPLACED + 1]
    ToolSecret.delete().where(mine, ToolSecret.id.not_in(kept)).execute()


def expire(organization_id: str, digest: str, expires_at: str) -> None:
    """Have a secret that has no end work until `expires_at`."""
    mine = (ToolSecret.organization == organization_id) & (ToolSecret.digest == digest)
    ToolSecret.update(expires_at=expires_at).where(mine, ToolSecret.expires_at.is_null()).execute()


def end(organization_id: str, secret_id: str | None = None) -> int:
    """End one secret, or every replaced one; return how many ended."""
    mine = ToolSecret.organization == organization_id
    chosen = ToolSecret.expires_at.is_null(False) if secret_id is None else ToolSecret.id == secret_id
    return int(ToolSecret.delete().where(mine, chosen).execute())


def mark_used(secret_id: str, before: str) -> None:
    """Record that the secret was used now, unless that was recorded since `before`."""
    last = ToolSecret.last_used_at
    ToolSecret.update({last: now()}).where(ToolSecret.id == secret_id, last.is_null() | (last < before)).execute()


def _lives(at: Any) -> Expression:
    return ToolSecret.expires_at.is_null() | (ToolSecret.expires_at > at)


_FIND = Statement(
    lambda: ToolSecret.select(ToolSecret.id, ToolSecret.organization, ToolSecret.last_used_at).where(
        ToolSecret.digest == Given("digest"), _lives(Given("now"))
    )
)
