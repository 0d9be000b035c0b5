import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.documents import MAX_DEPTH, canonical, dump, load
from domain.errors import InvalidRequest

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


def shuffled(document: Any) -> Any:
    """Return an equal document whose names stand in another order."""
    if isinstance(document, dict):
        return {name: shuffled(document[name]) for name in reversed(document)}
    return [shuffled(item) for item in document] if isinstance(document, list) else document


def same(left: Any, right: Any) -> bool:
    """Compare as JSON does: `1` and `True` and `1.0` are different things."""
    return json.dumps(left) == json.dumps(right)


@given(DOCUMENTS)
def test_what_was_written_is_read_back_exactly(document: Any) -> None:
    """Every digit of every integer, every character of every text, and the order of names."""
    assert same(load(dump(document)), document)


@given(DOCUMENTS)
def test_the_standard_library_agrees_on_what_we_accept(document: Any) -> None:
    """In both directions, with and without escapes and spaces."""
    for ascii_only in (True, False):
        assert same(load(json.dumps(document, ensure_ascii=ascii_only, indent=1)), document)
    assert same(json.loads(dump(document)), document)


@given(st.binary())
def test_any_bytes_are_a_document_or_a_refusal(raw: bytes) -> None:
    """Never another error; what is accepted can be written again."""
    try:
        document = load(raw)
    except InvalidRequest:
        return

    assert same(load(dump(document)), document)


@given(DOCUMENTS)
def test_equal_documents_have_equal_canonical_bytes(document: Any) -> None:
    """Whatever the order of their names; and different ones have different bytes."""
    assert canonical(shuffled(document)) == canonical(document)
    assert canonical([document]) != canonical(document)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1,}',
        b"{'a':1}",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"[-1e999]",
        b"1" + b"0" * 400,
        b"1" + b"0" * 10_000,
        b"01",
        b"\xff",
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b'"\\u0000"',
        b'{"\\u0000": 1}',
        b'[{"a": ["\\u0000"]}]',
        b'"a\0b"',
        b"\xef\xbb\xbf{}",
        b"{}{}",
        "\ud800",
        '"\ud800"',
    ],
)
def test_what_is_no_clean_json_is_refused(raw: bytes | str) -> None:
    """As the caller's mistake, without quoting it."""
    with pytest.raises(InvalidRequest) as raised:
        load(raw)

    assert str(raised.value) in ("Request body is not valid JSON", "Text contains the character U+0000")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_depth_has_a_limit_that_counts_levels(opening: str, closing: str) -> None:
    """Exactly `MAX_DEPTH` levels are accepted, one more is not, and ten thousand do no harm."""
    step = 2 if opening.startswith("[{") else 1
    allowed = MAX_DEPTH // step
    load(nested(allowed, opening, closing))
    for levels in (allowed + 1, 600, 10_000, 100_000):
        with pytest.raises(InvalidRequest):
            load(nested(levels, opening, closing))


def test_breadth_has_no_limit_of_its_own() -> None:
    """Many brackets are not many levels."""
    wide = "[" + ",".join(["[{}]"] * 10_000) + "]"

    assert len(load(wide)) == 10_000
    assert load(json.dumps("[" * 1000 + "{" * 1000)) == "[" * 1000 + "{" * 1000


@given(st.integers(min_value=-(10**300), max_value=10**300))
def test_integers_keep_every_digit(number: int) -> None:
    """Also beyond 64 bits, where a faster reader would round."""
    assert load(str(number)) == number
    assert load(dump({"n": number})) == {"n": number}
    assert isinstance(load(str(number)), int)


@pytest.mark.parametrize("digits", ["1e300", "9223372036854775808.0", "1.5e19", "-1e25", "5e-324", "0.1"])
def test_decimals_stay_decimals(digits: str) -> None:
    """Large ones too, beside integers that had to be read exactly."""
    document = load(f'{{"a": {digits}, "b": 123456789012345678901234567890}}')

    assert document == {"a": float(digits), "b": 123456789012345678901234567890}
    assert isinstance(document["a"], float)
    assert math.isfinite(document["a"])


def test_of_a_repeated_name_the_last_value_counts() -> None:
    """Also when the slower reader has to be asked."""
    assert load('{"a": 1, "a": 2}') == {"a": 2}
    assert load('{"a": 1, "a": 123456789012345678901234567890}') == {"a": 123456789012345678901234567890}


def test_a_backslash_before_u0000_is_just_text() -> None:
    """The character is refused, not the mention of it."""
    assert load(r'"\\u0000"') == r"\u0000"


@pytest.mark.parametrize("text", ["[{0}]", '{{"a":{0}}}', '[[1.5,{{"a":[{0}]}}]]', '{{"a":[0,{0},"x"]}}'])
def test_a_large_integer_keeps_its_digits_wherever_it_stands(text: str) -> None:
    """However deep, and beside whatever else."""
    assert str(10**30 + 7) in dump(load(text.format(10**30 + 7))).decode()
