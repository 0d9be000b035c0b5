from itertools import product

import pytest

from domain.statuses import MessageStatus, may_follow

S = MessageStatus
FINAL = {S.DELIVERED, S.UNDELIVERED, S.FAILED}


def test_every_pair_of_statuses_is_decided() -> None:
    """The table answers for each of them, and never with itself: a repeated report changes nothing."""
    for current, reported in product(S, S):
        assert isinstance(may_follow(current, reported), bool)
        assert not may_follow(current, current)


@pytest.mark.parametrize("final", sorted(FINAL))
def test_what_is_final_stays(final: MessageStatus) -> None:
    """A late report does not undo it."""
    assert not any(may_follow(final, reported) for reported in S)


def test_nothing_is_queued_again() -> None:
    """So nothing is sent twice."""
    assert not any(may_follow(current, S.QUEUED) for current in S)


def test_every_status_but_the_first_can_be_reached_from_it() -> None:
    """In one step, since reports may overtake each other."""
    assert {status for status in S if may_follow(S.QUEUED, status)} == set(S) - {S.QUEUED}


def test_what_is_unknown_can_still_become_known() -> None:
    """The vendor may tell us later what became of it; what is known never becomes unknown."""
    assert {status for status in S if may_follow(S.UNKNOWN, status)} == FINAL | {S.SENT}
    assert [status for status in S if may_follow(status, S.UNKNOWN)] == [S.QUEUED]


def test_no_two_statuses_follow_each_other() -> None:
    """A message only moves forward, so any order of reports comes to an end."""
    assert not any(may_follow(one, other) and may_follow(other, one) for one, other in product(S, S))
