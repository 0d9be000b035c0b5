"""What one broadcaster process allows, and how patient it is."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, bytes and seconds; the defaults suit one process on a small machine.

    `connections` counts listeners, who have shown a token; those who have not yet are `unauthenticated`.
    """

    connections: int = 16_000
    per_organization: int = 10_000
    per_address: int = 10_000
    unauthenticated: int = 2_000
    unauthenticated_per_address: int = 1_000
    message_bytes: int = 8 << 10
    messages_per_second: float = 10
    message_burst: float = 40
    unsent_bytes: int = 128 << 10
    auth_seconds: float = 5
    stall_seconds: float = 5
    heartbeat_seconds: float = 20
    revocation_seconds: float = 2
    jitter_seconds: float = 5
    drain_seconds: float = 3

    def within(self, sockets: int) -> "Limits":
        """Return the limits with room for `sockets` in all, at most a quarter of them without a token."""
        unauthenticated = min(self.unauthenticated, sockets // 4)
        return replace(
            self,
            connections=min(self.connections, sockets - unauthenticated),
            unauthenticated=unauthenticated,
            unauthenticated_per_address=min(self.unauthenticated_per_address, max(1, unauthenticated // 2)),
        )
