"""Sinch SMS (XMS batches): one text out, its delivery reports in, for both kinds of credentials.

Source: Sinch's SDKs and its SMS REST pages. A service plan authenticates with a static token; a project with an OAuth
token that lives about an hour, kept in `AccessTokens`. There is no idempotency key, so a batch is never created twice:
the one repetition here follows a 401, which says that nothing was done. Sinch's page calls 5xx an error on its own side
and promises nothing about what became of the request.
"""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import quote

import httpx
from pydantic import Field, SecretStr, TypeAdapter

from domain.documents import load
from domain.errors import InvalidRequest, OutcomeUnknown, ProviderError, ProviderUnavailable, Unauthenticated
from domain.messages import OutboundText, SentText, StatusReport
from domain.statuses import MessageStatus
from providers.callbacks import require_any, require_recent
from providers.credentials import Credentials, Secret
from providers.exchange import SEND_TIMEOUT, VendorAnswer, code_text, exchange, garbled, quotable, refusal

Region = Literal["us", "eu", "au", "br", "ca"]
_Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]

_PROVIDER = "sinch"
_EARLY = 60

# `unknown` is final at Sinch and says that the operator took the text and then gave no receipt one could read.
_STATUSES = {
    "queued": MessageStatus.SENT,
    "dispatched": MessageStatus.SENT,
    "unknown": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "expired": MessageStatus.UNDELIVERED,
    "deleted": MessageStatus.UNDELIVERED,
    "failed": MessageStatus.UNDELIVERED,
    "rejected": MessageStatus.FAILED,
    "aborted": MessageStatus.FAILED,
    "cancelled": MessageStatus.FAILED,
}
_FAILURES = frozenset({MessageStatus.UNDELIVERED, MessageStatus.FAILED})


class SinchServicePlan(Credentials):
    """A service plan and its API token; `region` is where the plan lives, and has no default.

    `webhook_secret` is what delivery reports are signed with, when the account has them signed.
    """

    kind: Literal["service_plan"] = "service_plan"
    service_plan_id: _Identifier
    api_token: Secret
    region: Region
    webhook_secret: Secret | None = None

    @property
    def host(self) -> str:
        """The address of the SMS API for this plan."""
        return f"https://{self.region}.sms.api.sinch.com"

    @property
    def account(self) -> str:
        """The path segment that names the account."""
        return self.service_plan_id


class SinchProject(Credentials):
    """A project and one of its access keys; Sinch names `us` and `eu` as the regions that take these.

    `webhook_secret` is what delivery reports are signed with, when the account has them signed.
    """

    kind: Literal["project"] = "project"
    project_id: _Identifier
    key_id: _Identifier
    key_secret: Secret
    region: Region
    webhook_secret: Secret | None = None

    @property
    def host(self) -> str:
        """The address of the SMS API for this project."""
        return f"https://zt.{self.region}.sms.api.sinch.com"

    @property
    def account(self) -> str:
        """The path segment that names the account."""
        return self.project_id

    def basic(self) -> str:
        """Return the `Authorization` header that buys an access token."""
        pair = f"{self.key_id}:{self.key_secret.get_secret_value()}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def private(self) -> tuple[str, ...]:
        """Return what no error may quote, the header included."""
        return (*super().private(), self.basic())


SinchCredentials = Annotated[SinchServicePlan | SinchProject, Field(discriminator="kind")]


def read_credentials(document: Any) -> SinchServicePlan | SinchProject:
    """Read stored credentials; `kind` says which.

    Raises:
        pydantic.ValidationError: when they are neither.
    """
    adapter: TypeAdapter[SinchServicePlan | SinchProject] = TypeAdapter(SinchCredentials)
    return adapter.validate_python(document)


