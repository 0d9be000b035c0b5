"""Quotas of organizations: bytes of recordings, requests a minute, sockets at once.

Everybody's limits are settings; an organization's own go before them (`manage.py org limits`). They are read again
every few seconds, so that a changed limit reaches every process. Requests are counted like those of addresses and
callers: by each process for itself, or by all of them together in the database. What vendors sign is not counted: a
webhook that is refused too often is switched off by its vendor.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from domain.audit import COMMAND_LINE, AuditAction
from domain.errors import InvalidRequest, QuotaExceeded, RateLimited, RelayError
from domain.quotas import MAX_BYTES, MAX_COUNT
from domain.repetition import Repetition
from persistence import audit, open_sockets, quotas
from persistence.database import Database
from persistence.quotas import Own

if TYPE_CHECKING:
    from actions.rates import Count
    from actions.relay import Relay

_KNOWN_SECONDS = 5.0
_MINUTE = 60

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an organization may use at most; 0 is no limit."""

    recording_bytes: int = 0
    requests_per_minute: int = 0
    sockets: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What an organization uses, and its limits; requests are those that were counted in the present minute.

    Sockets are those that are open at any broadcaster, a few seconds old.
    """

    recording_bytes: int
    requests_this_minute: int
    open_sockets: int
    limits: Allowance


class Quotas:
    """Knows the limits of organizations and counts their requests; `refused` counts what was refused, by quota.

    `shared` counts where every process sees it, under a key; without it this process counts for itself.
    """

    def __init__(self, database: Database, everybodys: Allowance, shared: "Count | None" = None) -> None:
        self._database = database
        self._everybodys = everybodys
        self._shared = shared
        self._known: dict[str, tuple[float, Allowance]] = {}
        self._minute = 0
        self._requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter({"recordings": 0, "requests": 0})
        self._repetition = Repetition()

    async def of(self, organization_id: str) -> Allowance:
        """Return the limits of an organization, not older than a few seconds unless the database is out of order."""
        known, now = self._known.get(organization_id), time.monotonic()
        if known is not None and now - known[0] < _KNOWN_SECONDS:
            return known[1]
        try:
            own = await self._database.read(lambda: quotas.get(organization_id))
        except RelayError:
            if known is None:
                raise
            return known[1]
        limits = replace(
            self._everybodys, **{name: limit for name, limit in own._asdict().items() if limit is not None}
        )
        self._known[organization_id] = (now, limits)
        return limits

    async def sockets(self, organization_id: str) -> int:
        """Return how many sockets the organization may have at once, 0 for any number."""
        return (await self.of(organization_id)).sockets

    async def admit(self, organization_id: str) -> None:
        """Count a request of the organization.

        Raises:
            RateLimited: if there were too many in this minute.
        """
        limit = (await self.of(organization_id)).requests_per_minute
        count = self._count(organization_id)
        if not limit:
            return
        if self._shared is not None:
            wait = await self._shared(f"organization {organization_id}", limit)
        else:
            wait = _MINUTE - time.time() % _MINUTE if count > limit else None
        if wait is not None:
            self.note(organization_id, "requests")
            raise RateLimited("Too many requests of this organization, please try again later", max(1, round(wait)))

    def requests_this_minute(self, organization_id: str) -> int:
        """Return how many requests of the organization this process has counted in the present minute."""
        return self._requests[organization_id] if self._minute == int(time.time()) // _MINUTE else 0

    def note(self, organization_id: str, quota: str) -> None:
        """Count that something was refused because of a quota; the log gets a line a minute at most."""
        self.refused[quota] += 1
        if refusals := self._repetition.count(f"{organization_id} {quota}"):
            log.warning("quota.exceeded", organization_id=organization_id, quota=quota, refusals=refusals)

    @contextlib.contextmanager
    def noted(self, organization_id: str) -> Iterator[None]:
        """Count and log a recording that is refused inside, and let the refusal pass."""
        try:
            yield
        except QuotaExceeded:
            self.note(organization_id, "recordings")
            raise

    def _count(self, organization_id: str) -> int:
        minute = int(time.time()) // _MINUTE
        if minute != self._minute:
            self._minute = minute
            self._requests.clear()
        self._requests[organization_id] += 1
        return self._requests[organization_id]


async def insist_on_room(relay: "Relay", organization_id: str) -> int:
    """Return how many bytes of recordings the organization may have, 0 for any number.

    Raises:
        QuotaExceeded: if it has as many already.
    """
    limit = (await relay.quotas.of(organization_id)).recording_bytes
    if limit and await relay.database.read(lambda: quotas.recording_bytes(organization_id)) >= limit:
        raise QuotaExceeded(limit)
    return limit


def insist_within(organization_id: str, limit: int) -> None:
    """Insist on the limit once a recording is counted, in the unit that counts it.

    Raises:
        QuotaExceeded: if the organization has more bytes of recordings than `limit`.
    """
    if limit and quotas.recording_bytes(organization_id) > limit:
        raise QuotaExceeded(limit)


async def usage(relay: "Relay", organization_id: str) -> Usage:
    """Return what the organization uses of its quotas."""
    limits = await relay.quotas.of(organization_id)
    used, sockets = await relay.database.read(
        lambda: (quotas.recording_bytes(organization_id), open_sockets.count(organization_id))
    )
    return Usage(used, relay.quotas.requests_this_minute(organization_id), sockets, limits)


async def own_limits(relay: "Relay", organization_id: str) -> Own:
    """Return the organization's own limits."""
    return await relay.database.read(lambda: quotas.get(organization_id))


async def set_own_limits(relay: "Relay", organization_id: str, own: Own) -> None:
    """Replace the organization's own limits.

    Raises:
        InvalidRequest: if a limit is negative or absurdly large.
    """
    for limit, most in zip(own, (MAX_BYTES, MAX_COUNT, MAX_COUNT), strict=True):
        if limit is not None and not 0 <= limit <= most:
            raise InvalidRequest(f"A limit goes from 0, which is none, to {most}")

    def unit() -> None:
        quotas.put(organization_id, own)
        audit.record(organization_id, AuditAction.LIMITS_CHANGED, COMMAND_LINE, details=own._asdict())

    await relay.database.write(unit)
