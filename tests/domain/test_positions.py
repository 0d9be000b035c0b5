import pytest

from domain.errors import InvalidRequest
from domain.positions import Position, to_position

PLACE = "2026-05-15T09:10:00.000Z_0123456789abcdef01234567"


def test_a_position_is_read_as_it_was_written() -> None:
    """What was returned as `next` leads back to the same place."""
    assert str(to_position(PLACE)) == PLACE
    assert to_position(PLACE) == Position("2026-05-15T09:10:00.000Z", "0123456789abcdef01234567")


@pytest.mark.parametrize("wrong", ["", PLACE + "0", PLACE + "\n", " " + PLACE, PLACE[:-1], PLACE.upper(), PLACE[25:]])
def test_what_is_no_position_is_refused(wrong: str) -> None:
    """Nothing is read as another place than the one that was meant."""
    with pytest.raises(InvalidRequest, match="cursor"):
        to_position(wrong)
