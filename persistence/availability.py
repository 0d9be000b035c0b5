"""Users who say that they are there, and whether they take calls."""

from typing import Any

from peewee import fn

from domain.statuses import UserStatus
from persistence.models import User, UserAvailability


def get(organization_id: str, user_id: str) -> UserAvailability | None:
    """Return what the user last said."""
    mine = (UserAvailability.organization == organization_id) & (UserAvailability.user == user_id)
    return UserAvailability.get_or_none(mine)


def put(organization_id: str, user_id: str, **columns: Any) -> None:
    """Replace what the user said."""
    forget(organization_id, user_id)
    UserAvailability.create(organization=organization_id, user=user_id, **columns)


def forget(organization_id: str, user_id: str) -> None:
    """Delete what the user said."""
    mine = (UserAvailability.organization == organization_id) & (UserAvailability.user == user_id)
    UserAvailability.delete().where(mine).execute()


def counts(organization_id: str, at: str) -> tuple[int, int]:
    """Return how many active users are online at that instant, and how many of them are available."""
    online = (
        (UserAvailability.organization == organization_id)
        & (UserAvailability.online_until > at)
        & (UserAvailability.is_online == True)  # noqa: E712 - a column
        & (User.status == UserStatus.ACTIVE.value)
    )
    query: Any = UserAvailability.select(UserAvailability.is_available, fn.COUNT(1)).join(User).where(online)
    found = {
        bool(is_available): int(count) for is_available, count in query.group_by(UserAvailability.is_available).tuples()
    }
    return sum(found.values()), found.get(True, 0)


def lapsed(at: str, limit: int) -> list[UserAvailability]:
    """Return at most `limit` rows, of any organization, whose heartbeat ended before and was not told as ended."""
    query = UserAvailability.select().where(
        UserAvailability.is_online == True,  # noqa: E712
        UserAvailability.online_until <= at,
    )
    return list(query.order_by(UserAvailability.online_until).limit(limit))


def end(organization_id: str, user_id: str, at: str) -> bool:
    """Note that the user is offline; False if a heartbeat came meanwhile."""
    mine = (UserAvailability.organization == organization_id) & (UserAvailability.user == user_id)
    lapsed_ = (UserAvailability.is_online == True) & (UserAvailability.online_until <= at)  # noqa: E712
    return bool(UserAvailability.update(is_online=False).where(mine, lapsed_).execute())
