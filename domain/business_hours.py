"""When an organization is open: a weekly schedule in its own time zone, holidays, and days with hours of their own.

Everything is decided by the wall clock of the zone. Where daylight saving skips or repeats an hour, the hours therefore
begin and end when a clock on the wall shows them. The zones are those of the `tzdata` package, so every machine knows
the same ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import cache, lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

from domain.errors import InvalidRequest

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
DEFAULT_TIMEZONE = "UTC"

_DAY = timedelta(days=1)
_HIGHEST_HOUR, _HIGHEST_MINUTE = 23, 59


@dataclass(frozen=True, slots=True)
class Hours:
    """From `start` up to, not including, `end`; an end that is not after the start lies on the next day."""

    start: time
    end: time

    def on(self, day: date) -> tuple[datetime, datetime]:
        """Return when the hours that begin on `day` begin and end, by the clock on the wall."""
        until = day if self.end > self.start else day + _DAY
        return datetime.combine(day, self.start), datetime.combine(until, self.end)


@dataclass(frozen=True, slots=True)
class Holiday:
    """A day on which the organization is closed."""

    date: date
    label: str | None = None


@dataclass(frozen=True, slots=True)
class ExceptionalHours:
    """Hours that replace those of one date, weekly or holiday; None when the organization is closed on it."""

    date: date
    hours: Hours | None
    label: str | None = None


# Monday to Friday, nine to five: what an organization has that never said anything else.
DEFAULT_WEEK: Mapping[str, Hours] = {day: Hours(time(9), time(17)) for day in DAYS[:5]}


@dataclass(frozen=True, slots=True)
class BusinessHours:
    """An organization's schedule; a day that `week` does not name is closed."""

    timezone: str = DEFAULT_TIMEZONE
    week: Mapping[str, Hours] = field(default_factory=lambda: DEFAULT_WEEK)
    holidays: tuple[Holiday, ...] = ()
    exceptional: tuple[ExceptionalHours, ...] = ()

    def is_open(self, at: datetime) -> bool:
        """Tell whether the organization is open at the instant `at`, which must be aware.

        Hours belong to the date on which they begin, and may go on past midnight. On a date that is closed as a whole
        the organization is closed from midnight to midnight.
        """
        wall = self.local(at)
        if self._is_closed(wall.date()):
            return False
        spans = [*self._spans(wall.date() - _DAY), *self._spans(wall.date())]
        return any(start <= wall < end for start, end in spans)

    def local(self, at: datetime) -> datetime:
        """Return what a clock on the wall shows at `at`."""
        return at.astimezone(zone(self.timezone)).replace(tzinfo=None, fold=0)

    def _is_closed(self, day: date) -> bool:
        exceptions = [one.hours for one in self.exceptional if one.date == day]
        return None in exceptions if exceptions else any(one.date == day for one in self.holidays)

    def _spans(self, day: date) -> Iterator[tuple[datetime, datetime]]:
        if self._is_closed(day):
            return
        exceptions = [one.hours for one in self.exceptional if one.date == day]
        weekly = self.week.get(DAYS[day.weekday()])
        for hours in exceptions or [weekly]:
            if hours is not None:
                yield hours.on(day)


def spoken_time(wall: datetime) -> str:
    """Return `Monday 14:32`."""
    return f"{DAYS[wall.weekday()].capitalize()} {wall:%H:%M}"


def to_time(text: str) -> time:
    """Read `HH:mm`.

    Raises:
        InvalidRequest: if `text` is no time of the day.
    """
    hours, colon, minutes = text.partition(":")
    is_digits = text.isascii() and hours.isdigit() and minutes.isdigit() and len(hours) == len(minutes) == len("HH")
    if not (colon and is_digits and int(hours) <= _HIGHEST_HOUR and int(minutes) <= _HIGHEST_MINUTE):
        raise InvalidRequest(f"Not a time of the day such as 09:00: {text[:20]!r}")
    return time(int(hours), int(minutes))


def to_date(text: str) -> date:
    """Read `YYYY-MM-DD`.

    Raises:
        InvalidRequest: if `text` is no date of the calendar.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest(f"Not a date such as 2026-12-25: {text[:20]!r}") from error
    if day.isoformat() != text:
        raise InvalidRequest(f"Not a date such as 2026-12-25: {text[:20]!r}")
    return day


# Time zones


@cache
def timezones() -> frozenset[str]:
    """Return the names of all IANA time zones."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """Return the time zone of that IANA name.

    Raises:
        InvalidRequest: if there is none.
    """
    if name not in timezones():
        raise InvalidRequest(f"Not an IANA time zone such as America/Toronto: {name[:40]!r}")
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)
