"""API keys: several per user, under names, found by digest. The first one has the name `FIRST`."""

from collections.abc import Collection
from typing import Any, NamedTuple

from peewee import Query

from domain.principals import KeyKind
from domain.statuses import UserStatus
from domain.times import now
from persistence.models import ApiKey, User
from persistence.statements import Among, Given, Statement

FIRST = "default"


class Believed(NamedTuple):
    """What a key proves: whose it is, what it opens, and until when (None: until it is revoked)."""

    id: str
    organization_id: str
    user_id: str
    kind: str
    expires_at: str | None
    last_used_at: str | None


def by_digest(digest: str) -> Believed | None:
    """Return the key whose SHA-256 is `digest`, if its user is active and it has not expired.

    A key that was renewed with an overlap is found by the digest before too, until the overlap is over.
    """
    at = now()
    found = _BY_DIGEST.row(digest=digest, now=at) or _BY_PREVIOUS.row(digest=digest, now=at)
    return None if found is None else Believed(*found)


def among(digests: Collection[str], kind: KeyKind) -> set[str]:
    """Return those of the digests by which a key that opens `kind` is still found; its user is not looked at."""
    at, found = now(), set[str]()
    for digest, has_kind, expires_at in _AMONG.find(digests):
        if KeyKind(has_kind).opens(kind) and (expires_at is None or expires_at > at):
            found.add(digest)
    for digest, has_kind, expires_at in _AMONG_PREVIOUS.find(digests):
        if KeyKind(has_kind).opens(kind) and expires_at > at:
            found.add(digest)
    return found


def of_user(organization_id: str, user_id: str, name: str = FIRST) -> ApiKey | None:
    """Return the user's key of that name."""
    return ApiKey.get_or_none(ApiKey.organization == organization_id, ApiKey.user == user_id, ApiKey.name == name)


def get(organization_id: str, user_id: str, key_id: str) -> ApiKey | None:
    """Return the user's key of that id."""
    return ApiKey.get_or_none(ApiKey.organization == organization_id, ApiKey.user == user_id, ApiKey.id == key_id)


def everyone(organization_id: str, user_id: str) -> list[ApiKey]:
    """Return the user's keys, oldest first, without those that have expired."""
    query: Any = ApiKey.select().where(ApiKey.organization == organization_id, ApiKey.user == user_id)
    alive = ApiKey.expires_at.is_null() | (ApiKey.expires_at > now())
    return list(query.where(alive).order_by(ApiKey.created_at, ApiKey.id))


def add(
    organization_id: str,
    user_id: str,
    *,
    digest: str,
    sealed: str,
    name: str = FIRST,
    kind: KeyKind = KeyKind.BOTH,
    expires_at: str | None = None,
) -> bool:
    """Give the user this key; False, and nothing written, when there is one of that name already."""
    query = ApiKey.insert(
        organization=organization_id,
        user=user_id,
        name=name,
        kind=kind.value,
        digest=digest,
        sealed=sealed,
        expires_at=expires_at,
    )
    return bool(query.on_conflict_ignore().as_rowcount().execute())


def renew(key_id: str, *, digest: str, sealed: str, previous_until: str | None) -> None:
    """Replace what the key is found by; the digest before stays valid until `previous_until`, if given."""
    ApiKey.update(
        digest=digest,
        sealed=sealed,
        previous_digest=ApiKey.digest if previous_until else None,
        previous_expires_at=previous_until,
        last_used_at=None,
    ).where(ApiKey.id == key_id).execute()


def mark_used(key_id: str, before: str) -> None:
    """Note that the key is used, unless that was noted after the time `before`."""
    unnoted = ApiKey.last_used_at.is_null() | (ApiKey.last_used_at <= before)
    ApiKey.update(last_used_at=now()).where(ApiKey.id == key_id, unnoted).execute()


def remove(organization_id: str, user_id: str, key_ids: Collection[str]) -> None:
    """Revoke these keys of the user."""
    mine = (ApiKey.organization == organization_id) & (ApiKey.user == user_id)
    ApiKey.delete().where(mine, ApiKey.id.in_(list(key_ids))).execute()


def remove_expired(organization_id: str, user_id: str) -> None:
    """Remove the keys of the user that have expired, so that their names are free again."""
    mine = (ApiKey.organization == organization_id) & (ApiKey.user == user_id)
    ApiKey.delete().where(mine, ApiKey.expires_at <= now()).execute()


def _believed(digest: Any, expires_at: Any, *valid: Any) -> Query:
    key = ApiKey
    wanted = (key.id, key.organization, key.user, key.kind, expires_at, key.last_used_at)
    active = User.status == UserStatus.ACTIVE.value
    return key.select(*wanted).join(User).where(digest == Given("digest"), active, *valid)


_BY_DIGEST = Statement(
    lambda: _believed(
        ApiKey.digest, ApiKey.expires_at, ApiKey.expires_at.is_null() | (ApiKey.expires_at > Given("now"))
    )
)
_BY_PREVIOUS = Statement(
    lambda: _believed(ApiKey.previous_digest, ApiKey.previous_expires_at, ApiKey.previous_expires_at > Given("now"))
)
_AMONG = Among(ApiKey, "digest", "digest", "kind", "expires_at")
_AMONG_PREVIOUS = Among(ApiKey, "previous_digest", "previous_digest", "kind", "previous_expires_at")
