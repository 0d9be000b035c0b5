import os
import re
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.identifiers import IdentifierSource, is_id, new_id


def source(*times: float) -> IdentifierSource:
    """Return a source whose clock shows those times, and the last one from then on."""

    def clock() -> Iterator[float]:
        yield from times
        while True:
            yield times[-1]

    ticking = clock()
    return IdentifierSource(lambda: next(ticking))


@given(st.lists(st.floats(min_value=0, max_value=2**32 - 1), min_size=2, max_size=50))
def test_identifiers_ascend_whatever_the_clock_does(times: list[float]) -> None:
    """Set back, standing still or leaping ahead."""
    identifiers = [one.next() for one in [source(*times)] for _ in times]

    assert identifiers == sorted(identifiers)
    assert len(set(identifiers)) == len(times)
    assert all(is_id(identifier) for identifier in identifiers)


def test_an_identifier_tells_when_it_was_made() -> None:
    """In its first eight digits, as readers of the published ids expect."""
    assert source(0x6A02F8B3).next()[:8] == "6a02f8b3"


def test_a_full_second_runs_over_into_the_next() -> None:
    """The counter never wraps and never repeats."""
    full = source(1000)
    full.next()
    full._counter = (1 << 24) - 2
    last, first = full.next(), full.next()

    assert last.endswith("ffffff")
    assert first > last
    assert first[:8] == f"{1001:08x}"


def test_threads_share_a_source_without_repeats() -> None:
    """Eight of them at once, each seeing its own ascend."""
    shared, barrier = IdentifierSource(), threading.Barrier(8)
    made: list[list[str]] = []

    def work() -> None:
        barrier.wait()
        made.append([shared.next() for _ in range(2000)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({identifier for mine in made for identifier in mine}) == 16_000
    assert all(mine == sorted(mine) for mine in made)


@pytest.mark.processes
def test_a_forked_process_makes_identifiers_of_its_own() -> None:
    """Parent and child begin with the same counter at the same second."""
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    os.close(writing)
    mine = {new_id() for _ in range(100)}
    with os.fdopen(reading) as pipe:
        theirs = set(re.findall(".{24}", pipe.read()))
    os.waitpid(child, 0)

    assert len(theirs) == 100
    assert not mine & theirs
    assert not {one[8:18] for one in mine} & {one[8:18] for one in theirs}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "6a02f8b3f1d2c4e5a6b7c8d",
        "6a02f8b3f1d2c4e5a6b7c8d90",
        "6A02F8B3F1D2C4E5A6B7C8D9",
        "g" * 24,
        "0" * 23 + "\n",
        "0" * 24 + "\n",
        "٠" * 24,
    ],
)
def test_what_only_looks_like_an_identifier_is_none(text: str) -> None:
    """Twenty-four lower-case hex digits, and nothing before or after."""
    assert not is_id(text)
