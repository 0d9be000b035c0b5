"""How many sockets each organization has open at each broadcaster, for as long as the broadcaster says so.

A row ends by itself: what a killed broadcaster counted is not counted for longer than `LIFE_SECONDS`.
"""

from collections.abc import Mapping
from typing import Any

from peewee import fn

from domain.identifiers import new_id
from domain.times import later, now
from persistence.models import OpenSockets

LIFE_SECONDS = 45.0


def put(broadcaster: str, place: str, counts: Mapping[str, int]) -> None:
    """Replace what the broadcaster counted for these organizations; a count of 0 removes the row."""
    sockets, ends_at = OpenSockets, later(LIFE_SECONDS)
    for organization_id, count in counts.items():
        if not count:
            mine = (sockets.organization == organization_id) & (sockets.broadcaster == broadcaster)
            sockets.delete().where(mine).execute()
            continue
        sockets.insert(
            id=new_id(),
            organization=organization_id,
            broadcaster=broadcaster,
            place=place,
            count=count,
            ends_at=ends_at,
        ).on_conflict(
            conflict_target=[sockets.organization, sockets.broadcaster],
            update={sockets.count: count, sockets.ends_at: ends_at},
        ).execute()


def prolong(broadcaster: str) -> int:
    """Let the broadcaster's rows live on and remove those that have ended; return how many rows it has."""
    sockets = OpenSockets
    sockets.delete().where(sockets.ends_at <= now()).execute()
    mine = sockets.broadcaster == broadcaster
    return int(sockets.update(ends_at=later(LIFE_SECONDS)).where(mine).execute())


def leave(place: str) -> None:
    """Remove every row from this place: a broadcaster starts or stops there."""
    OpenSockets.delete().where(OpenSockets.place == place).execute()


def elsewhere(broadcaster: str) -> dict[str, int]:
    """Return how many sockets each organization has open at the other broadcasters."""
    sockets = OpenSockets
    total = fn.SUM(sockets.count)
    others = (sockets.broadcaster != broadcaster) & (sockets.ends_at > now())
    query: Any = sockets.select(sockets.organization, total).where(others).group_by(sockets.organization)
    return {organization_id: int(count) for organization_id, count in query.tuples()}


def count(organization_id: str) -> int:
    """Return how many sockets the organization has open at all broadcasters."""
    sockets = OpenSockets
    its_own = (sockets.organization == organization_id) & (sockets.ends_at > now())
    return int(sockets.select(fn.SUM(sockets.count)).where(its_own).scalar() or 0)
