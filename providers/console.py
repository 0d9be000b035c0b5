"""The development provider: it sends nothing and says so in the log."""

import structlog

from domain.identifiers import new_id
from domain.messages import OutboundText, SentText
from domain.phones import mask


class Console:
    """Pretends to send; chosen by name only, never by default."""

    name = "console"

    async def send(self, message: OutboundText) -> SentText:
        """Log one line that holds neither the text nor a whole number, and return an id of our own."""
        sent = SentText(f"console-{new_id()}")
        structlog.get_logger().info(
            "text.not_sent",
            provider=self.name,
            from_number=mask(message.from_number),
            to_number=mask(message.to_number),
            characters=len(message.text),
            reference=message.reference,
            provider_message_id=sent.provider_message_id,
        )
        return sent
