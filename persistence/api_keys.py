"""API keys: one per user, found by digest."""

from collections.abc import Collection

from persistence.models import ApiKey
from persistence.statements import Among, Lookup

_BY_DIGEST = Lookup(ApiKey, "digest")
_AMONG = Among(ApiKey, "digest", "digest")


def by_digest(digest: str) -> ApiKey | None:
    """Return the key whose SHA-256 is `digest`; the lookup by which a key is believed."""
    return _BY_DIGEST.find(digest)


def among(digests: Collection[str]) -> set[str]:
    """Return those of the digests that are still a key's."""
    return {digest for (digest,) in _AMONG.find(digests)}


def of_user(organization_id: str, user_id: str) -> ApiKey | None:
    """Return the user's key."""
    return ApiKey.get_or_none(ApiKey.organization == organization_id, ApiKey.user == user_id)


def add(organization_id: str, user_id: str, *, digest: str, sealed: str) -> bool:
    """Give the user this key; False, and nothing written, when there is one already."""
    query = ApiKey.insert(organization=organization_id, user=user_id, digest=digest, sealed=sealed)
    return bool(query.on_conflict_ignore().as_rowcount().execute())


def put(organization_id: str, user_id: str, *, digest: str, sealed: str) -> None:
    """Give the user this key, in place of any earlier one."""
    ApiKey.insert(organization=organization_id, user=user_id, digest=digest, sealed=sealed).on_conflict(
        conflict_target=[ApiKey.user],
        preserve=[ApiKey.digest, ApiKey.sealed, ApiKey.created_at],
        where=(ApiKey.organization == organization_id),
    ).execute()
