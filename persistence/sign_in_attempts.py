"""Attempts to sign in, counted where every process sees them."""

from domain.times import later, now
from persistence.models import SignInAttempts


def take(key: str, limit: int, window: float) -> str | None:
    """Count an attempt for `key` before it is made; return when to come back if there were `limit` already.

    `window` is in seconds and begins with the first attempt. Two attempts never both take the last place: the count
    goes up in one statement. Windows that are over are swept away as we pass.
    """
    attempts = SignInAttempts
    attempts.delete().where(attempts.window_ends_at <= now()).execute()
    attempts.insert(key=key, window_ends_at=later(window)).on_conflict_ignore().execute()
    free = attempts.update(count=attempts.count + 1).where(attempts.key == key, attempts.count < limit)
    if free.execute():
        return None
    ends_at: str | None = attempts.select(attempts.window_ends_at).where(attempts.key == key).scalar()
    return ends_at or now()


def forget(key: str) -> None:
    """Begin anew for `key`: whoever it is has just proved who they are."""
    SignInAttempts.delete().where(SignInAttempts.key == key).execute()


def give_back(key: str) -> None:
    """Uncount one attempt, which turned out to be a good one."""
    attempts = SignInAttempts
    attempts.update(count=attempts.count - 1).where(attempts.key == key, attempts.count > 0).execute()
