"""Phone numbers: everything becomes E.164 here, and nowhere else."""

import re

import phonenumbers

from domain.errors import InvalidRequest

_MAX_LENGTH = 64
_E164 = re.compile(r"\+[1-9][0-9]{1,14}\Z")


def to_e164(text: str, region: str | None = None) -> str:
    """Return `text` as E.164 (`+14155551234`), reading national forms as numbers of `region` (`CA`, `GB`).

    What already has the shape of E.164 is taken as it is even when no numbering plan knows it: plans grow, and a call
    from a strange number is still a call.

    Raises:
        InvalidRequest: when `text` cannot be a phone number.
    """
    number = _parsed(text, region)
    if number is not None and phonenumbers.is_possible_number(number):
        text = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    # Some plans are longer than the 15 digits that E.164 allows (ITU-T E.164, 6.2.1).
    if _E164.match(text):
        return text
    raise InvalidRequest("Not a phone number")


def _parsed(text: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region) if len(text) <= _MAX_LENGTH else None
    except phonenumbers.NumberParseException:
        return None


def is_region(code: str) -> bool:
    """Tell whether `code` is a two-letter region that has a numbering plan."""
    return code in phonenumbers.SUPPORTED_REGIONS


def mask(text: str) -> str:
    """Return `text` with all but the last two digits hidden, for logs."""
    return "•" * max(len(text) - 2, 0) + text[-2:]
