import pytest

from domain.names import PLACEHOLDER_NAME, is_placeholder, parts


@pytest.mark.parametrize("name", [PLACEHOLDER_NAME, "unknown caller", "  Unknown   Caller ", "UNKNOWN", "New Contact"])
def test_what_stands_for_an_unknown_name_is_recognised(name: str) -> None:
    """In any case and with any space."""
    assert is_placeholder(name)


@pytest.mark.parametrize("name", ["", "Alex", "Unknown Soldier", "Caller", "Contact New"])
def test_name_is_no_placeholder(name: str) -> None:
    """Not even one that resembles it."""
    assert not is_placeholder(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", ("", "")),
        ("Alex", ("Alex", "")),
        (" Ana  Maria Silva ", ("Ana", "Maria Silva")),
        ("Ana Maria Silva", ("Ana", "Maria Silva")),
    ],
)
def test_first_word_of_a_name_is_the_first_name(name: str, told: tuple[str, str]) -> None:
    """And the rest the last name."""
    assert parts(name) == told
