"""A large text is taken out of its document wherever the pieces end, and nothing about it is lost."""

import hashlib
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from domain.large_texts import LARGE, Cutter, LargeText, Part, read, unescaped

LONG = "QUJD" * (LARGE // 4 + 1)


def cut(document: bytes, sizes: list[int], name: str = "recording") -> list[Part]:
    cutter, start = Cutter(name), 0
    parts: list[Part] = []
    for size in [*sizes, len(document)]:
        parts.extend(cutter.feed(document[start : start + size]))
        start += size
    return [*parts, cutter.finish()]


def text_of(large: LargeText | None) -> str:
    assert large is not None
    return b"".join(large.drain()).decode()


sizes = st.lists(st.integers(1, 200_000), max_size=8)
json_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@settings(max_examples=60, deadline=None)
@given(json_text, json_text, json_text, sizes, st.booleans())
def test_the_text_comes_out_and_the_rest_stays(
    before: str, inside: str, after: str, sizes: list[int], is_ascii: bool
) -> None:
    """Whatever stands around it or within it, and however the document was cut."""
    given = {"before": before, "recording": LONG + inside + LONG, "after": [after, {"x": after}]}
    document, large = read(cut(json.dumps(given, ensure_ascii=is_ascii).encode(), sizes), "recording")

    assert {**document, "recording": None} == {**given, "recording": None}
    if "\\u" not in json.dumps(inside):
        assert text_of(large) == given["recording"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(json_text | st.just("recording"), json_text, max_size=5), sizes)
def test_a_document_without_a_large_text_is_read_as_it_is(given: dict[str, str], sizes: list[int]) -> None:
    """Most documents are."""
    assert read(cut(json.dumps(given).encode(), sizes), "recording") == (given, None)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (f'{{"metadata":{{"recording":"{LONG}"}}}}', {"metadata": {"recording": LONG}}),
        (f'{{"recording":"{LONG}","recording":"short"}}', {"recording": "short"}),
        (f'{{"recording":"short","recording":"{LONG}"}}', {"recording": LONG}),
        (f'{{"recording":"{LONG}","recording":null}}', {"recording": None}),
        (
            f'{{"recording":"{LONG}","metadata":{{"recording":"x"}}}}',
            {"recording": LONG, "metadata": {"recording": "x"}},
        ),
        (f'{{"record\\u0069ng":"{LONG}"}}', {"recording": LONG}),
        (f'[{{"recording":"{LONG}"}}]', [{"recording": LONG}]),
    ],
)
def test_what_is_not_the_documents_only_member_of_that_name_is_read_like_anything_else(
    body: str, value: object
) -> None:
    """The last of several counts, and one further down belongs to somebody else."""
    assert read(cut(body.encode(), [70_000]), "recording") == (value, None)


@pytest.mark.parametrize(
    "body", [f'{{"recording":"{LONG}', f'{{"recording":"{LONG}"', f'{{"recording":"{LONG}"}}}}', ""]
)
def test_a_document_that_is_not_json_is_none_without_its_text_either(body: str) -> None:
    """Cut short, or with more behind it."""
    with pytest.raises(InvalidRequest):
        read(cut(body.encode(), []), "recording")


def test_the_digest_is_that_of_the_text_and_not_of_its_spelling() -> None:
    """Some writers escape the slash; it is the same recording, and its digest stays when the text is gone."""
    text = "//" * LARGE
    _, plain = read(cut(json.dumps({"recording": text}).encode(), [1000, 65_537]), "recording")
    _, escaped = read(cut(json.dumps({"recording": text}).replace("/", "\\/").encode(), [1001, 65_537]), "recording")

    assert plain is not None
    assert escaped is not None
    assert plain.sha256() == escaped.sha256() == hashlib.sha256(text.encode()).hexdigest()
    assert text_of(escaped) == text
    assert escaped.sha256() == plain.sha256()


@pytest.mark.parametrize("escape", [r"\u002f", r"\/", r"\u00e9"])
def test_an_escape_that_is_cut_anywhere_is_one(escape: str) -> None:
    """Wherever a piece of the body ends."""
    text = f"ab{escape}cd".encode()
    whole = b"".join(unescaped([text]))
    for cut in range(len(text) + 1):
        assert b"".join(unescaped([text[:cut], text[cut:]])) == whole


# Whatever a JSON text may hold: characters of every length, and each kind of escape, pairs of surrogates included.
spelt = st.one_of(
    json_text.map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1]),
    json_text.map(lambda text: json.dumps(text)[1:-1]),
    st.sampled_from(
        [r"\\\\", r"\\u002f", r"\\\u005cu0000", r"\/", r"\"", r"\b\f\n\r\t", r"\ud83d\ude00", r"\\ud83d", "é😀"]
    ),
)


@given(st.lists(spelt, max_size=6).map("".join), st.lists(st.integers(0, 120), max_size=6))
def test_a_text_means_the_same_however_its_bytes_are_cut(text: str, places: list[int]) -> None:
    """An escape, a pair of them or a character may begin in one piece and end in the next."""
    whole = text.encode()
    cuts = [0, *sorted(place for place in places if place < len(whole)), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(cuts)]

    assert b"".join(unescaped(pieces)).decode() == json.loads(f'"{text}"')


@pytest.mark.parametrize("wrong", [r"\x", r"\u00g0", r"\ud83d", r"\ud83dx", r"\ude00", r"\u0000", "\\"])
@pytest.mark.parametrize("behind", [0, 5, 100_000])
def test_an_invalid_escape_is_refused_however_it_is_cut(wrong: str, behind: int) -> None:
    """It is found although it looks like one that goes on in the next piece."""
    text = f"ab{wrong}{'x' * behind}".encode()
    for cut in range(len(wrong) + 3):
        with pytest.raises(InvalidRequest):
            list(unescaped([text[:cut], text[cut:]]))
