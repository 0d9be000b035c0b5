"""The audit log: entries are added and read, never changed; the database itself refuses anything else.

The entries of an organization are a chain. Its head (how many there are, and the digest of the newest) stands in the
organization's row, so that an entry that was removed from the end is missed too; entries that belong to no organization
have a chain of their own. Adding an entry locks that row until the commit, like appending an event does: entries are
numbered in the order of their commits, and organizations do not wait for each other.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from peewee import Expression, ModelSelect, fn

from domain import documents
from domain.audit import Actor, AuditAction, entry_digest
from domain.positions import Position
from persistence.models import AuditChain, AuditEntry, Organization
from persistence.pages import following
from persistence.statements import Given, Insertion, Statement

_ENTRY = Insertion(AuditEntry)
_NOBODYS = ""


class Head(NamedTuple):
    """How many entries a chain has, and the digest of the newest ("" when there is none)."""

    length: int
    digest: str


def record(
    organization_id: str | None,
    action: AuditAction,
    actor: Actor,
    *,
    subject: str | None = None,
    details: Mapping[str, object] | None = None,
) -> None:
    """Write an entry, in the unit that does what it tells about.

    `organization_id` is None only for an attempt to sign in that belongs to nobody. `subject` is the id of what was
    acted on; `details` are JSON values and never hold a secret.
    """
    advance, close = (_NOBODY_ADVANCES, _NOBODY_CLOSES) if organization_id is None else (_ADVANCE, _CLOSE)
    key = _NOBODYS if organization_id is None else organization_id
    head = advance.row(key=key)
    if head is None and organization_id is None:
        AuditChain.insert(key=key).on_conflict_ignore().execute()
        head = advance.row(key=key)
    if head is None:
        raise LookupError(f"no organization {organization_id}")
    entry = AuditEntry(
        organization=organization_id,
        sequence=head[0],
        previous_digest=head[1],
        action=action.value,
        user_id=actor.user_id,
        client=actor.client[:64] if actor.client else None,
        request_id=actor.request_id,
        subject=subject,
        details=documents.dump(dict(details or {})).decode(),
    )
    _ENTRY.add(entry)
    close.run(key=key, digest=digest_of(entry))


def digest_of(entry: AuditEntry) -> str:
    """Return the digest of an entry, which the next one carries."""
    values = (
        entry.id,
        entry.at,
        entry.action,
        entry.user_id,
        entry.client,
        entry.request_id,
        entry.subject,
        entry.details,
    )
    return entry_digest(entry.organization_id, entry.sequence, entry.previous_digest, values)


def head(organization_id: str | None) -> Head:
    """Return the head of an organization's chain, or (None) of the entries that belong to none."""
    query: Any
    if organization_id is None:
        query = AuditChain.select(AuditChain.count, AuditChain.digest).where(AuditChain.key == _NOBODYS)
    else:
        query = Organization.select(Organization.audit_count, Organization.audit_digest)
        query = query.where(Organization.id == organization_id)
    found = query.tuples().first()
    return Head(*found) if found else Head(0, "")


def last_sequence(organization_id: str | None) -> int:
    """Return the greatest sequence among the entries themselves, 0 when there is none."""
    return int(AuditEntry.select(fn.MAX(AuditEntry.sequence)).where(_of(organization_id)).scalar() or 0)


def after(organization_id: str | None, sequence: int, limit: int) -> list[AuditEntry]:
    """Return at most `limit` entries of one chain after that sequence, in order."""
    query: Any = AuditEntry.select().where(_of(organization_id), AuditEntry.sequence > sequence)
    return list(query.order_by(AuditEntry.sequence).limit(limit))


def newest(
    organization_id: str | None = None,
    *,
    action: str | None = None,
    since: str | None = None,
    after: Position | None = None,
    limit: int = 100,
) -> list[AuditEntry]:
    """Return the newest entries first: of one organization or (None) of all, of one kind, from that moment on.

    `after` is the entry at which the page before ended.
    """
    return following(_wanted(organization_id, action, since), AuditEntry.at, AuditEntry.id, after, limit)


def oldest(
    organization_id: str | None = None,
    *,
    action: str | None = None,
    since: str | None = None,
    after: Position | None = None,
    limit: int = 100,
) -> list[AuditEntry]:
    """Return the oldest entries first; otherwise like `newest`."""
    query = _wanted(organization_id, action, since)
    if after is not None:
        # The first condition lets either engine begin in the index.
        query = query.where(AuditEntry.at >= after.at, (AuditEntry.at > after.at) | (AuditEntry.id > after.id))
    return list(query.order_by(AuditEntry.at, AuditEntry.id).limit(limit))


def _wanted(organization_id: str | None, action: str | None, since: str | None) -> "ModelSelect[AuditEntry]":
    query = AuditEntry.select()
    if organization_id is not None:
        query = query.where(AuditEntry.organization == organization_id)
    if action is not None:
        query = query.where(AuditEntry.action == action)
    return query if since is None else query.where(AuditEntry.at >= since)


def _of(organization_id: str | None) -> Expression:
    return AuditEntry.organization.is_null() if organization_id is None else AuditEntry.organization == organization_id


def _advancing(model: Any, count: Any, digest: Any) -> Any:
    query = model.update({count: count + 1}).where(model._meta.primary_key == Given("key"))
    return query.returning(count, digest)


def _closing(model: Any, digest: Any) -> Any:
    return model.update({digest: Given("digest")}).where(model._meta.primary_key == Given("key"))


_ADVANCE = Statement(lambda: _advancing(Organization, Organization.audit_count, Organization.audit_digest))
_CLOSE = Statement(lambda: _closing(Organization, Organization.audit_digest))
_NOBODY_ADVANCES = Statement(lambda: _advancing(AuditChain, AuditChain.count, AuditChain.digest))
_NOBODY_CLOSES = Statement(lambda: _closing(AuditChain, AuditChain.digest))
