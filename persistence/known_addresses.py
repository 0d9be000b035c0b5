"""Addresses users have signed in from, as digests: few per user, and none for ever."""

from domain.identifiers import new_id
from domain.times import later, now
from persistence.models import KnownAddress

MOST_PER_USER = 20
KEPT_SECONDS = 90 * 86_400


def is_known(user_id: str, digest: str) -> bool:
    """Tell whether the user has signed in from that address, and not too long ago."""
    known = KnownAddress
    mine = (known.user == user_id) & (known.digest == digest)
    return bool(known.select().where(mine, known.last_used_at > later(-KEPT_SECONDS)).exists())


def remember(organization_id: str, user_id: str, digest: str) -> None:
    """Note that the user has signed in from that address; drop what is too old, and the oldest of too many."""
    known, at = KnownAddress, now()
    known.insert(id=new_id(), organization=organization_id, user=user_id, digest=digest, last_used_at=at).on_conflict(
        conflict_target=[known.user, known.digest], update={known.last_used_at: at}
    ).execute()
    newest = [
        row.id
        for row in known.select(known.id)
        .where(known.user == user_id, known.last_used_at > later(-KEPT_SECONDS))
        .order_by(known.last_used_at.desc(), known.id.desc())
        .limit(MOST_PER_USER)
    ]
    known.delete().where(known.user == user_id, known.id.not_in(newest)).execute()


def forget(user_id: str) -> None:
    """Drop every address of the user."""
    KnownAddress.delete().where(KnownAddress.user == user_id).execute()
