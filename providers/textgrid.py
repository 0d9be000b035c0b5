"""TextGrid: one text out, its status reports in.

TextGrid publishes no specification that could be read; what is here agrees across several unrelated public accounts of
its API. So this client is tolerant in what it reads and strict in what it believes: a 2xx counts only with a message id
and without a failure inside. Nothing is known about 5xx or about repeating, so nothing is ever repeated.
"""

import base64
import hashlib
import hmac
from typing import Annotated, Literal
from urllib.parse import quote

import httpx
from pydantic import Field, SecretStr

from domain.errors import ProviderError
from domain.messages import OutboundText, SentText, StatusReport
from domain.statuses import MessageStatus
from providers.callbacks import require_any
from providers.credentials import Credentials, Secret
from providers.exchange import SEND_TIMEOUT, VendorAnswer, exchange, quotable, refusal
from providers.text_messages import FAILURES, accepted, read_status

_STATUSES = {
    "accepted": MessageStatus.SENT,
    "queued": MessageStatus.SENT,
    "sending": MessageStatus.SENT,
    "sent": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "undelivered": MessageStatus.UNDELIVERED,
    "failed": MessageStatus.FAILED,
}


class TextGridCredentials(Credentials):
    """A TextGrid account; most sources send the pair as `Bearer`, some as `Basic`.

    `webhook_secret` is what status reports are signed with; without it they are not believed by a signature.
    """

    account_sid: Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
    auth_token: Secret
    auth_scheme: Literal["Bearer", "Basic"] = "Bearer"
    webhook_secret: Secret | None = None

    def authorization(self) -> str:
        """Return the value of the `Authorization` header."""
        pair = f"{self.account_sid}:{self.auth_token.get_secret_value()}"
        return f"{self.auth_scheme} {base64.b64encode(pair.encode()).decode()}"

    def private(self) -> tuple[str, ...]:
        """Return what no error may quote, the header included."""
        return (*super().private(), self.authorization())


class TextGrid:
    """Sends texts through one TextGrid account."""

    name = "textgrid"

    def __init__(
        self, http: httpx.AsyncClient, url: str, credentials: TextGridCredentials, *, timeout: float = SEND_TIMEOUT
    ) -> None:
        # An account SID is base64 and may hold `/`, `+` and `=`.
        account = quote(credentials.account_sid, safe="")
        self._http = http
        self._url = f"{url.rstrip('/')}/2010-04-01/Accounts/{account}/Messages.json"
        self._credentials = credentials
        self._timeout = timeout

    async def send(self, message: OutboundText) -> SentText:
        """Send `message` once; TextGrid has no field for our reference.

        Raises:
            ProviderRejected: TextGrid refused it, or accepted it as failed.
            ProviderUnavailable: it was certainly not processed.
            OutcomeUnknown: it left us, and nobody can tell what became of it.
        """
        document = {"body": message.text, "from": message.from_number, "to": message.to_number}
        if message.status_callback:
            document["statusCallback"] = message.status_callback
        answer = await exchange(
            self._http,
            self.name,
            "POST",
            self._url,
            headers={"Authorization": self._credentials.authorization()},
            timeout=self._timeout,
            document=document,
        )
        if not answer.is_success:
            raise self._refused(answer, message)
        return self._accepted(answer, message)

    def _accepted(self, answer: VendorAnswer, message: OutboundText) -> SentText:
        document = answer.document()
        failed = _STATUSES.get(str(document.get("status")).lower()) in FAILURES
        is_failed = failed or bool(document.get("error_code"))
        return accepted(self.name, answer, is_failed=is_failed, quote=lambda words: self._quote(words, message))

    def _refused(self, answer: VendorAnswer, message: OutboundText) -> ProviderError:
        document = answer.document()
        words = document.get("message") or document.get("error_message") or answer.text()
        code = document.get("code") or document.get("error_code")
        return refusal(self.name, answer, code=code, said=self._quote(words, message))

    def _quote(self, words: object, message: OutboundText) -> str | None:
        private = (*message.private(), *self._credentials.private())
        return quotable(words, private)


def verify_signature(signature: str, url: str, body: bytes, secret: SecretStr) -> None:
    """Insist that TextGrid made a request to us (`X-TextGrid-Signature`).

    HMAC-SHA1 over the full URL followed by the raw body, keyed with the webhook secret (not the auth token), in base64.

    Raises:
        Unauthenticated: when the signature does not match.
    """
    digest = hmac.new(secret.get_secret_value().encode(), url.encode() + body, hashlib.sha1).digest()
    require_any([base64.b64encode(digest).decode()], signature)


def parse_status(body: bytes) -> StatusReport | None:
    """Read a status callback; None for a status that says nothing we record.

    Raises:
        InvalidRequest: when `body` is no status callback.
    """
    return read_status(body, _STATUSES)
