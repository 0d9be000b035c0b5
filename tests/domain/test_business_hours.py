"""The wall clock of a zone decides: across daylight saving, across midnight, on dates that are not like the others."""

import zoneinfo
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.business_hours import (
    DAYS,
    BusinessHours,
    ExceptionalHours,
    Holiday,
    Hours,
    spoken_time,
    timezones,
    to_date,
    to_time,
    zone,
)
from domain.errors import InvalidRequest

# Zones that skip and repeat hours at two, at midnight (Beirut, Havana), by thirty minutes (Lord Howe), and a whole
# date (Apia, 30 December 2011).
ZONES = (
    "UTC",
    "America/Toronto",
    "Europe/Berlin",
    "Asia/Beirut",
    "America/Havana",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kathmandu",
)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
TIMES = st.times().map(lambda at: at.replace(second=0, microsecond=0))
HOURS = st.builds(Hours, TIMES, TIMES)
INSTANTS = st.datetimes(datetime(2009, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
WEEKS = st.dictionaries(st.sampled_from(DAYS), HOURS)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def is_open_by_the_minute(schedule: BusinessHours, wall: datetime) -> bool:
    """Decide it another way: look at each of the 2,880 minutes before, and whether hours that began then still run."""
    closed = {one.date for one in schedule.exceptional if one.hours is None}
    own = {one.date: one.hours for one in schedule.exceptional if one.date not in closed}
    closed |= {one.date for one in schedule.holidays if one.date not in own}
    if wall.date() in closed:
        return False
    for day in (wall.date(), wall.date() - DAY):
        hours = own.get(day, schedule.week.get(DAYS[day.weekday()]))
        if day in closed or hours is None:
            continue
        begins = hours.start.hour * 60 + hours.start.minute
        lasts = (hours.end.hour * 60 + hours.end.minute - begins - 1) % 1440 + 1
        minute = (wall - datetime.combine(day, time())) // MINUTE
        if begins <= minute < begins + lasts:
            return True
    return False


@given(
    st.sampled_from(ZONES),
    WEEKS,
    INSTANTS,
    st.lists(st.integers(-1, 1)),
    st.dictionaries(st.integers(-1, 1), st.none() | HOURS),
)
def test_schedule_is_open_exactly_when_the_clock_on_the_wall_says_so(
    name: str, week: dict[str, Hours], instant: datetime, holidays: list[int], exceptional: dict[int, Hours | None]
) -> None:
    """Any zone, any week, any dates around the instant, against an independent reckoning in minutes."""
    today = instant.astimezone(zone(name)).date()
    schedule = BusinessHours(
        name,
        week,
        tuple(Holiday(today + away * DAY) for away in holidays),
        tuple(ExceptionalHours(today + away * DAY, hours) for away, hours in exceptional.items()),
    )

    assert schedule.is_open(instant) == is_open_by_the_minute(schedule, schedule.local(instant))


@given(st.sampled_from(ZONES), TIMES, INSTANTS)
def test_hours_that_end_where_they_begin_never_close(name: str, turn: time, instant: datetime) -> None:
    """Not for a minute, whatever the clocks do."""
    schedule = BusinessHours(name, dict.fromkeys(DAYS, Hours(turn, turn)))

    assert schedule.is_open(instant)


@given(st.sampled_from(ZONES), HOURS, INSTANTS)
def test_hours_and_their_complement_share_no_instant(name: str, hours: Hours, instant: datetime) -> None:
    """The end is the first minute that is closed, also over midnight."""
    if hours.start == hours.end:
        return
    open_, closed = (BusinessHours(name, dict.fromkeys(DAYS, one)) for one in (hours, Hours(hours.end, hours.start)))

    assert open_.is_open(instant) != closed.is_open(instant)


@pytest.mark.parametrize(
    ("name", "instant", "shown"),
    [
        # Toronto goes from 01:59 to 03:00 on 8 March 2026 and from 01:59 back to 01:00 on 1 November.
        ("America/Toronto", "2026-03-08T06:59:00+00:00", "Sunday 01:59"),
        ("America/Toronto", "2026-03-08T07:00:00+00:00", "Sunday 03:00"),
        ("America/Toronto", "2026-11-01T05:30:00+00:00", "Sunday 01:30"),
        ("America/Toronto", "2026-11-01T06:30:00+00:00", "Sunday 01:30"),
        # Havana has no midnight on 8 March 2026.
        ("America/Havana", "2026-03-08T05:00:00+00:00", "Sunday 01:00"),
        ("Asia/Kathmandu", "2026-05-18T18:14:59+00:00", "Monday 23:59"),
        ("Asia/Kathmandu", "2026-05-18T18:15:00+00:00", "Tuesday 00:00"),
    ],
)
def test_time_is_said_as_the_wall_shows_it(name: str, instant: str, shown: str) -> None:
    """The weekday in English and the time with minutes."""
    assert spoken_time(BusinessHours(name).local(at(instant))) == shown


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        ("2026-03-08T06:30:00+00:00", True),  # 01:30, of the shift that began at 22:00
        ("2026-03-08T07:00:00+00:00", False),  # 03:00; the hour in which the shift would have ended is skipped
        ("2026-11-01T05:59:00+00:00", True),  # 01:59, the first time
        ("2026-11-01T06:59:00+00:00", True),  # 01:59, the second time
        ("2026-11-01T07:00:00+00:00", True),  # 02:00
        ("2026-11-01T07:30:00+00:00", False),  # 02:30
    ],
)
def test_night_shift_ends_by_the_clock_on_the_wall(instant: str, is_open: bool) -> None:
    """A shift from 22:00 to 02:30 in the nights in which the clocks change."""
    schedule = BusinessHours("America/Toronto", {"saturday": Hours(time(22), time(2, 30))})

    assert schedule.is_open(at(instant)) is is_open


