"""Kinds of bad requests shared out among operations, where each of every kind to every operation would be too many.

A request is refused by code that operations share, under rules that each operation has for itself: the status of a
refusal, the envelope, the media types, the limits. So every operation is sent the kinds that ask about its own rules,
and a share of the others: each of these goes to `MEETINGS` of the operations that are alike, which the seed of the run
draws. Over the runs every kind meets every operation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from openapi.document import Operation
from tests.support import randomness

K = TypeVar("K")

MEETINGS = 2


@dataclass(frozen=True)
class Kinds(Generic[K]):
    """Kinds that every operation is sent, and others that are shared out."""

    for_every: Sequence[K]
    shared: Sequence[K]

    def of(self, operation: Operation, alike: Sequence[Operation]) -> Iterator[K]:
        """Yield what `operation` is sent in this run, and print how much of it that is.

        `alike` are the operations, with this one among them, that treat all kinds alike. They stand in a circle. A
        kind goes to `MEETINGS` neighbours in it and the next kind to those one place further, so that all operations
        get the same number of kinds, give or take one round.
        """
        circle = sorted(alike, key=lambda each: each.key)
        randomness.chance("operations in a circle").shuffle(circle)
        place = circle.index(operation)
        share = [kind for turn, kind in enumerate(self.shared) if (place - turn) % len(circle) < MEETINGS]
        # pytest shows it with a failure.
        sent, all_of_them = len(self.for_every) + len(share), len(self.for_every) + len(self.shared)
        print(f"{operation.key} is sent {sent} of {all_of_them} kinds; TEST_SEED={randomness.seed()}")  # noqa: T201
        yield from self.for_every
        yield from share
