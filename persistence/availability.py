"""Users who say that they are there, and whether they take calls."""

from collections.abc import Mapping
from typing import Any

from persistence import users
from persistence.models import UserAvailability


def get(organization_id: str, user_id: str) -> UserAvailability | None:
    """Return what the user last said."""
    mine = (UserAvailability.organization == organization_id) & (UserAvailability.user == user_id)
    return UserAvailability.get_or_none(mine)


def put(organization_id: str, user_id: str, values: Mapping[str, object]) -> None:
    """Replace what the user said."""
    forget(organization_id, user_id)
    UserAvailability.create(organization=organization_id, user=user_id, **values)


def forget(organization_id: str, user_id: str) -> None:
    """Delete what the user said."""
    mine = (UserAvailability.organization == organization_id) & (UserAvailability.user == user_id)
    UserAvailability.delete().where(mine).execute()


def counts(organization_id: str, at: str) -> tuple[int, int]:
    """Return how many active users are online at that instant, and how many of them are available."""
    query: Any = UserAvailability.select(UserAvailability.user, UserAvailability.is_available).where(
        UserAvailability.organization == organization_id,
        UserAvailability.online_until > at,
        UserAvailability.is_online == True,  # noqa: E712 - a column
    )
    online = dict(query.tuples())
    active = users.token_versions(online)
    return len(active), sum(bool(online[user_id]) for user_id in active)


def number_of_one(organization_id: str, at: str) -> str | None:
    """Return the number of an active user who is available at that instant and has one: who was heard last of all."""
    query = UserAvailability.select().where(
        UserAvailability.organization == organization_id,
        (UserAvailability.online_until > at) & (UserAvailability.is_online == True),  # noqa: E712 - a column
        UserAvailability.is_available == True,  # noqa: E712
        UserAvailability.transfer_number.is_null(False),
    )
    there = list(query.order_by(UserAvailability.online_until.desc(), UserAvailability.user))
    active = users.token_versions([row.user_id for row in there])
    return next((row.transfer_number for row in there if row.user_id in active), None)


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