class AccessTokens:
    """The OAuth tokens of every project, shared by all who send: one is bought when needed, by one caller at a time.

    The token endpoint allows 10 requests a second and says nothing about when to come back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, SinchProject], _Kept] = {}

    async def get(
        self,
        http: httpx.AsyncClient,
        auth_url: str,
        project: SinchProject,
        *,
        timeout: float,
        stale: str | None = None,
    ) -> str:
        """Return a token with at least 60 seconds to live, other than the `stale` one that was just refused.

        Raises:
            ProviderRejected: Sinch does not accept the key.
            ProviderUnavailable: no token could be had within `timeout` seconds.
        """
        kept = self._kept.setdefault((auth_url, project), _Kept())
        try:
            async with asyncio.timeout(timeout), kept.lock:
                if kept.token == stale or self._clock() >= kept.renew_at:
                    kept.token, lifetime = await _buy(http, auth_url, project, timeout)
                    kept.renew_at = self._clock() + lifetime - _EARLY
                return kept.token
        except TimeoutError:
            raise ProviderUnavailable(_PROVIDER, f"no access token within {timeout:.2g} s") from None


class Sinch:
    """Sends texts through one Sinch account."""

    name = _PROVIDER

    def __init__(
        self,
        http: httpx.AsyncClient,
        credentials: SinchServicePlan | SinchProject,
        *,
        auth_url: str,
        sms_url: str | None = None,
        tokens: AccessTokens | None = None,
        timeout: float = SEND_TIMEOUT,
    ) -> None:
        """Make a sender.

        Args:
            http: whose connections to use.
            credentials: the account.
            auth_url: where access tokens are bought.
            sms_url: used instead of the region's own host.
            tokens: shared by all senders of the process, so that they share what they bought.
            timeout: seconds for one text, the token included.
        """
        self._http = http
        self._url = f"{(sms_url or credentials.host).rstrip('/')}/xms/v1/{quote(credentials.account, safe='')}/batches"
        self._credentials = credentials
        self._auth_url = auth_url.rstrip("/")
        self._tokens = tokens or AccessTokens()
        self._timeout = timeout

    async def send(self, message: OutboundText) -> SentText:
        """Send `message` once, with our reference as `client_reference`.

        Raises:
            ProviderRejected: Sinch refused it, or our key; `vendor_code` is a word such as `unknown_campaign`.
            ProviderUnavailable: it was certainly not processed.
            OutcomeUnknown: it left us, and nobody can tell what became of it.
        """
        deadline = time.monotonic() + self._timeout
        token = await self._token(deadline)
        answer = await self._create(message, token, deadline)
        if self._is_expired(answer):
            token = await self._token(deadline, stale=token)
            answer = await self._create(message, token, deadline)
        if not answer.is_success:
            raise self._refused(answer, message, token)
        batch = answer.document().get("id")
        if not isinstance(batch, str) or not 0 < len(batch) <= 128:
            raise garbled(self.name, answer, "a batch id")
        return SentText(batch)

    async def check(self) -> None:
        """Ask for a list of one batch: whoever may read it may also send.

        Raises:
            ProviderRejected: Sinch does not accept the credentials.
            ProviderUnavailable: nothing was said about them.
        """
        deadline = time.monotonic() + self._timeout
        token = await self._token(deadline)
        answer = await exchange(
            self._http,
            self.name,
            "GET",
            f"{self._url}?page_size=1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=_left(deadline),
        )
        if not answer.is_success:
            document = answer.document()
            said = quotable(document.get("text") or answer.text(), (token, *self._credentials.private()))
            raise refusal(self.name, answer, code=document.get("code"), said=said)

    async def _token(self, deadline: float, stale: str | None = None) -> str:
        if isinstance(self._credentials, SinchServicePlan):
            return self._credentials.api_token.get_secret_value()
        left = _left(deadline)
        return await self._tokens.get(self._http, self._auth_url, self._credentials, timeout=left, stale=stale)

    async def _create(self, message: OutboundText, token: str, deadline: float) -> VendorAnswer:
        return await exchange(
            self._http,
            self.name,
            "POST",
            self._url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_left(deadline),
            document=_batch(message),
        )

    def _is_expired(self, answer: VendorAnswer) -> bool:
        is_oauth = isinstance(self._credentials, SinchProject)
        return is_oauth and answer.status == 401 and "expired" in answer.headers.get("WWW-Authenticate", "").lower()

    def _refused(self, answer: VendorAnswer, message: OutboundText, token: str) -> ProviderError:
        document = answer.document()
        private = (*message.private(), token, *self._credentials.private())
        words = document.get("text") or answer.text()
        return refusal(self.name, answer, code=document.get("code"), said=quotable(words, private))


def verify_signature(
    signature: str,
    nonce: str,
    timestamp: str,
    body: bytes,
    secret: SecretStr,
    *,
    now: float,
    tolerance_seconds: float | None = None,
) -> None:
    """Insist that Sinch made a request to us (`x-sinch-webhook-signature`, `-nonce` and `-timestamp`).

    Without a tolerance the age is not checked: Sinch retries for about a day, and says nowhere that a retry is signed
    afresh.

    Raises:
        Unauthenticated: when the signature does not match, or the time (Unix seconds) lies outside the tolerance.
    """
    signed = b".".join((body, nonce.encode("utf-8", "replace"), timestamp.encode("utf-8", "replace")))
    digest = hmac.new(secret.get_secret_value().encode(), signed, hashlib.sha256).digest()
    require_any([base64.b64encode(digest).decode()], signature)
    if tolerance_seconds is not None:
        require_recent(_seconds(timestamp), now, tolerance_seconds)


def parse_status(body: bytes) -> StatusReport | None:
    """Read a delivery report, per recipient or summed up; None for one that says nothing we record.

    Raises:
        InvalidRequest: when `body` is no delivery report.
    """
    report = load(body)
    if not isinstance(report, dict) or not isinstance(report.get("batch_id"), str):
        raise InvalidRequest("Missing batch_id")
    entry = _entry(report)
    status = _STATUSES.get(str(entry.get("status")).lower())
    if status is None:
        return None
    code, reference = code_text(entry.get("code")), report.get("client_reference")
    return StatusReport(
        report["batch_id"],
        status,
        code if status in _FAILURES else None,
        reference if isinstance(reference, str) else None,
    )


@dataclass(slots=True)
class _Kept:
    token: str = field(default="", repr=False)
    renew_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


async def _buy(
    http: httpx.AsyncClient,
    auth_url: str,
    project: SinchProject,
    timeout: float,
) -> tuple[str, float]:
    """Return a fresh token and its lifetime in seconds."""
    try:
        answer = await exchange(
            http,
            _PROVIDER,
            "POST",
            f"{auth_url}/oauth2/token",
            headers={"Authorization": project.basic()},
            timeout=timeout,
            form={"grant_type": "client_credentials"},
        )
        return _read_token(answer, project)
    except OutcomeUnknown as error:
        # Whatever became of the token, the text itself never left.
        raise ProviderUnavailable(_PROVIDER, f"no access token: {error.reason}", status=error.status) from error


def _read_token(answer: VendorAnswer, project: SinchProject) -> tuple[str, float]:
    document = answer.document()
    if not answer.is_success:
        said = quotable(document.get("error_description"), project.private())
        raise refusal(_PROVIDER, answer, code=document.get("error"), said=said)
    token, lifetime = document.get("access_token"), document.get("expires_in")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise garbled(_PROVIDER, answer, "an access token")
    return token, float(lifetime) if isinstance(lifetime, int | float) else 0.0


def _batch(message: OutboundText) -> dict[str, Any]:
    batch: dict[str, Any] = {
        "type": "mt_text",
        "from": message.from_number,
        "to": [message.to_number],
        "body": message.text,
        "client_reference": message.reference,
    }
    if message.status_callback:
        batch |= {"delivery_report": "per_recipient", "callback_url": message.status_callback}
    return batch


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


def _entry(report: dict[str, Any]) -> dict[str, Any]:
    # A summed-up report lists statuses with counts; we send to one recipient, so one of them counts.
    if report.get("type") == "recipient_delivery_report_sms":
        return report
    entries = report.get("statuses")
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return entries[0] if len(entries) == 1 else {}


def _seconds(timestamp: str) -> float:
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise Unauthenticated("The signature's time is not a number")
    return float(timestamp)
