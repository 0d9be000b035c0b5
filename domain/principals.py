"""Who is asking, once a token has been believed."""

from dataclasses import dataclass, field
from enum import StrEnum

from domain.errors import Unauthenticated


class Role(StrEnum):
    """What a user may do, least first."""

    AGENT = "agent"
    ADMIN = "admin"
    SUPERADMIN = "superadmin"


class TokenKind(StrEnum):
    """The three kinds of bearer token; each is accepted on its own operations only."""

    JWT = "JWT"
    API_KEY = "API key"
    TOOL_SECRET = "tool secret"


@dataclass(frozen=True, slots=True)
class Principal:
    """A believed token: the organization it selects and, unless it is a tool secret, its user.

    `expires_at` is Unix seconds for a JWT and None for tokens that live until they are revoked. `credential` is what
    may be revoked: the version of the user's tokens, or the digest of the key.
    """

    kind: TokenKind
    organization_id: str
    user_id: str | None = None
    role: Role | None = None
    expires_at: float | None = None
    credential: str = field(default="", repr=False)

    @property
    def person(self) -> str:
        """The id of the user the token belongs to.

        Raises:
            Unauthenticated: when it is an organization's.
        """
        if self.user_id is None:
            raise Unauthenticated
        return self.user_id

    def require(self, *roles: Role) -> None:
        """Insist on one of `roles`.

        Raises:
            Unauthenticated: when the principal has another role; the published pages answer 401, never 403.
        """
        if self.role not in roles:
            raise Unauthenticated(f"This operation needs the role {' or '.join(roles)}")
