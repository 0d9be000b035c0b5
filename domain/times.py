"""Times: UTC everywhere, written as ISO 8601 with milliseconds and `Z`.

The wire form is also the stored form. It has a fixed width, so it sorts as text on every engine and a person can
read it.
"""

from datetime import UTC, datetime, timedelta

from domain.errors import InvalidRequest


def to_wire(moment: datetime) -> str:
    """Return `moment` as `2026-05-15T09:10:00.000Z`; `moment` must be aware."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_wire(text: str) -> datetime:
    """Read an RFC 3339 date-time.

    Raises:
        InvalidRequest: when `text` is no date-time, has no offset, or lies outside the years 1 to 9999.
    """
    try:
        moment = datetime.fromisoformat(text.upper())
        if moment.tzinfo is None:
            raise ValueError("no offset")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"Not a date-time with an offset: {text[:40]!r}") from error


def now() -> str:
    """Return the present moment in wire form."""
    return to_wire(datetime.now(UTC))


def later(seconds: float) -> str:
    """Return the moment `seconds` from now (negative: ago) in wire form."""
    return to_wire(datetime.now(UTC) + timedelta(seconds=seconds))
