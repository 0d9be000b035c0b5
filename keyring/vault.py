"""Secrets at rest: sealed when they must be read back, digested when they only have to be recognised."""

import hashlib
import hmac
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from domain.documents import dump, load
from domain.errors import ConfigurationError


class Vault:
    """Seals text with the first key of a ring and opens what any key of the ring has sealed.

    To rotate, put a new key in front and keep the old ones until everything has been sealed anew.
    """

    def __init__(self, keys: SecretStr) -> None:
        ring = [key.strip() for key in keys.get_secret_value().split(",")]
        try:
            self._ring = MultiFernet([Fernet(key) for key in ring])
        except ValueError as error:
            raise ConfigurationError(
                "Setting ENCRYPTION_KEYS is not valid: it is a comma-separated list of Fernet keys "
                "(32 bytes, url-safe base64)."
            ) from error

        self._keys = [key.encode() for key in ring]
        self._by_fingerprint = {_fingerprint(key): Fernet(key) for key in ring}

    @property
    def fingerprints(self) -> list[str]:
        """Return a short name of each key, newest first: from it nobody can tell the key."""
        return list(self._by_fingerprint)

    def sealed_by(self, sealed: str) -> str | None:
        """Return the fingerprint of the key that opens `sealed`, or None if no key of the ring does."""
        for fingerprint, key in self._by_fingerprint.items():
            try:
                key.decrypt(sealed)
            except InvalidToken:
                continue
            return fingerprint
        return None

    def sign(self, purpose: str, text: str) -> str:
        """Return a token that only we can make; one for another purpose is worth nothing."""
        return _token(self._keys[0], purpose, text)

    def is_signed(self, purpose: str, text: str, token: str) -> bool:
        """Tell whether a key of the ring made `token` for this."""
        given = token.encode("utf-8", "replace")
        expected = [_token(key, purpose, text).encode() for key in self._keys]
        return any(hmac.compare_digest(ours, given) for ours in expected)

    def seal(self, text: str) -> str:
        """Encrypt and authenticate `text`."""
        return self._ring.encrypt(text.encode()).decode()

    def seal_document(self, document: dict[str, Any]) -> str:
        """Seal a JSON object, such as a set of credentials."""
        return self.seal(dump(document).decode())

    def open_document(self, sealed: str) -> dict[str, Any]:
        """Return the JSON object that was sealed.

        Raises:
            ConfigurationError: when no key of the ring sealed it.
        """
        document: dict[str, Any] = load(self.open(sealed).get_secret_value())
        return document

    def open(self, sealed: str) -> SecretStr:
        """Return what was sealed.

        Raises:
            ConfigurationError: when no key of the ring sealed it.
        """
        try:
            return SecretStr(self._ring.decrypt(sealed).decode())
        except InvalidToken as error:
            raise ConfigurationError(
                "A stored secret was sealed with a key that is no longer in ENCRYPTION_KEYS; put that key back."
            ) from error


def _token(key: bytes, purpose: str, text: str) -> str:
    return hmac.new(key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def _fingerprint(key: str) -> str:
    return hashlib.sha256(b"encryption key\0" + key.encode()).hexdigest()[:16]


def digest(secret: str) -> str:
    """Return the SHA-256 of `secret` in hex; enough for secrets we make ourselves, which cannot be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()
