"""Signed tokens (JWT, RFC 7519): who the bearer is, until when, and at which token version.

One algorithm is pinned by the settings and never read from a token. Each key has an id (`kid`): tokens say which key
signed them, so a new key can sign while the one before it is still believed.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import SecretStr

from domain.errors import ConfigurationError, Unauthenticated
from domain.identifiers import is_id

_AUDIENCE = "tether-relay"
_MAX_LENGTH = 4096
_MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says; `expires_at` and `signed_in_at` are Unix seconds."""

    user_id: str
    token_version: int
    expires_at: float
    signed_in_at: float


@dataclass(frozen=True, slots=True)
class Key:
    """A key: its id, its one algorithm, what it signs with (None when it only verifies) and what it verifies with."""

    id: str
    algorithm: str
    signs_with: Any = field(repr=False)
    verifies_with: Any = field(repr=False)


def shared_key(secret: SecretStr) -> Key:
    """Return the HS256 key of a secret."""
    text = secret.get_secret_value()
    return Key(_key_id(text.encode()), "HS256", text, text)


def private_key(pem: bytes) -> Key:
    """Return the RS256 key of an RSA private key in PEM.

    Raises:
        ConfigurationError: when it is none, is locked with a password, or is too short.
    """
    try:
        loaded = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError("JWT_PRIVATE_KEY_FILE is not an RSA private key in PEM without a password.") from error
    if not isinstance(loaded, RSAPrivateKey) or loaded.key_size < _MIN_RSA_BITS:
        raise ConfigurationError(f"JWT_PRIVATE_KEY_FILE is not an RSA key of at least {_MIN_RSA_BITS} bits.")
    public = loaded.public_key()
    return Key(_key_id(_spki(public)), "RS256", loaded, public)


def public_key(pem: bytes) -> Key:
    """Return the RS256 key of an RSA public key in PEM; it only verifies.

    Raises:
        ConfigurationError: when it is none, or is too short.
    """
    try:
        loaded = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError("JWT_PUBLIC_KEY_FILES holds what is not a public key in PEM.") from error
    if not isinstance(loaded, RSAPublicKey) or loaded.key_size < _MIN_RSA_BITS:
        raise ConfigurationError(f"JWT_PUBLIC_KEY_FILES holds no RSA key of at least {_MIN_RSA_BITS} bits.")
    return Key(_key_id(_spki(loaded)), "RS256", None, loaded)


def _spki(key: RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_id(material: bytes) -> str:
    return hashlib.sha256(b"key id\0" + material).hexdigest()[:16]


class Tokens:
    """Issues tokens with the first of its keys and believes those of every one; all are for one algorithm."""

    def __init__(self, keys: Sequence[Key]) -> None:
        # A clock that is set back must not bring an expired token back to life, nor make a good one come too early.
        self._ahead_of_uptime = time.time() - time.monotonic()
        self._first = keys[0]
        self._keys = {key.id: key for key in keys}

    def issue(self, user_id: str, token_version: int, seconds: float, signed_in_at: float | None = None) -> str:
        """Sign a token for the user, valid for `seconds`; `signed_in_at` is when they signed in, None for now.

        Raises:
            ConfigurationError: when there is no key to sign with.
        """
        if self._first.signs_with is None:
            raise ConfigurationError("This process can verify tokens but not sign them: set JWT_PRIVATE_KEY_FILE.")
        issued_at = int(self.now())
        claims = {
            "sub": user_id,
            "ver": token_version,
            "aud": _AUDIENCE,
            "iat": issued_at,
            "exp": issued_at + int(seconds),
            # OpenID Connect's name for when the user proved who they are.
            "auth_time": issued_at if signed_in_at is None else int(signed_in_at),
        }
        key = self._first
        return jwt.encode(claims, key.signs_with, algorithm=key.algorithm, headers={"kid": key.id})

    def verify(self, token: str) -> Claims:
        """Return what `token` says.

        Raises:
            Unauthenticated: when it is malformed, expired, not yet valid, signed otherwise or says too little.
        """
        if len(token) > _MAX_LENGTH:
            raise Unauthenticated("Invalid token")
        try:
            key = self._keys[_said_key_id(token) or self._first.id]
            claims: dict[str, Any] = jwt.decode(
                token,
                key.verifies_with,
                algorithms=[key.algorithm],
                audience=_AUDIENCE,
                options={
                    "require": ["exp", "sub", "aud", "ver"],
                    # Compared below, with a clock of our own.
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            _check_times(claims, self.now())
            return _read(claims)
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated("Token has expired") from error
        except (jwt.InvalidTokenError, TypeError, ValueError, OverflowError, LookupError) as error:
            raise Unauthenticated("Invalid token") from error

    def now(self) -> float:
        """Return the present time in Unix seconds, by a clock that is not set back while this process runs."""
        return max(time.time(), time.monotonic() + self._ahead_of_uptime)


def _check_times(claims: dict[str, Any], now: float) -> None:
    if int(claims["exp"]) <= now:
        raise jwt.ExpiredSignatureError
    if max(int(claims.get("nbf", 0)), int(claims.get("iat", 0))) > now:
        raise jwt.ImmatureSignatureError


def _said_key_id(token: str) -> str | None:
    said: str | None = jwt.get_unverified_header(token).get("kid")
    return said


def _read(claims: dict[str, Any]) -> Claims:
    user_id, token_version = claims["sub"], claims["ver"]
    if not is_id(user_id) or type(token_version) is not int:
        raise Unauthenticated("Invalid token")
    # A token without either was made for this once, with no session to go on.
    signed_in_at = claims.get("auth_time", claims.get("iat", 0))
    if type(signed_in_at) is not int:
        raise Unauthenticated("Invalid token")
    return Claims(user_id, token_version, float(claims["exp"]), float(signed_in_at))
