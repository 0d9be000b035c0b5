"""Following a message after it was sent, by what its vendor reports."""

import structlog

from actions import status_callbacks
from actions.refusals import counted
from actions.relay import Relay
from actions.status_callbacks import Callback
from actions.text_caller import advance
from domain.errors import NotFound, Unauthenticated
from domain.messages import StatusReport
from persistence import messages
from persistence.models import Message, SmsConfig

log = structlog.get_logger()


async def believe(relay: Relay, callback: Callback) -> Message:
    """Return the message a callback is about, once its vendor is known to have made it.

    Raises:
        Unauthenticated: when nothing proves that, or there is no such message to prove it by.
        NotFound: when the token is ours and the message gone.
    """

    def unit() -> tuple[Message, SmsConfig | None] | None:
        message = messages.by_id(callback.message_id)
        return (message, status_callbacks.config_of(message)) if message else None

    found = await relay.database.read(unit)
    with counted(relay, callback.provider):
        if found is None or found[0].provider != callback.provider:
            if status_callbacks.has_token(relay, callback):
                raise NotFound("There is no such message any more")
            raise Unauthenticated("The callback is about no message of that provider")
        message, config = found
        status_callbacks.verify(relay, callback, config)
    return message


async def track_message(relay: Relay, message: Message, callback: Callback) -> None:
    """Move the message on by what is reported; what is late, repeated or about another message changes nothing.

    Raises:
        InvalidRequest: when the report cannot be read.
    """
    report = status_callbacks.read(callback)
    if report is None:
        return
    if message.provider_message_id not in (None, report.provider_message_id):
        log.warning("sms.foreign_report", message_id=message.id, provider=message.provider)
        return
    moved = await relay.database.write(lambda: _advance(message, report), of=message.organization_id)
    log.info("sms.reported", message_id=message.id, status=report.status.value, moved=moved)


def _advance(message: Message, report: StatusReport) -> bool:
    error = f"{message.provider}: error {report.error_code}" if report.error_code else None
    return advance(message, report.status, provider_message_id=report.provider_message_id, error=error)
