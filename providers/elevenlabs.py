"""ElevenLabs: the workspace webhook that brings finished calls to us, and the signature on what it brings.

Source: ElevenLabs' SDK and OpenAPI description. Creating a webhook has no idempotency key and its secret is shown once,
so a create is never repeated: whoever gets `OutcomeUnknown` looks with `find_webhook` before trying again. Questions
(GET) may be asked twice. An error's `detail` is a list, an object or a string, and sometimes there is no JSON at all.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from domain.errors import ProviderError, ProviderRejected, ProviderUnavailable, Unauthenticated
from providers.callbacks import require_recent
from providers.exchange import VendorAnswer, exchange, garbled, quotable, refusal

POST_CALL_EVENTS = ("transcript", "audio", "call_initiation_failure")

_PROVIDER = "elevenlabs"
_MAX_HEADER = 1024
_TIMESTAMP = re.compile(r"[0-9]{1,12}\Z")


@dataclass(frozen=True, slots=True)
class Webhook:
    """A workspace webhook as it stands; `usages` are the products it serves, in ElevenLabs' words."""

    id: str
    name: str
    url: str
    is_disabled: bool = False
    is_auto_disabled: bool = False
    usages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CreatedWebhook:
    """A webhook just made; this is the only time ElevenLabs shows the secret, and it may show none."""

    id: str
    secret: SecretStr | None


