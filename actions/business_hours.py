"""When an organization is open: read, changed, and asked for in the middle of a call."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

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

# A day, a holiday or exceptional hours, as it was given and is stored.
Entry: TypeAlias = dict[str, Any]

_START, _END = "09:00", "17:00"
_NAMES = ("date", "closed", "enabled", "start", "end", "label")
_DEFAULT_WEEK: dict[str, Entry] = {day: {"enabled": day in DEFAULT_WEEK, "start": _START, "end": _END} for day in DAYS}


# What the audit log calls what may be changed.
_FIELDS = {
    "timezone": "timezone",
    "week": "businessHours",
    "holidays": "holidays",
    "exceptional": "exceptionalHours",
    "allow_user_override": "allowUserBusinessHoursOverride",
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """When an organization is open: by day of the week, and on dates of their own."""

    timezone: str
    week: dict[str, Entry]
    is_default: bool
    holidays: list[Entry]
    exceptional: list[Entry]
    allow_user_override: bool


@dataclass(frozen=True, slots=True)
class OpenNow:
    """Whether an organization is open, and what a clock on its wall shows (`Monday 14:32`)."""

    is_open: bool
    current_time: str
    timezone: str
    organization_name: str


async def read_business_hours(relay: Relay, organization_id: str, asked: str) -> Schedule:
    """Return the schedule of the organization `asked`, which must be the caller's own.

    Raises:
        NotFound: if it is another one.
    """
    _insist_on_own(organization_id, asked)
    return await relay.database.read(lambda: _stored(organization_hours.get(organization_id)))


async def change_business_hours(
    relay: Relay, organization_id: str, asked: str, given: Mapping[str, Any], actor: Actor
) -> Schedule:
    """Change what is `given`, by the fields of a `Schedule`, and return the schedule as it is then.

    A `week` of None clears the weekly schedule, and the default one applies.

    Raises:
        NotFound: if the organization `asked` is not the caller's own.
        InvalidRequest: if a time zone, a time of the day or a date does not exist.
    """
    _insist_on_own(organization_id, asked)
    columns, fields = _columns(given), sorted(_FIELDS[name] for name in given)

    def unit() -> Schedule:
        organization_hours.put(organization_id, columns, otherwise={"timezone": DEFAULT_TIMEZONE})
        audit.record(organization_id, AuditAction.HOURS_CHANGED, actor, details={"fields": fields})
        return _stored(organization_hours.get(organization_id))

    return await relay.database.write(unit, of=organization_id)


async def is_open_now(relay: Relay, organization_id: str, at: datetime | None = None) -> OpenNow:
    """Return whether the organization is open at `at`, now if None."""

    def unit() -> OpenNow:
        schedule = _schedule(_stored(organization_hours.get(organization_id)))
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


# As it is stored, and as it is read


def _columns(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns to change, after everything in them was read once."""
    nothing = Schedule(DEFAULT_TIMEZONE, {}, False, [], [], False)
    _schedule(replace(nothing, **{name: value for name, value in given.items() if value is not None}))
    return {name: stored(given[name]) for name, stored in _COLUMNS.items() if name in given}


def _week(given: Mapping[str, Entry] | None) -> str | None:
    return None if given is None else dump({day: _with_hours(given[day]) for day in DAYS if day in given}).decode()


def _holidays(given: list[Entry]) -> str:
    return dump([_entry(one) for one in given]).decode()


def _exceptional(given: list[Entry]) -> str:
    return dump([_with_hours({"closed": False} | one) for one in given]).decode()


_COLUMNS: Mapping[str, Callable[[Any], object]] = {
    "timezone": str,
    "week": _week,
    "holidays": _holidays,
    "exceptional": _exceptional,
    "allow_user_override": bool,
}


def _entry(given: Entry) -> Entry:
    return {name: given[name] for name in _NAMES if name in given}


def _with_hours(given: Entry) -> Entry:
    is_closed = given.get("closed") or given.get("enabled") is False
    return _entry(given if is_closed else {"start": _START, "end": _END} | given)


def _stored(row: OrganizationHours | None) -> Schedule:
    if row is None:
        return Schedule(DEFAULT_TIMEZONE, _DEFAULT_WEEK, True, [], [], False)
    return Schedule(
        row.timezone,
        _DEFAULT_WEEK if row.week is None else load(row.week),
        row.week is None,
        load(row.holidays),
        load(row.exceptional),
        row.allow_user_override,
    )


def _schedule(given: Schedule) -> BusinessHours:
    """Read a schedule.

    Raises:
        InvalidRequest: if a time zone, a time of the day or a date in it does not exist.
    """
    return BusinessHours(
        zone(given.timezone).key,
        {day: _hours(entry) for day, entry in given.week.items() if entry["enabled"]},
        tuple(Holiday(to_date(one["date"]), one.get("label")) for one in given.holidays),
        tuple(
            ExceptionalHours(to_date(one["date"]), None if one.get("closed") else _hours(one), one.get("label"))
            for one in given.exceptional
        ),
    )


def _hours(entry: Entry) -> Hours:
    return Hours(to_time(entry.get("start", _START)), to_time(entry.get("end", _END)))
