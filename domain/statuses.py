"""Statuses, and which may follow which."""

from enum import StrEnum


class UserStatus(StrEnum):
    """Whether a user may sign in. A removed user is kept only because calls and notes refer to the row."""

    ACTIVE = "active"
    DISABLED = "disabled"
    REMOVED = "removed"


class MessageStatus(StrEnum):
    """The life of one outbound message.

    `unknown` says that the request left us and no trustworthy answer came back. It is an honest end, never
    a reason to send again.
    """

    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    UNKNOWN = "unknown"


# A message only moves forward. A report that is late, repeated or out of order has no row here and changes nothing.
_FORWARD: dict[MessageStatus, frozenset[MessageStatus]] = {
    MessageStatus.QUEUED: frozenset(
        {
            MessageStatus.SENT,
            MessageStatus.DELIVERED,
            MessageStatus.UNDELIVERED,
            MessageStatus.FAILED,
            MessageStatus.UNKNOWN,
        }
    ),
    MessageStatus.UNKNOWN: frozenset(
        {MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.UNDELIVERED, MessageStatus.FAILED}
    ),
    MessageStatus.SENT: frozenset({MessageStatus.DELIVERED, MessageStatus.UNDELIVERED, MessageStatus.FAILED}),
    MessageStatus.DELIVERED: frozenset(),
    MessageStatus.UNDELIVERED: frozenset(),
    MessageStatus.FAILED: frozenset(),
}


def may_follow(current: MessageStatus, reported: MessageStatus) -> bool:
    """Tell whether a message that is `current` becomes `reported`."""
    return reported in _FORWARD[current]


class CallStatus(StrEnum):
    """How a call can have ended."""

    COMPLETED = "completed"
    NO_ANSWER = "no-answer"
    BUSY = "busy"
    FAILED = "failed"


class Direction(StrEnum):
    """Who began: the contact, or the organization."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class SetupStatus(StrEnum):
    """How the ElevenLabs workspace webhook of an organization stands."""

    NOT_CONFIGURED = "not_configured"
    PENDING = "pending"
    CONFIGURED = "configured"
    FAILED = "failed"


class TransferOutcome(StrEnum):
    """What became of a caller's transfer request, as the report of the call tells it."""

    CONNECTED = "connected"
    REFUSED = "refused"
    NO_ANSWER = "no-answer"
    NOT_ATTEMPTED = "not-attempted"
