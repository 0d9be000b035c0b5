"""Twilio Programmable Messaging: one text out, its status reports in.

Source: Twilio's OpenAPI description of the 2010-04-01 API and its documentation pages. There is no idempotency key for
creating a message, so a create is never repeated here. A 429 "is never processed and is always safe to retry" (page of
error 20429); nothing of the kind is promised for any 5xx.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, urlsplit

import httpx
from pydantic import Field, SecretStr, model_validator

from domain.errors import InvalidRequest, ProviderError, Unauthenticated
from domain.messages import OutboundText, SentText, StatusReport
from domain.statuses import MessageStatus
from providers.callbacks import read_form, require_any
from providers.credentials import Credentials, Secret
from providers.exchange import SEND_TIMEOUT, VendorAnswer, exchange, quotable, refusal
from providers.text_messages import FAILURES, accepted, read_status

_FORM = "application/x-www-form-urlencoded"

_STATUSES = {
    "accepted": MessageStatus.SENT,
    "scheduled": MessageStatus.SENT,
    "queued": MessageStatus.SENT,
    "sending": MessageStatus.SENT,
    "sent": MessageStatus.SENT,
    "partially_delivered": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "read": MessageStatus.DELIVERED,
    "undelivered": MessageStatus.UNDELIVERED,
    "failed": MessageStatus.FAILED,
    "canceled": MessageStatus.FAILED,
}


class TwilioCredentials(Credentials):
    """A Twilio account: its SID with the auth token, with an API key, or with both.

    An API key is preferred for sending. Status reports are signed with the auth token either way.
    """

    account_sid: Annotated[str, Field(pattern=r"^AC[0-9a-fA-F]{32}$")]
    auth_token: Secret | None = None
    api_key_sid: Annotated[str, Field(pattern=r"^SK[0-9a-fA-F]{32}$")] | None = None
    api_key_secret: Secret | None = None

    @model_validator(mode="after")
    def _can_authenticate(self) -> Self:
        if (self.api_key_sid is None) != (self.api_key_secret is None):
            raise ValueError("an API key needs both its SID and its secret")
        if self.auth_token is None and self.api_key_sid is None:
            raise ValueError("give an auth token or an API key")
        return self

    def basic(self) -> str:
        """Return the value of the `Authorization` header."""
        user, secret = self.api_key_sid, self.api_key_secret
        if user is None or secret is None:
            user, secret = self.account_sid, self.auth_token
        password = secret.get_secret_value() if secret else ""
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def private(self) -> tuple[str, ...]:
        """Return what no error may quote, the header included."""
        return (*super().private(), self.basic())


class Twilio:
    """Sends texts through one Twilio account."""

    name = "twilio"

    def __init__(
        self, http: httpx.AsyncClient, url: str, credentials: TwilioCredentials, *, timeout: float = SEND_TIMEOUT
    ) -> None:
        self._http = http
        self._url = f"{url.rstrip('/')}/2010-04-01/Accounts/{credentials.account_sid}/Messages.json"
        self._credentials = credentials
        self._timeout = timeout

    async def send(self, message: OutboundText) -> SentText:
        """Send `message` once; Twilio has no field for our reference.

        Raises:
            ProviderRejected: Twilio refused it; `vendor_code` is Twilio's number, such as `21610` for an opt-out.
            ProviderUnavailable: it was certainly not processed.
            OutcomeUnknown: it left us, and nobody can tell what became of it.
        """
        form = {"To": message.to_number, "From": message.from_number, "Body": message.text}
        if message.status_callback:
            form["StatusCallback"] = message.status_callback
        answer = await exchange(
            self._http,
            self.name,
            "POST",
            self._url,
            headers={"Authorization": self._credentials.basic()},
            timeout=self._timeout,
            form=form,
        )
        if not answer.is_success:
            raise self._refused(answer, message)
        return self._accepted(answer, message)

    async def check(self) -> None:
        """Ask for a list of one message: whoever may read it may also send.

        Raises:
            ProviderRejected: Twilio does not accept the credentials.
            ProviderUnavailable: nothing was said about them.
        """
        answer = await exchange(
            self._http,
            self.name,
            "GET",
            f"{self._url}?PageSize=1",
            headers={"Authorization": self._credentials.basic()},
            timeout=self._timeout,
        )
        if not answer.is_success:
            document = answer.document()
            said = quotable(document.get("message"), self._credentials.private())
            raise refusal(self.name, answer, code=document.get("code"), said=said)

    def _accepted(self, answer: VendorAnswer, message: OutboundText) -> SentText:
        document = answer.document()
        failed = _STATUSES.get(str(document.get("status"))) in FAILURES
        is_failed = failed or document.get("error_code") is not None
        return accepted(self.name, answer, is_failed=is_failed, quote=lambda words: self._quote(words, message))

    def _refused(self, answer: VendorAnswer, message: OutboundText) -> ProviderError:
        # Older errors say `message`; newer ones follow RFC 9457 and say `title` and, if there is more, `detail`.
        document = answer.document()
        words = document.get("message") or document.get("detail") or document.get("title") or answer.text()
        return refusal(self.name, answer, code=document.get("code"), said=self._quote(words, message))

    def _quote(self, words: object, message: OutboundText) -> str | None:
        private = (*message.private(), *self._credentials.private())
        return quotable(words, private)


def verify_signature(
    signature: str,
    url: str,
    body: bytes,
    content_type: str,
    secret: SecretStr,
    *,
    algorithm: Literal["sha1", "sha256"] = "sha1",
) -> None:
    """Insist that Twilio made a request to us (`X-Twilio-Signature`).

    Args:
        signature: the header's value.
        url: the full URL as Twilio saw it, query included; tried with and without its port, as Twilio signs both ways.
        body: the raw body.
        content_type: the `Content-Type` header; anything but a form must carry `bodySHA256` in the URL.
        secret: the auth token, or for `sha256` the shared key's secret.
        algorithm: how this account signs. Taken from our configuration, never from the request, which could lie.

    Raises:
        Unauthenticated: when the signature or the hash of the body does not match.
    """
    fields: Iterable[tuple[str, str]] = ()
    if content_type.partition(";")[0].strip().lower() == _FORM:
        fields = _form_of(body)
    elif body:
        _require_hash(url, body)
    # Twilio signs, per key in sorted order, each distinct value once, values sorted too.
    tail = "".join(key + value for key, value in sorted(set(fields)))
    require_any([_signature(address + tail, secret, algorithm) for address in _addresses(url)], signature)


def parse_status(body: bytes) -> StatusReport | None:
    """Read a status callback; None for a status that says nothing we record.

    Raises:
        InvalidRequest: when `body` is no status callback.
    """
    return read_status(body, _STATUSES)


def _form_of(body: bytes) -> list[tuple[str, str]]:
    try:
        return read_form(body)
    except InvalidRequest as error:
        raise Unauthenticated("The signed form is not readable") from error


def _require_hash(url: str, body: bytes) -> None:
    given = parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0]
    require_any([hashlib.sha256(body).hexdigest()], given)


def _signature(signed: str, secret: SecretStr, algorithm: str) -> str:
    digest = hmac.new(secret.get_secret_value().encode(), signed.encode(), algorithm).digest()
    return base64.b64encode(digest).decode()


def _addresses(url: str) -> tuple[str, str]:
    """Return `url` without its port and with it."""
    parts = urlsplit(url)
    host = parts.netloc.removesuffix(f":{parts.port}") if parts.port else parts.netloc
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts._replace(netloc=host).geturl(), parts._replace(netloc=f"{host}:{port}").geturl()
