"""Secrets at rest: sealed when they must be read back, digested when they only have to be recognised."""

import hashlib
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
        try:
            self._ring = MultiFernet([Fernet(key.strip()) for key in keys.get_secret_value().split(",")])
        except ValueError as error:
            raise ConfigurationError(
                "Setting ENCRYPTION_KEYS is not valid: it is a comma-separated list of Fernet keys "
                "(32 bytes, url-safe base64)."
            ) from error

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


def digest(secret: str) -> str:
    """Return the SHA-256 of `secret` in hex; enough for secrets we make ourselves, which cannot be guessed."""
    return hashlib.sha256(secret.encode()).hexdigest()
