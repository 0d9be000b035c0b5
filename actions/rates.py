"""How often one may ask: counted per address before anything is believed, and per caller once they are known.

A counter begins with the first request and ends a minute later. Kept in memory, each process counts for itself, so that
several of them together let through several times as much; kept in the database, all of them count together, at the
price of a write per request.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from actions.quotas import Quotas
from domain.addresses import network_of
from domain.errors import RateLimited, RelayError
from domain.principals import Principal
from domain.times import from_wire, now
from keyring.vault import digest
from persistence import sign_in_attempts
from persistence.database import Database

# Takes a key and how often a minute it may come; returns the seconds until it is let through, None for now.
Count = Callable[[str, int], Awaitable[float | None]]

_WINDOW_SECONDS = 60


def in_memory() -> Count:
    """Count in this process alone."""
    windows = _Windows()

    async def count(key: str, limit: int) -> float | None:
        return windows.count(key, limit)

    return count


class _Windows:
    """The windows of every key; each begins with the key's first request, and is discarded soon after its end."""

    def __init__(self) -> None:
        # Two generations: what is not found in the newer and was not begun in the older has ended.
        self._newer: dict[str, _Window] = {}
        self._older: dict[str, _Window] = {}
        self._turns_at = 0.0

    def count(self, key: str, limit: int) -> float | None:
        instant = time.monotonic()
        if instant >= self._turns_at:
            self._newer, self._older = {}, self._newer
            self._turns_at = instant + _WINDOW_SECONDS
        window = self._newer.get(key) or self._older.get(key)
        if window is None or window.ends_at <= instant:
            window = self._newer[key] = _Window(instant + _WINDOW_SECONDS)
        window.requests += 1
        return window.ends_at - instant if window.requests > limit else None


@dataclass(slots=True)
class _Window:
    ends_at: float
    requests: int = 0


def in_database(database: Database) -> Count:
    """Count where every process on the database sees it; while it cannot be written, in this process alone."""
    here = in_memory()

    async def count(key: str, limit: int) -> float | None:
        hidden = digest(f"rate {key}")
        try:
            free_at = await database.write(lambda: sign_in_attempts.take(hidden, limit, _WINDOW_SECONDS))
        except RelayError:
            return await here(key, limit)
        return None if free_at is None else (from_wire(free_at) - from_wire(now())).total_seconds()

    return count


@dataclass(frozen=True, slots=True)
class Rates:
    """How many requests a minute are let through; 0 for any number."""

    per_address: int = 0
    per_caller: int = 0
    count: Count = field(default_factory=in_memory, repr=False)
    unnamed_deliveries: int = 0
    quotas: Quotas | None = field(default=None, repr=False)

    async def admit_address(self, address: str | None) -> None:
        """Count a request from `address`; None when the server does not know it.

        Raises:
            RateLimited: when there were too many.
        """
        if self.per_address:
            await self._admit(f"address {network_of(address)}", self.per_address)

    async def admit_caller(self, principal: Principal) -> None:
        """Count a request of a caller whose token was verified, and of the caller's organization.

        Raises:
            RateLimited: when there were too many.
        """
        if self.quotas is not None:
            await self.quotas.admit(principal.organization_id)
        if self.per_caller:
            who = principal.user_id or principal.organization_id
            await self._admit(f"{principal.kind.value} {who}", self.per_caller)

    async def admit_unnamed_delivery(self, address: str | None) -> None:
        """Count a delivery from `address` on which more than one organization's secret may have to be tried.

        Raises:
            RateLimited: when there were too many.
        """
        if self.unnamed_deliveries:
            await self._admit(f"unnamed delivery {network_of(address)}", self.unnamed_deliveries)

    async def _admit(self, key: str, limit: int) -> None:
        wait = await self.count(key, limit)
        if wait is not None:
            raise RateLimited("Too many requests, please try again later", max(1, round(wait)))
