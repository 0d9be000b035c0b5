"""When an organization is open: read, changed, and asked for in the middle of a call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from actions.relay import Relay
from domain.audit import Actor, AuditAction
from domain.business_hours import (
    DAYS,
    DEFAULT_TIMEZONE,
    DEFAULT_WEEK,
    BusinessHours,
    ExceptionalHours,
    Holiday,
    Hours,
    spoken_time,
    to_date,
    to_time,
    zone,
)
from domain.documents import dump, load
from domain.errors import NotFound
from persistence import audit, organization_hours, organizations
from persistence.models import OrganizationHours

_START, _END = "09:00", "17:00"
_NAMES = ("date", "closed", "enabled", "start", "end", "label")
_DEFAULT_WEEK = {day: {"enabled": day in DEFAULT_WEEK, "start": _START, "end": _END} for day in DAYS}


@dataclass(frozen=True, slots=True)
class OpenNow:
    """Whether an organization is open, and what a clock on its wall shows (`Monday 14:32`)."""

    is_open: bool
    current_time: str
    timezone: str
    organization_name: str


async def read_business_hours(relay: Relay, organization_id: str, asked: str) -> dict[str, Any]:
    """Return the schedule of the organization `asked`, which must be the caller's own, in the contract's words.

    Raises:
        NotFound: if it is another one.
    """
    _insist_on_own(organization_id, asked)
    return await relay.database.read(lambda: _described(organization_hours.get(organization_id)))


async def change_business_hours(
    relay: Relay, organization_id: str, asked: str, given: Mapping[str, Any], actor: Actor
) -> dict[str, Any]:
    """Change what is `given`, in the contract's words, and return the schedule as it is then.

    `businessHours` of None clears the weekly schedule, and the default one applies.

    Raises:
        NotFound: if the organization `asked` is not the caller's own.
        InvalidRequest: if a time zone, a time of the day or a date does not exist.
    """
    _insist_on_own(organization_id, asked)
    columns = _columns(given)

    def unit() -> dict[str, Any]:
        organization_hours.put(organization_id, columns, otherwise={"timezone": DEFAULT_TIMEZONE})
        audit.record(organization_id, AuditAction.HOURS_CHANGED, actor, details={"fields": sorted(given)})
        return _described(organization_hours.get(organization_id))

    return await relay.database.write(unit, of=organization_id)


async def is_open_now(relay: Relay, organization_id: str, at: datetime | None = None) -> OpenNow:
    """Return whether the organization is open at `at`, now if None."""

    def unit() -> OpenNow:
        schedule = _schedule(_described(organization_hours.get(organization_id)))
        moment = at or datetime.now(UTC)
        organization = organizations.get(organization_id)
        return OpenNow(
            schedule.is_open(moment),
            spoken_time(schedule.local(moment)),
            schedule.timezone,
            organization.name if organization else "",
        )

    return await relay.database.read(unit)


def _insist_on_own(organization_id: str, asked: str) -> None:
    if asked != organization_id:
        raise NotFound("Organization not found")


# Stored and described


def _columns(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns to change, after everything in them was read once."""
    nothing = {"timezone": DEFAULT_TIMEZONE, "businessHours": {}, "holidays": [], "exceptionalHours": []}
    _schedule(nothing | {name: value for name, value in given.items() if value is not None})
    return {column: stored(given[name]) for name, (column, stored) in _COLUMNS.items() if name in given}


def _week(given: Mapping[str, Any] | None) -> str | None:
    return None if given is None else dump({day: _with_hours(given[day]) for day in DAYS if day in given}).decode()


def _holidays(given: list[dict[str, Any]]) -> str:
    return dump([_entry(one) for one in given]).decode()


def _exceptional(given: list[dict[str, Any]]) -> str:
    return dump([_with_hours({"closed": False} | one) for one in given]).decode()


_COLUMNS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "timezone": ("timezone", str),
    "businessHours": ("week", _week),
    "holidays": ("holidays", _holidays),
    "exceptionalHours": ("exceptional", _exceptional),
    "allowUserBusinessHoursOverride": ("allow_user_override", bool),
}


def _entry(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in _NAMES if name in given}


def _with_hours(given: Mapping[str, Any]) -> dict[str, Any]:
    is_closed = given.get("closed") or given.get("enabled") is False
    return _entry(given if is_closed else {"start": _START, "end": _END} | dict(given))


def _described(row: OrganizationHours | None) -> dict[str, Any]:
    week = row.week if row else None
    return {
        "timezone": row.timezone if row else DEFAULT_TIMEZONE,
        "businessHours": _DEFAULT_WEEK if week is None else load(week),
        "isDefault": week is None,
        "holidays": load(row.holidays) if row else [],
        "exceptionalHours": load(row.exceptional) if row else [],
        "allowUserBusinessHoursOverride": bool(row and row.allow_user_override),
    }


def _schedule(described: Mapping[str, Any]) -> BusinessHours:
    """Read a schedule.

    Raises:
        InvalidRequest: if a time zone, a time of the day or a date in it does not exist.
    """
    week = described["businessHours"]
    return BusinessHours(
        zone(described["timezone"]).key,
        {day: _hours(entry) for day, entry in week.items() if entry["enabled"]},
        tuple(Holiday(to_date(one["date"]), one.get("label")) for one in described["holidays"]),
        tuple(
            ExceptionalHours(to_date(one["date"]), None if one.get("closed") else _hours(one), one.get("label"))
            for one in described["exceptionalHours"]
        ),
    )


def _hours(entry: Mapping[str, Any]) -> Hours:
    return Hours(to_time(entry.get("start", _START)), to_time(entry.get("end", _END)))
