import pytest

from domain.errors import Unauthenticated
from domain.principals import Principal, Role, TokenKind

SECRET = Principal(TokenKind.TOOL_SECRET, "o" * 24)
PERSON = Principal(TokenKind.JWT, "o" * 24, "u" * 24, Role.ADMIN)


def test_a_token_of_an_organization_stands_for_nobody() -> None:
    """What is done by a person has an author."""
    assert PERSON.person == "u" * 24
    with pytest.raises(Unauthenticated):
        _ = SECRET.person


def test_a_role_is_one_of_those_that_are_needed() -> None:
    """Neither a higher one nor none stands in for it."""
    PERSON.require(Role.ADMIN, Role.SUPERADMIN)
    for principal, needed in ((PERSON, Role.SUPERADMIN), (PERSON, Role.AGENT), (SECRET, Role.AGENT)):
        with pytest.raises(Unauthenticated):
            principal.require(needed)


def test_a_credential_is_not_shown() -> None:
    """A principal may stand in a log line."""
    assert "digest" not in repr(Principal(TokenKind.API_KEY, "o" * 24, "u" * 24, credential="digest"))