class ElevenLabs:
    """Speaks to one ElevenLabs workspace as the owner of `api_key`.

    Every method raises `ProviderRejected` when the workspace refuses, and `ProviderUnavailable` when nothing was done.
    The methods that write also raise `OutcomeUnknown` when nobody can tell.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, api_key: SecretStr, timeout: float) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._api_key = api_key
        self._timeout = timeout

    async def find_webhook(self, url: str) -> Webhook | None:
        """Return the signed webhook that delivers to `url`, one that is switched on if there are several."""
        answer = await self.ask("/v1/workspace/webhooks?include_usages=true")
        entries = answer.document().get("webhooks")
        if not isinstance(entries, list):
            raise garbled(_PROVIDER, answer, "a list of webhooks")
        ours = [_webhook(entry) for entry in entries if _delivers_to(entry, url)]
        return min(ours, key=lambda webhook: webhook.is_disabled or webhook.is_auto_disabled, default=None)

    async def create_webhook(self, name: str, url: str, headers: Mapping[str, str] | None = None) -> CreatedWebhook:
        """Make a signed webhook that delivers to `url`, and sends `headers` along; never repeated here.

        A lost answer may hide a webhook that was made, so look with `find_webhook` before trying again.

        The address cannot be changed later, and retries are off until `enable_retries`.
        """
        settings: dict[str, Any] = {"auth_type": "hmac", "name": name, "webhook_url": url}
        if headers:
            settings["request_headers"] = dict(headers)
        answer = await self.tell("POST", "/v1/workspace/webhooks", {"settings": settings})
        document = answer.document()
        webhook, secret = document.get("webhook_id"), document.get("webhook_secret")
        if not isinstance(webhook, str) or not webhook:
            raise garbled(_PROVIDER, answer, "a webhook id")
        return CreatedWebhook(webhook, SecretStr(secret) if isinstance(secret, str) and secret else None)

    async def delete_webhook(self, webhook_id: str) -> None:
        """See to it that there is no such webhook; one that is already gone is fine.

        Raises:
            ProviderRejected: also when a product still uses it.
        """
        try:
            await self.tell("DELETE", f"/v1/workspace/webhooks/{quote(webhook_id, safe='')}")
        except ProviderRejected as error:
            if error.status != 404:
                raise

    async def point_post_call_at(self, webhook_id: str) -> bool:
        """Make `webhook_id` the workspace's post-call webhook for transcripts, audio and failed calls.

        What else is set stays, other events included; the transcript's format becomes the JSON we read.

        Returns:
            whether reports carry a transcript: False if the workspace excludes it (`exclude_transcript`).

        Raises:
            ProviderRejected: also when the reply shows that the setting did not take.
        """
        asked = await self.ask("/v1/convai/settings")
        if not (settings := asked.document()):
            raise garbled(_PROVIDER, asked, "the settings")
        current = settings.get("webhooks")
        wanted = _pointed_at(webhook_id, current if isinstance(current, dict) else {})
        answer = await self.tell("PATCH", "/v1/convai/settings", {"webhooks": wanted})
        settled = answer.document().get("webhooks")
        if not isinstance(settled, dict):
            raise garbled(_PROVIDER, answer, "the settings")
        if not _took(settled, webhook_id):
            raise ProviderRejected(_PROVIDER, "the post-call setting did not take", status=answer.status)
        return settled.get("exclude_transcript") is not True

    async def enable_retries(self, webhook_id: str, name: str, headers: Mapping[str, str] | None = None) -> None:
        """Switch on the retries of a webhook, and the webhook itself; `name` has to be said again, `headers` may be.

        Without this everything works but a delivery that fails is lost, so a failure here need not undo a set-up: its
        `reason` begins with "retries are off".
        """
        document: dict[str, Any] = {"is_disabled": False, "name": name, "retry_enabled": True}
        if headers:
            document["request_headers"] = dict(headers)
        try:
            await self.tell("PATCH", f"/v1/workspace/webhooks/{quote(webhook_id, safe='')}", document)
        except ProviderError as error:
            reason = f"retries are off: {error.reason}"
            raise type(error)(_PROVIDER, reason, status=error.status, vendor_code=error.vendor_code) from error

    async def ask(self, path: str) -> VendorAnswer:
        """Send a question, twice if nothing came back in time for that, and return the answer."""
        deadline = time.monotonic() + self._timeout
        try:
            return await self._exchange("GET", path, self._timeout)
        except ProviderUnavailable as error:
            left = deadline - time.monotonic()
            if error.status is not None or left <= 0:
                raise
            return await self._exchange("GET", path, left)

    async def tell(self, method: str, path: str, document: object = None, *, secret: str | None = None) -> VendorAnswer:
        """Send what changes something, once, and return the answer; no error quotes `secret`, if there is one."""
        return await self._exchange(method, path, self._timeout, document, secret)

    async def _exchange(
        self, method: str, path: str, seconds: float, document: object = None, secret: str | None = None
    ) -> VendorAnswer:
        key = self._api_key.get_secret_value()
        answer = await exchange(
            self._http,
            _PROVIDER,
            method,
            self._url + path,
            headers={"xi-api-key": key},
            timeout=seconds,
            document=document,
        )
        if not answer.is_success:
            raise _refused(answer, [key] if secret is None else [key, secret])
        return answer


class SignatureCheck:
    """Checks `ElevenLabs-Signature` over a body that arrives in chunks: `feed` each one, then `finish`.

    The header is `t=<unix seconds>,v0=<hex>`; signed is `<t>.<body>` with HMAC-SHA256. Spaces around the parts are
    fine, any of several `v0` may match, and so may any of several secrets.
    """

    def __init__(self, header: str, secrets: Iterable[SecretStr], *, now: float, tolerance_seconds: float) -> None:
        """Read the header and check its time; `now` and the tolerance (before and after) are in seconds.

        Raises:
            Unauthenticated: when the header is malformed, or its time lies outside the tolerance.
        """
        timestamp, self._given = _parts(header)
        require_recent(float(timestamp), now, tolerance_seconds)
        start = f"{timestamp}.".encode()
        usable = [secret for secret in secrets if secret.get_secret_value()]
        self._digests = [
            (secret, hmac.new(secret.get_secret_value().encode(), start, hashlib.sha256)) for secret in usable
        ]

    def feed(self, chunk: bytes) -> None:
        """Take in the next piece of the body."""
        for _, digest in self._digests:
            digest.update(chunk)

    def finish(self) -> SecretStr:
        """Insist that the whole body was signed with one of the secrets, and return that one.

        Raises:
            Unauthenticated: when it was not.
        """
        expected = [(secret, digest.hexdigest().encode()) for secret, digest in self._digests]
        signed = [secret for secret, ours in expected for theirs in self._given if hmac.compare_digest(ours, theirs)]
        if not signed:
            raise Unauthenticated("The signature does not match")
        return signed[0]


def verify_signature(
    header: str, body: bytes, secrets: Iterable[SecretStr], *, now: float, tolerance_seconds: float
) -> None:
    """Insist that ElevenLabs signed `body`; see `SignatureCheck`.

    Raises:
        Unauthenticated: when it did not, or not within `tolerance_seconds` of `now`.
    """
    check = SignatureCheck(header, secrets, now=now, tolerance_seconds=tolerance_seconds)
    check.feed(body)
    check.finish()


def _parts(header: str) -> tuple[str, list[bytes]]:
    if len(header) > _MAX_HEADER:
        raise Unauthenticated("The signature header is too long")
    pairs = [part.strip().partition("=") for part in header.split(",")]
    timestamps = [value.strip() for name, _, value in pairs if name.strip() == "t"]
    signatures = [value.strip().encode("utf-8", "replace") for name, _, value in pairs if name.strip() == "v0"]
    if len(timestamps) != 1 or not _TIMESTAMP.match(timestamps[0]) or not signatures:
        raise Unauthenticated("The signature header is malformed")
    return timestamps[0], signatures


def _delivers_to(entry: Any, url: str) -> bool:
    return isinstance(entry, dict) and entry.get("webhook_url") == url and entry.get("auth_type", "hmac") == "hmac"


def _webhook(entry: dict[str, Any]) -> Webhook:
    usages = entry.get("usage")
    return Webhook(
        id=str(entry.get("webhook_id")),
        name=str(entry.get("name")),
        url=str(entry.get("webhook_url")),
        is_disabled=bool(entry.get("is_disabled")),
        is_auto_disabled=bool(entry.get("is_auto_disabled")),
        usages=tuple(str(usage.get("usage_type")) for usage in usages if isinstance(usage, dict))
        if isinstance(usages, list)
        else (),
    )


def _pointed_at(webhook_id: str, current: dict[str, Any]) -> dict[str, Any]:
    # `send_audio` is what `events` replaced; sent along, an old false could contradict the audio we ask for.
    kept = {name: value for name, value in current.items() if name != "send_audio" and value is not None}
    events = kept["events"] if isinstance(kept.get("events"), list) else []
    missing = [event for event in POST_CALL_EVENTS if event not in events]
    return {**kept, "post_call_webhook_id": webhook_id, "events": events + missing, "transcript_format": "json"}


def _took(settled: dict[str, Any], webhook_id: str) -> bool:
    events = settled.get("events")
    return (
        settled.get("post_call_webhook_id") == webhook_id
        and isinstance(events, list)
        and all(event in events for event in POST_CALL_EVENTS)
        and settled.get("transcript_format", "json") == "json"
    )


def _refused(answer: VendorAnswer, private: list[str]) -> ProviderError:
    detail = answer.document().get("detail")
    code, words = _read_detail(detail[0] if isinstance(detail, list) and detail else detail)
    return refusal(_PROVIDER, answer, code=code, said=quotable(words or answer.text(), private))


def _read_detail(detail: Any) -> tuple[object, object]:
    """Return the code and the words of an error: `{status, message}`, one entry of a list of problems, or a string."""
    if not isinstance(detail, dict):
        return None, detail
    if "msg" in detail:
        place = detail.get("loc")
        where = ".".join(str(part) for part in place) + ": " if isinstance(place, list) else ""
        return detail.get("type"), f"{where}{detail['msg']}"
    return detail.get("status") or detail.get("code"), detail.get("message")
