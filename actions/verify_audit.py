"""Proving that no entry of the audit log is missing or changed.

Each entry carries the digest of the one before, and the head of every chain is kept apart from the entries: what was
changed, removed or slipped in shows, at the end of the log too. Whoever can write everything in the database can write
the whole chain anew; that shows against a digest that was kept elsewhere.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from actions.relay import Relay
from persistence import audit, organizations
from persistence.audit import Head

_BATCH = 1000


class _Chain(NamedTuple):
    organization_id: str | None
    name: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What one chain was found to be: its length, the digest of its newest entry, and what is wrong, if anything.

    `found` are those of the expected digests that an entry of the chain has.
    """

    name: str
    entries: int
    digest: str
    problem: str | None
    found: frozenset[str] = frozenset()


async def verify_audit(relay: Relay, expected: Collection[str] = ()) -> list[Verified]:
    """Verify the chain of every organization, and of the entries that belong to none."""
    everyone = await relay.database.read(organizations.everyone)
    chains = [*(_Chain(one.id, one.name) for one in everyone), _Chain(None, "(no organization)")]
    return [await _verified(relay, chain, frozenset(expected)) for chain in chains]


async def _verified(relay: Relay, chain: _Chain, expected: frozenset[str]) -> Verified:
    whose = chain.organization_id

    def bounds() -> tuple[int, Head]:
        # In this order: an entry that is added in between is beyond neither.
        return audit.last_sequence(whose), audit.head(whose)

    last, head = await relay.database.read(bounds)
    sequence, digest, found = 0, "", set[str]()
    while sequence < head.length:
        reached = sequence
        entries = await relay.database.read_aside(lambda: audit.after(whose, reached, _BATCH))  # noqa: B023 - runs here
        for entry in entries[: head.length - sequence]:
            if entry.sequence != sequence + 1:
                return Verified(chain.name, sequence, digest, _missing(sequence + 1, entry.sequence - 1))
            if entry.previous_digest != digest:
                return Verified(chain.name, sequence, digest, f"entry {max(1, sequence)} was changed")
            sequence, digest = entry.sequence, audit.digest_of(entry)
            found |= {digest} & expected
        if not entries:
            return Verified(chain.name, sequence, digest, _missing(sequence + 1, head.length))
    problem = None
    if digest != head.digest:
        problem = f"entry {sequence} was changed" if sequence else "the head of the chain was changed"
    elif last > head.length:
        problem = f"entries {head.length + 1} to {last} were added past the end"
    return Verified(chain.name, sequence, digest, problem, frozenset(found))


def _missing(first: int, last: int) -> str:
    return f"entry {first} is missing" if first == last else f"entries {first} to {last} are missing"
