"""Signed tokens (JWT, RFC 7519): who the bearer is, until when, and at which token version."""

import time
from dataclasses import dataclass
from typing import Any

import jwt
from pydantic import SecretStr

from domain.errors import Unauthenticated
from domain.identifiers import is_id

_ALGORITHM = "HS256"
_AUDIENCE = "tether-relay"
_MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Claims:
    """What a believed token says; `expires_at` is Unix seconds."""

    user_id: str
    token_version: int
    expires_at: float


class Tokens:
    """Issues and believes tokens signed with one secret; the algorithm is pinned, never read from the token."""

    def __init__(self, secret: SecretStr) -> None:
        self._secret = secret

    def issue(self, user_id: str, token_version: int, seconds: float) -> str:
        """Sign a token for the user, good for `seconds`."""
        issued_at = int(time.time())
        claims = {
            "sub": user_id,
            "ver": token_version,
            "aud": _AUDIENCE,
            "iat": issued_at,
            "exp": issued_at + int(seconds),
        }
        return jwt.encode(claims, self._secret.get_secret_value(), algorithm=_ALGORITHM)

    def verify(self, token: str) -> Claims:
        """Return what `token` says.

        Raises:
            Unauthenticated: when it is malformed, expired, not yet valid, signed otherwise or says too little.
        """
        if len(token) > _MAX_LENGTH:
            raise Unauthenticated("Invalid token")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret.get_secret_value(),
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["exp", "sub", "aud", "ver"]},
            )
            return _read(claims)
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("Token has expired") from error
        except (jwt.InvalidTokenError, TypeError, ValueError, OverflowError) as error:
            raise Unauthenticated("Invalid token") from error


def _read(claims: dict[str, Any]) -> Claims:
    user_id, token_version = claims["sub"], claims["ver"]
    if not is_id(user_id) or type(token_version) is not int:
        raise Unauthenticated("Invalid token")
    return Claims(user_id, token_version, float(claims["exp"]))
