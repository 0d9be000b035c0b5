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
    """What an operation asks for as bearer token; each is accepted on its own operations only.

    Which operations take an API key depends on the key's `KeyKind`. The principal of either is of the kind `API_KEY`.
    """

    JWT = "JWT"
    API_KEY = "API key"
    LISTENING_KEY = "API key for listening"
    TOOL_SECRET = "tool secret"


class KeyKind(StrEnum):
    """What an API key opens."""

    INGEST = "ingest"
    LISTEN = "listen"
    BOTH = "both"

    def opens(self, wanted: "KeyKind") -> bool:
        """Tell whether a key of this kind opens what a key of the kind `wanted` opens."""
        return self in (wanted, KeyKind.BOTH)


@dataclass(frozen=True, slots=True)
class Principal:
    """A believed token: the organization it selects and, unless it is a tool secret, its user.

    `expires_at` is Unix seconds, None for tokens that live until they are revoked. `credential` is what may be revoked:
    the version of the user's tokens, or the digest of the key. `signed_in_at` is when the user signed in, in Unix
    seconds, for a JWT.
    """

    kind: TokenKind
    organization_id: str
    user_id: str | None = None
    role: Role | None = None
    expires_at: float | None = None
    credential: str = field(default="", repr=False)
    signed_in_at: float | None = None

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
