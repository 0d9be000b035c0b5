"""Which key opens which stored secret, and sealing all of them with the newest one."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import partial

from actions.relay import Relay
from domain.errors import RelayError
from keyring.vault import Vault
from persistence import sealed_columns
from persistence.sealed_columns import Sealed

_BATCH = 200
_MOST_PASSES = 10


@dataclass
class StoredSecrets:
    """How many stored secrets each key of the ring opens, newest key first, and those that none opens."""

    by_key: dict[str, int]
    unopened: list[Sealed] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.by_key.values()) + len(self.unopened)

    @property
    def of_older_keys(self) -> int:
        """How many were sealed with a key that is not the newest."""
        return sum(list(self.by_key.values())[1:])

    @property
    def spare_keys(self) -> list[str]:
        """Return the older keys that open nothing."""
        return [fingerprint for fingerprint, count in list(self.by_key.items())[1:] if not count]

    @property
    def problem(self) -> str | None:
        """Say what is wrong, or return None."""
        if not self.unopened:
            return None
        return (
            f"{len(self.unopened)} of {self.total} stored secrets open with no key of ENCRYPTION_KEYS: "
            "put the key that sealed them back, or store them anew"
        )


async def look_at_secrets(relay: Relay) -> StoredSecrets:
    """Try every stored secret, in a thread, a page at a time."""
    found = StoredSecrets(dict.fromkeys(relay.vault.fingerprints, 0))
    async for page in _pages(relay):
        for sealed, fingerprint in await asyncio.to_thread(_opened, relay.vault, page):
            if fingerprint is None:
                found.unopened.append(sealed)
            else:
                found.by_key[fingerprint] += 1
    return found


async def rotate_secrets(relay: Relay) -> AsyncIterator[int]:
    """Seal with the newest key whatever an older one sealed; yield how many were, batch by batch.

    A value that another process changes meanwhile is left as that process wrote it, and looked at again. So this may be
    ended at any time, run again, and run beside everything else.

    Raises:
        RelayError: if other processes keep sealing with an older key.
    """
    for _ in range(_MOST_PASSES):
        left = 0
        async for page in _pages(relay):
            anew = await asyncio.to_thread(_sealed_anew, relay.vault, page)
            if anew:
                replaced = await relay.database.write(partial(_replace, anew))
                left += len(anew) - replaced
                yield replaced
        if not left:
            return
    raise RelayError(
        "Other processes keep sealing with an older key. Restart them with the new key first in ENCRYPTION_KEYS, then "
        "run this again."
    )


async def _pages(relay: Relay) -> AsyncIterator[list[Sealed]]:
    for table, _, column in sealed_columns.names():
        after = ""
        while page := await relay.database.read(partial(sealed_columns.page, table, column, after, _BATCH)):
            yield page
            after = page[-1].key


def _opened(vault: Vault, page: Iterable[Sealed]) -> list[tuple[Sealed, str | None]]:
    return [(sealed, vault.sealed_by(sealed.text)) for sealed in page]


def _sealed_anew(vault: Vault, page: Iterable[Sealed]) -> list[tuple[Sealed, str]]:
    newest = vault.fingerprints[0]
    old = [sealed for sealed, fingerprint in _opened(vault, page) if fingerprint not in (None, newest)]
    return [(sealed, vault.seal(vault.open(sealed.text).get_secret_value())) for sealed in old]


def _replace(anew: Iterable[tuple[Sealed, str]]) -> int:
    return sum(sealed_columns.replace(sealed, text) for sealed, text in anew)
