"""What vendors push to us: reading their forms, and believing their signatures only in constant time."""

import hmac
from collections.abc import Iterable
from urllib.parse import parse_qsl

from domain.errors import InvalidRequest, Unauthenticated

_MAX_FIELDS = 200


def read_form(body: bytes) -> list[tuple[str, str]]:
    """Read an `application/x-www-form-urlencoded` body in order, blank values included.

    Raises:
        InvalidRequest: when it is no such form, is not UTF-8, or has more than 200 fields.
    """
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise InvalidRequest("Request body is not a readable form") from error


def require_any(expected: Iterable[str], given: str) -> None:
    """Insist that `given` is one of the `expected` signatures, in time that does not depend on where they differ.

    Raises:
        Unauthenticated: when it is none of them.
    """
    raw = given.encode("utf-8", "replace")
    if not any(hmac.compare_digest(each.encode(), raw) for each in expected):
        raise Unauthenticated("The signature does not match")


def require_recent(timestamp: float, now: float, tolerance_seconds: float) -> None:
    """Insist that `timestamp` lies within `tolerance_seconds` of `now`, before or after; all in Unix seconds.

    Raises:
        Unauthenticated: when it does not.
    """
    if abs(now - timestamp) > tolerance_seconds:
        raise Unauthenticated("The signature is too old, or from the future")
