"""Text messages on their way out, and what every SMS provider must be able to do with one."""

from dataclasses import dataclass, field
from typing import Protocol

from domain.statuses import MessageStatus


@dataclass(frozen=True, slots=True)
class OutboundText:
    """One text message to send; numbers are E.164.

    `reference` is our own message id; vendors that carry such a field get it. `status_callback` is where the vendor may
    report.
    """

    from_number: str = field(repr=False)
    to_number: str = field(repr=False)
    text: str = field(repr=False)
    reference: str
    status_callback: str | None = field(default=None, repr=False)

    def private(self) -> tuple[str, ...]:
        """Return what no error may quote."""
        said = (self.from_number, self.to_number, self.text, self.status_callback)
        return tuple(each for each in said if each)


@dataclass(frozen=True, slots=True)
class SentText:
    """What the vendor answered: its own id for the message, and the status to record."""

    provider_message_id: str
    status: MessageStatus = MessageStatus.SENT


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What a vendor reports later about a text: its own id for it, the status to record, and why if it failed.

    `reference` is our own message id, from vendors that send it back.
    """

    provider_message_id: str
    status: MessageStatus
    error_code: str | None = None
    reference: str | None = None


class TextProvider(Protocol):
    """A vendor that sends text messages."""

    name: str

    async def send(self, message: OutboundText) -> SentText:
        """Send `message` once; never repeat a request that may have been processed.

        Raises:
            ProviderRejected: the vendor refused it.
            ProviderUnavailable: it was certainly not processed.
            OutcomeUnknown: it left us, and nobody can tell what became of it.
        """
        ...