@pytest.mark.parametrize(
    ("instant", "is_open"),
    [
        ("2026-05-18T12:59:59+00:00", False),
        ("2026-05-18T13:00:00+00:00", True),
        ("2026-05-18T20:59:59+00:00", True),
        ("2026-05-18T21:00:00+00:00", False),
        ("2026-05-16T15:00:00+00:00", False),  # a Saturday
    ],
)
def test_default_is_nine_to_five_from_monday_to_friday(instant: str, is_open: bool) -> None:
    """In the zone of the organization."""
    assert BusinessHours("America/Toronto").is_open(at(instant)) is is_open


def test_date_that_is_closed_ends_the_shift_of_the_day_before_at_midnight() -> None:
    """A holiday is closed from midnight to midnight."""
    night = dict.fromkeys(DAYS, Hours(time(20), time(4)))
    schedule = BusinessHours("UTC", night, (Holiday(date(2026, 12, 25), "Christmas Day"),))
    asked = (
        "2026-12-24T23:59:00Z",
        "2026-12-25T00:00:00Z",
        "2026-12-25T21:00:00Z",
        "2026-12-26T01:00:00Z",
        "2026-12-26T20:00:00Z",
    )

    assert [schedule.is_open(at(one)) for one in asked] == [True, False, False, False, True]


def test_exceptional_hours_replace_those_of_their_date_and_a_holiday() -> None:
    """The more particular entry wins; several of one date add up, unless one of them is closed."""
    eve, day = date(2026, 12, 24), date(2026, 12, 25)
    short = ExceptionalHours(eve, Hours(time(9), time(13)), "Christmas Eve")
    extra = ExceptionalHours(eve, Hours(time(18), time(19)))
    schedule = BusinessHours(
        "UTC", holidays=(Holiday(day),), exceptional=(short, extra, ExceptionalHours(day, Hours(time(10), time(11))))
    )
    shut = BusinessHours("UTC", exceptional=(short, ExceptionalHours(eve, None)))
    asked = (
        "2026-12-24T12:59:00Z",
        "2026-12-24T13:00:00Z",
        "2026-12-24T18:30:00Z",
        "2026-12-25T10:30:00Z",
        "2026-12-25T11:00:00Z",
    )

    assert [schedule.is_open(at(one)) for one in asked] == [True, False, True, True, False]
    assert not shut.is_open(at("2026-12-24T12:00:00Z"))


@pytest.mark.parametrize(
    "text", ["", "9:00", "09:0", "24:00", "09:60", "09-00", "0900", "٠٩:٠٠", "+9:00", " 9:00", "09:00:00"]
)
def test_what_is_no_time_of_the_day_is_refused(text: str) -> None:
    """Two digits, a colon, two digits."""
    with pytest.raises(InvalidRequest):
        to_time(text)


@pytest.mark.parametrize(
    "text", ["", "2026-02-29", "2026-13-01", "20261225", "2026-W52-5", "25.12.2026", "2026-12-25T00:00"]
)
def test_what_is_no_date_is_refused(text: str) -> None:
    """A date of the calendar, as the page writes it."""
    with pytest.raises(InvalidRequest):
        to_date(text)


@given(TIMES, st.dates())
def test_times_and_dates_are_read_as_they_are_written(moment: time, day: date) -> None:
    """Every one there is."""
    assert to_time(f"{moment:%H:%M}") == moment
    assert to_date(day.isoformat()) == day


@pytest.mark.parametrize("name", ["", "Toronto", "america/toronto", "../zones", "EST5", "America/Toronto\n", "zones"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    """Names come from a list and never lead to another file."""
    with pytest.raises(InvalidRequest):
        zone(name)


def test_every_listed_zone_can_be_read() -> None:
    """Hundreds of them."""
    assert len(timezones()) > 400
    assert {zone(name).key for name in timezones()} == timezones()


def test_zones_come_with_the_package() -> None:
    """A machine without any time zone data of its own knows them."""
    zone.cache_clear()
    zoneinfo.reset_tzpath(())
    try:
        assert zone("America/Toronto").utcoffset(datetime(2026, 7, 1)) == -4 * timedelta(hours=1)  # noqa: DTZ001
    finally:
        zoneinfo.reset_tzpath()
