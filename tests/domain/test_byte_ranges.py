import pytest

from domain.byte_ranges import Unsatisfiable, requested


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=3-", (3, 10)),
        ("bytes=9-", (9, 10)),
        ("bytes=9-9", (9, 10)),
        ("bytes=8-99", (8, 10)),
        ("bytes=-1", (9, 10)),
        ("bytes=-10", (0, 10)),
        ("bytes=-99", (0, 10)),
        (" BYTES= 2 - 4 ", (2, 5)),
    ],
)
def test_a_range_is_that_part_of_what_there_is(header: str, part: tuple[int, int]) -> None:
    """Both ends count, and what lies behind the end is left out."""
    assert requested(header, 10) == part


@pytest.mark.parametrize(
    "header", [None, "", "bytes", "bytes=", "bytes=-", "bytes=4-3", "bytes=x-y", "lines=0-1", "bytes=0-1,3-4"]
)
def test_what_is_no_range_means_the_whole(header: str | None) -> None:
    """It is as if nothing had been asked for."""
    assert requested(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_behind_the_end_is_told_apart(header: str, size: int) -> None:
    """There is nothing to send, and the whole was not asked for."""
    with pytest.raises(Unsatisfiable):
        requested(header, size)
