"""What one broadcaster process allows, and how patient it is."""

from dataclasses import dataclass, replace

# A client's kernel says that there is room again only once about so much was read: 105 to 129 KB were measured on
# loopback with the kernel's own buffers, 30 KB with a receive buffer of 16 KB.
_KERNEL_STEP = 128 << 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts, bytes and seconds; the defaults suit one process on a small machine.

    `connections` counts listeners, who have shown a token; those who have not yet are `unauthenticated`.

    A listener that is behind is closed when nothing was taken of what was sent for `stall_seconds` and for as long as
    one step of its kernel lasts at `slowest_bytes_per_second` (`patience_seconds`).
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
    slowest_bytes_per_second: int = 4 << 10
    heartbeat_seconds: float = 20
    revocation_seconds: float = 2
    jitter_seconds: float = 5
    drain_seconds: float = 3

    @property
    def patience_seconds(self) -> float:
        """How long nothing may be taken of what was sent, before a listener counts as one that stopped reading."""
        return self.stall_seconds + _KERNEL_STEP / self.slowest_bytes_per_second

    def within(self, sockets: int) -> "Limits":
        """Return the limits with room for `sockets` in all, at most a quarter of them without a token."""
        unauthenticated = min(self.unauthenticated, sockets // 4)
        return replace(
            self,
            connections=min(self.connections, sockets - unauthenticated),
            unauthenticated=unauthenticated,
            unauthenticated_per_address=min(self.unauthenticated_per_address, max(1, unauthenticated // 2)),
        )
