"""Passwords: hashed with argon2id, in threads, a few at a time.

A hash is meant to cost memory and a good part of a second of one core. The library lets go of the interpreter lock, so
a thread keeps the event loop free; the number of threads keeps a flood of sign-ins from taking the machine.
"""

import asyncio
import base64
import secrets
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import SecretStr

from domain.errors import InvalidRequest, Overloaded

R = TypeVar("R")

MIN_LENGTH, MAX_LENGTH = 8, 1024
_AT_ONCE = 2
_WAITING = 64


class Passwords:
    """Hashes passwords and recognises them; every comparison costs the same, whether there is anything to compare."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobodys = _nobodys_hash(self._hasher)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def hash(self, password: SecretStr) -> str:
        """Return what to store for `password`.

        Raises:
            InvalidRequest: when it is too short or too long to be one.
            Overloaded: when too many are being worked on.
        """
        text = password.get_secret_value()
        if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
            raise InvalidRequest(f"A password has between {MIN_LENGTH} and {MAX_LENGTH} characters")
        return await self._in_turn(lambda: self._hasher.hash(text))

    async def match(self, password: SecretStr, stored: str | None) -> bool:
        """Tell whether `stored` was made of `password`; None matches nothing, and takes as long.

        Raises:
            Overloaded: when too many are being worked on.
        """
        text = password.get_secret_value()
        return await self._in_turn(lambda: self._matches(stored or self._nobodys, text))

    def is_outdated(self, stored: str) -> bool:
        """Tell whether `stored` was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def _matches(self, stored: str, text: str) -> bool:
        try:
            return self._hasher.verify(stored, text)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_turn(self, work: Callable[[], R]) -> R:
        if self._waiting >= _WAITING:
            raise Overloaded("Too many people are signing in just now")
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1


def _nobodys_hash(hasher: PasswordHasher) -> str:
    # A hash with today's parameters that no password has; making a real one would cost what this is to save.
    salt, hashed = _unpadded(hasher.salt_len), _unpadded(hasher.hash_len)
    return f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}${salt}${hashed}"


def _unpadded(length: int) -> str:
    return base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")
