"""Phone numbers: everything becomes E.164 here, and nowhere else."""

import phonenumbers

from domain.errors import InvalidRequest

_MAX_LENGTH = 64


def to_e164(text: str, region: str | None = None) -> str:
    """Return `text` as E.164 (`+14155551234`), reading national forms as numbers of `region` (`CA`, `GB`).

    Raises:
        InvalidRequest: when `text` cannot be a phone number.
    """
    if len(text) > _MAX_LENGTH:
        raise InvalidRequest("Not a phone number")
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException as error:
        raise InvalidRequest("Not a phone number") from error
    if not phonenumbers.is_possible_number(number):
        raise InvalidRequest("Not a phone number")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def is_region(code: str) -> bool:
    """Tell whether `code` is a two-letter region that has a numbering plan."""
    return code in phonenumbers.SUPPORTED_REGIONS


def mask(text: str) -> str:
    """Return `text` with all but the last two digits hidden, for logs."""
    return "•" * max(len(text) - 2, 0) + text[-2:]
