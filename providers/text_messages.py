"""What Twilio's API and those made like it share: an answer that accepts a text, and a report of its status."""

from collections.abc import Callable, Mapping

from domain.errors import InvalidRequest, ProviderRejected
from domain.messages import SentText, StatusReport
from domain.statuses import MessageStatus
from providers.callbacks import read_form
from providers.exchange import VendorAnswer, code_text, garbled

FAILURES = frozenset({MessageStatus.UNDELIVERED, MessageStatus.FAILED})


def accepted(
    provider: str, answer: VendorAnswer, *, is_failed: bool, quote: Callable[[object], str | None]
) -> SentText:
    """Return what a 2xx answer says was sent; `quote` makes the vendor's words fit for a log.

    Raises:
        ProviderRejected: if `is_failed`: the vendor accepted the text as failed.
        OutcomeUnknown: if the answer has no message id.
    """
    document = answer.document()
    if is_failed:
        said = quote(document.get("error_message")) or "no reason given"
        code = code_text(document.get("error_code"))
        raise ProviderRejected(provider, f"accepted it as failed: {said}", status=answer.status, vendor_code=code)
    sid = document.get("sid")
    if not isinstance(sid, str) or not 0 < len(sid) <= 128:
        raise garbled(provider, answer, "a message id")
    return SentText(sid)


def read_status(body: bytes, statuses: Mapping[str, MessageStatus]) -> StatusReport | None:
    """Read a status callback; `statuses` translates the vendor's words. None for a status that says nothing we record.

    Raises:
        InvalidRequest: when `body` is no status callback.
    """
    fields = dict(read_form(body))
    sid = fields.get("MessageSid") or fields.get("SmsSid")
    word = fields.get("MessageStatus") or fields.get("SmsStatus")
    if not sid or not word:
        raise InvalidRequest("Missing MessageSid or MessageStatus")
    status = statuses.get(word.lower())
    if status is None:
        return None
    return StatusReport(sid, status, code_text(fields.get("ErrorCode")) if status in FAILURES else None)
