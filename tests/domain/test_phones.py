import re

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from domain.phones import is_region, mask, to_e164

E164 = re.compile(r"\+[1-9][0-9]{1,14}\Z")


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [
        ("+14165550100", None, "+14165550100"),
        ("+1 (416) 555-0100", None, "+14165550100"),
        (" +1.416.555.0100 ", None, "+14165550100"),
        ("tel:+1-416-555-0100", None, "+14165550100"),
        ("(416) 555-0100", "CA", "+14165550100"),
        ("416-555-0100", "US", "+14165550100"),
        ("1 416 555 0100", "CA", "+14165550100"),
        ("011 44 20 7183 8750", "CA", "+442071838750"),
        ("020 7183 8750", "GB", "+442071838750"),
        ("0049 30 901820", "GB", "+4930901820"),
        ("030 901820", "DE", "+4930901820"),
        ("+39 06 698 1234", None, "+39066981234"),
        ("\uff0b\uff11\uff14\uff11\uff16\uff15\uff15\uff15\uff10\uff11\uff10\uff10", None, "+14165550100"),
        ("+19995550000", None, "+19995550000"),
        ("+12", None, "+12"),
        ("+999123456789012", None, "+999123456789012"),
    ],
)
def test_a_number_becomes_e164(text: str, region: str | None, expected: str) -> None:
    """However it is written; national forms are read in the region, and strange plans are taken as they are."""
    assert to_e164(text, region) == expected


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("", "CA"),
        (" ", "CA"),
        ("soon", "CA"),
        ("anonymous", None),
        ("4165550100", None),
        ("(416) 555-0100", None),
        ("12", "CA"),
        ("+", None),
        ("+0", None),
        ("+0123456789", None),
        ("+1234567890123456", None),
        ("+14165550100\n+14165550101", None),
        ("1" * 10_000, "CA"),
        ("+" + "1" * 10_000, "CA"),
        ("\0", "CA"),
        ("'; DROP TABLE contact; --", "CA"),
        ("416 555 0100", "ZZ"),
    ],
)
def test_what_cannot_be_a_number_is_refused(text: str, region: str | None) -> None:
    """Without quoting it."""
    with pytest.raises(InvalidRequest, match=r"^Not a phone number$"):
        to_e164(text, region)


@given(st.text(max_size=80), st.none() | st.sampled_from(["CA", "GB", "DE", "ZZ", ""]))
def test_any_text_is_e164_or_a_refusal(text: str, region: str | None) -> None:
    """And what came out goes in again unchanged, wherever it is read."""
    try:
        number = to_e164(text, region)
    except InvalidRequest:
        return

    assert E164.match(number)
    assert to_e164(number) == to_e164(number, "CA") == number


@given(st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)))
def test_every_region_reads_its_own_numbers(region: str) -> None:
    """National and international form mean the same number."""
    example = phonenumbers.example_number(region)
    assert example is not None
    national = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.NATIONAL)
    international = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.INTERNATIONAL)

    assert to_e164(international) == to_e164(national, region)


def test_regions_are_two_capital_letters_with_a_plan() -> None:
    """Codes that are no region are told apart."""
    assert is_region("CA")
    assert not any(is_region(code) for code in ("ca", "ZZ", "", "001", "CAN", "EU"))


@given(st.text())
def test_a_mask_keeps_the_length_and_two_characters(text: str) -> None:
    """Whatever is masked."""
    masked = mask(text)

    assert len(masked) == len(text)
    assert masked[-2:] == text[-2:]
    assert set(masked[:-2]) <= {"•"}
