import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from domain.times import from_wire, later, now, to_wire

WIRE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z\Z")
OFFSETS = st.integers(-(23 * 60 + 59), 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=OFFSETS)  # noqa: DTZ001


@given(MOMENTS)
def test_the_wire_form_has_one_shape(moment: datetime) -> None:
    """UTC, milliseconds, a `Z`, always twenty-four characters."""
    assert WIRE.match(to_wire(moment))


@given(MOMENTS, MOMENTS)
def test_the_wire_form_sorts_as_the_moments_do(one: datetime, other: datetime) -> None:
    """So it can be compared by any database, as text."""
    earlier, later_one = sorted((one, other))

    assert to_wire(earlier) <= to_wire(later_one)


@given(MOMENTS)
def test_what_was_written_is_read_back_to_the_millisecond(moment: datetime) -> None:
    """And written again it is the same."""
    read = from_wire(to_wire(moment))

    assert read.tzinfo is UTC
    assert abs(read - moment) < timedelta(milliseconds=1)
    assert to_wire(read) == to_wire(moment)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-15T09:10:00.000Z", "2026-05-15T09:10:00.000Z"),
        ("2026-05-15T09:10:00Z", "2026-05-15T09:10:00.000Z"),
        ("2026-05-15t09:10:00z", "2026-05-15T09:10:00.000Z"),
        ("2026-05-15T11:10:00+02:00", "2026-05-15T09:10:00.000Z"),
        ("2026-05-14T23:10:00.5-10:00", "2026-05-15T09:10:00.500Z"),
        ("2026-05-15T09:10:00.123456789Z", "2026-05-15T09:10:00.123Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z"),
    ],
)
def test_any_rfc_3339_moment_is_read(text: str, expected: str) -> None:
    """With any offset and any precision."""
    assert to_wire(from_wire(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-05-15T09:10:00",
        "2026-02-30T09:10:00Z",
        "2026-05-15T25:10:00Z",
        "2026-05-15T09:10:00+25:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "10000-01-01T00:00:00Z",
        "1747300200",
        "\0",
        "2026-05-15T09:10:00Z\n",
    ],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    """Also moments that would leave the calendar."""
    with pytest.raises(InvalidRequest, match="Not a date-time"):
        from_wire(text)


@given(st.text())
def test_any_text_is_a_moment_or_a_refusal(text: str) -> None:
    """Never another error."""
    try:
        moment = from_wire(text)
    except InvalidRequest:
        return

    assert WIRE.match(to_wire(moment))


def test_now_lies_between_before_and_after() -> None:
    """And `later` is as far from it as was asked, in both directions."""
    before, middle, after = later(-1), now(), later(1)

    assert before < middle < after
    assert timedelta(seconds=1.9) < from_wire(after) - from_wire(before) < timedelta(seconds=3)
