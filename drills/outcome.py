"""What a drill found."""

from dataclasses import dataclass


class Broken(AssertionError):
    """Raised when something does not hold that must hold whatever happens."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How often the fault was injected, what the clients saw, and what the database said afterwards.

    `acknowledged` counts the answers that said it is done; of those, `lost` are not there and `doubled` there twice.
    `worst_recovery` is the longest time, in seconds, until it served again, from the moment the fault was over.
    `remark` is what else was measured, in words.
    """

    fault: str
    engine: str
    repetitions: int
    requests: int
    acknowledged: int
    lost: int
    doubled: int
    worst_recovery: float
    remark: str = ""


def insist(holds: object, what: str) -> None:
    """Raise Broken, and say `what`, unless it holds."""
    if not holds:
        raise Broken(what)
