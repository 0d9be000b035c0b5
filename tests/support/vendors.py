"""The vendors, played over loopback in their documented bytes.

Each fake keeps what it was told (`messages`, `batches`, `webhooks`), checks credentials, refuses what its vendor would,
and can sign the callbacks its vendor would make. Signing is written here once more, apart from the code under test.
"""

import base64
import hashlib
import hmac
import itertools
import re
import secrets
import time
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from tests.support.faulty_http import Callback, FakeVendor, Received, Reply

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_E164 = re.compile(r"\+[1-9]\d{6,14}\Z")


class FakeTwilio(FakeVendor):
    """Twilio's message resource, with the magic numbers of its test credentials."""

    INVALID, NO_REGION, OPTED_OUT, NOT_MOBILE = "+15005550001", "+15005550003", "+15005550004", "+15005550009"

    _REFUSED: ClassVar = {
        INVALID: (21211, "The 'To' number {to} is not a valid phone number."),
        NO_REGION: (21408, "Permission to send an SMS has not been enabled for the region indicated by {to}."),
        OPTED_OUT: (21610, "Attempt to send to unsubscribed recipient"),
        NOT_MOBILE: (21614, "'To' number {to} is not a valid mobile number"),
    }

    def __init__(self) -> None:
        super().__init__()
        self.account_sid, self.auth_token = "AC" + secrets.token_hex(16), secrets.token_hex(16)
        self.api_key_sid, self.api_key_secret = "SK" + secrets.token_hex(16), secrets.token_urlsafe(24)
        self.messages: list[dict[str, Any]] = []

    @property
    def credentials(self) -> dict[str, str]:
        """The account with its auth token."""
        return {"account_sid": self.account_sid, "auth_token": self.auth_token}

    @property
    def api_key_credentials(self) -> dict[str, str]:
        """The account with an API key."""
        return {
            "account_sid": self.account_sid,
            "api_key_sid": self.api_key_sid,
            "api_key_secret": self.api_key_secret,
        }

    def answer(self, request: Received) -> Reply:
        """Create a message, or say why not."""
        if request.path != f"/2010-04-01/Accounts/{self.account_sid}/Messages.json" or request.method not in (
            "GET",
            "POST",
        ):
            return self._error(404, 20404, f"The requested resource {request.path} was not found")
        if request.headers.get("authorization") not in self._keys():
            return self._error(401, 20003, "Authenticate")
        if request.method == "GET":
            return Reply(200, {"messages": self.messages[:1], "page": 0, "page_size": 1})
        form = request.form
        to = form.get("To", "")
        if not form.get("Body"):
            return self._error(400, 21602, "Message body is required.")
        if len(form["Body"]) > 1600:
            return self._error(400, 21617, "The concatenated message body exceeds the 1600 character limit")
        if to in self._REFUSED or not _E164.match(to):
            code, words = self._REFUSED.get(to, self._REFUSED[self.INVALID])
            return self._error(400, code, words.format(to=to))
        return Reply(201, self._create(form))

    def status_callback(
        self, message: dict[str, Any], status: str, error_code: int | None = None, *, url: str | None = None
    ) -> Callback:
        """Return the signed report Twilio would make about `message`, to `url` or the address it was given."""
        fields = {
            "MessageSid": message["sid"],
            "SmsSid": message["sid"],
            "AccountSid": self.account_sid,
            "From": message["from"],
            "To": message["to"],
            "MessageStatus": status,
            "SmsStatus": status,
            "ApiVersion": "2010-04-01",
        } | ({} if error_code is None else {"ErrorCode": str(error_code)})
        address = url or message["status_callback"]
        return Callback(address, _FORM | self.signature(self.auth_token, address, fields), urlencode(fields).encode())

    @staticmethod
    def signature(auth_token: str, address: str, fields: dict[str, str]) -> dict[str, str]:
        """Return the header by which Twilio signs `fields` sent to `address`."""
        signed = address + "".join(name + fields[name] for name in sorted(fields))
        return {"X-Twilio-Signature": _base64(hmac.new(auth_token.encode(), signed.encode(), hashlib.sha1))}

    def _keys(self) -> set[str]:
        return {_basic(self.account_sid, self.auth_token), _basic(self.api_key_sid, self.api_key_secret)}

    def _create(self, form: dict[str, str]) -> dict[str, Any]:
        sid = "SM" + secrets.token_hex(16)
        message = {
            "sid": sid,
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "body": form["Body"],
            "status": "queued",
            "direction": "outbound-api",
            "from": form.get("From"),
            "to": form["To"],
            "date_created": "Tue, 01 Dec 2026 10:00:00 +0000",
            "date_updated": "Tue, 01 Dec 2026 10:00:00 +0000",
            "date_sent": None,
            "error_code": None,
            "error_message": None,
            "messaging_service_sid": None,
            "num_segments": "1",
            "num_media": "0",
            "price": None,
            "price_unit": "USD",
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/Messages/{sid}.json",
            "subresource_uris": {"media": f"/2010-04-01/Accounts/{self.account_sid}/Messages/{sid}/Media.json"},
        }
        self.messages.append({**message, "status_callback": form.get("StatusCallback")})
        return message

    @staticmethod
    def _error(status: int, code: int, message: str) -> Reply:
        more = f"https://www.twilio.com/docs/errors/{code}"
        return Reply(status, {"code": code, "message": message, "more_info": more, "status": status})


class FakeSinch(FakeVendor):
    """Sinch's token endpoint and SMS batches on one address, for both kinds of credentials."""

    def __init__(self) -> None:
        super().__init__()
        self.service_plan_id, self.api_token = secrets.token_hex(16), secrets.token_hex(16)
        self.project_id, self.key_id, self.key_secret = secrets.token_hex(18), secrets.token_hex(18), "~" + _random()
        self.webhook_secret = _random()
        self.expires_in = 3599
        self.tokens: list[str] = []
        self.batches: list[dict[str, Any]] = []
        self._expired: set[str] = set()

    @property
    def service_plan(self) -> dict[str, str]:
        """Credentials of the first kind."""
        return {
            "kind": "service_plan",
            "service_plan_id": self.service_plan_id,
            "api_token": self.api_token,
            "region": "us",
        }

    @property
    def project(self) -> dict[str, str]:
        """Credentials of the second kind."""
        return {
            "kind": "project",
            "project_id": self.project_id,
            "key_id": self.key_id,
            "key_secret": self.key_secret,
            "region": "eu",
        }

    def expire_tokens(self) -> None:
        """Let every access token sold so far run out."""
        self._expired.update(self.tokens)

    def answer(self, request: Received) -> Reply:
        """Sell a token, create a batch, or say why not."""
        if request.path == "/oauth2/token":
            return self._sell(request)
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if bearer in self._expired:
            return Reply(401, headers={"WWW-Authenticate": 'Bearer error="invalid_token", error_description="expired"'})
        accounts = {f"/xms/v1/{self.service_plan_id}/batches": [self.api_token]}
        accounts[f"/xms/v1/{self.project_id}/batches"] = self.tokens
        if request.path not in accounts:
            return Reply(404)
        if bearer not in accounts[request.path]:
            return Reply(401)
        if request.method == "GET":
            return Reply(200, {"count": len(self.batches), "page": 0, "batches": self.batches[:1]})
        return self._create(request.document)

    def delivery_report(
        self, batch: dict[str, Any], status: str, code: int, *, url: str | None = None, summary: bool = False
    ) -> Callback:
        """Return the signed report Sinch would make about `batch`, per recipient or summed up."""
        report: dict[str, Any] = {"batch_id": batch["id"], "client_reference": batch.get("client_reference")}
        if summary:
            entry = {"code": code, "status": status, "count": 1, "recipients": batch["to"]}
            report |= {"type": "delivery_report_sms", "statuses": [entry], "total_message_count": 1}
        else:
            recipient = batch["to"][0].lstrip("+")
            report |= {"type": "recipient_delivery_report_sms", "code": code, "status": status, "recipient": recipient}
            report |= {"at": "2026-12-01T10:00:05.000Z"}
        body, nonce, at = Reply(document=report).content(), _random(), str(int(time.time()))
        signed = b".".join((body, nonce.encode(), at.encode()))
        headers = {
            "Content-Type": "application/json",
            "x-sinch-webhook-signature": _base64(hmac.new(self.webhook_secret.encode(), signed, hashlib.sha256)),
            "x-sinch-webhook-signature-nonce": nonce,
            "x-sinch-webhook-signature-timestamp": at,
        }
        return Callback(url or batch["callback_url"], headers, body)

    def _sell(self, request: Received) -> Reply:
        if request.headers.get("authorization") != _basic(self.key_id, self.key_secret):
            return Reply(401, {"error": "invalid_client", "error_description": "Client authentication failed"})
        if request.form != {"grant_type": "client_credentials"}:
            return Reply(400, {"error": "unsupported_grant_type"})
        self.tokens.append(_random())
        lasting = {"expires_in": self.expires_in, "scope": "", "token_type": "bearer"}
        return Reply(200, {"access_token": self.tokens[-1], **lasting})

    def _create(self, document: dict[str, Any]) -> Reply:
        if not document.get("body"):
            return Reply(400, {"code": "syntax_constraint_violation", "text": "The body must not be empty"})
        if not all(_E164.match(number) for number in document.get("to", [""])):
            words = f"Invalid recipient: {document.get('to')}"
            return Reply(400, {"code": "syntax_invalid_parameter_format", "text": words})
        now = "2026-12-01T10:00:00.000Z"
        batch = {"id": _ulid(), **document, "canceled": False, "created_at": now, "modified_at": now}
        self.batches.append(batch)
        return Reply(201, batch)


class FakeTextGrid(FakeVendor):
    """TextGrid's message resource; its account SID needs percent-encoding."""

    OPTED_OUT = "+15005550004"

    def __init__(self, auth_scheme: str = "Bearer") -> None:
        super().__init__()
        self.account_sid, self.auth_token = "Tg/9+aB3kQ7xY2mN5pR1wA==", secrets.token_hex(16)
        self.auth_scheme = auth_scheme
        self.webhook_secret = _random()
        self.messages: list[dict[str, Any]] = []

    @property
    def credentials(self) -> dict[str, str]:
        """The account."""
        return {
            "account_sid": self.account_sid,
            "auth_token": self.auth_token,
            "auth_scheme": self.auth_scheme,
        }

    def answer(self, request: Received) -> Reply:
        """Create a message, or say why not."""
        if request.target != f"/2010-04-01/Accounts/{quote(self.account_sid, safe='')}/Messages.json":
            return Reply(404, {"message": "Not found"})
        pair = _basic(self.account_sid, self.auth_token).removeprefix("Basic ")
        if request.headers.get("authorization") != f"{self.auth_scheme} {pair}":
            return Reply(401, {"message": "Unauthorized"})
        document = request.document
        if document["to"] == self.OPTED_OUT:
            return Reply(400, {"code": 21610, "message": f"The recipient {document['to']} has opted out"})
        message = {
            "sid": "SMONs1iT7~" + secrets.token_urlsafe(9) + "==",
            "status": "queued",
            "from": document["from"],
            "to": document["to"],
            "body": document["body"],
            "date_sent": None,
            "error_code": None,
            "error_message": None,
        }
        self.messages.append({**message, "status_callback": document.get("statusCallback")})
        return Reply(200, message)

    def status_callback(self, message: dict[str, Any], status: str, *, url: str | None = None) -> Callback:
        """Return the signed report TextGrid would make about `message`."""
        fields = {
            "MessageSid": message["sid"],
            "SmsSid": message["sid"],
            "MessageStatus": status,
            "SmsStatus": status,
            "SmsStatusDetail": status,
        }
        address, body = url or message["status_callback"], urlencode(fields).encode()
        signature = _base64(hmac.new(self.webhook_secret.encode(), address.encode() + body, hashlib.sha1))
        return Callback(address, {**_FORM, "X-TextGrid-Signature": signature}, body)


class FakeElevenLabs(FakeVendor):
    """An ElevenLabs workspace: its webhooks, its conversational settings, and the deliveries it would sign.

    Unlike the real one it takes webhook addresses that are not HTTPS. Set `shows_secret` to False for a workspace that
    shows no secret when it creates a webhook, `takes_settings` to False for one that answers 200 and changes nothing.
    """

    _WORKSPACE_EVENTS: ClassVar = {"voice_library_removal_notice", "speech_to_text", "agent_qa", "flows"}
    _CALL_EVENTS: ClassVar = {
        "transcript",
        "audio",
        "call_initiation_failure",
        "answering_machine_detection",
        "unredacted_transcript",
        "unredacted_audio",
    }

    def __init__(self) -> None:
        super().__init__()
        self.api_key = "sk_" + secrets.token_hex(24)
        self.webhooks: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, str] = {}
        self.settings: dict[str, Any] = {
            "conversation_initiation_client_data_webhook": None,
            "webhooks": {"post_call_webhook_id": None, "events": ["transcript"], "send_audio": None},
            "can_use_mcp_servers": False,
            "rag_retention_period_days": 10,
        }
        self.shows_secret = True
        self.takes_settings = True
        self._numbers = itertools.count(1)

    def add_webhook(self, url: str, *, name: str = "webhook", auth_type: str = "hmac", **fields: Any) -> str:
        """Make a webhook as the workspace's owner would by hand, and return its id."""
        webhook_id = f"wh_{next(self._numbers):04d}"
        self.secrets[webhook_id] = "wsec_" + secrets.token_hex(32)
        self.webhooks[webhook_id] = {
            "name": name,
            "webhook_id": webhook_id,
            "webhook_url": url,
            "is_disabled": False,
            "is_auto_disabled": False,
            "created_at_unix": 1_796_000_000,
            "auth_type": auth_type,
            "retry_enabled": False,
            **fields,
        }
        return webhook_id

    def delivery(self, webhook_id: str, document: dict[str, Any], *, at: int | None = None) -> Callback:
        """Return `document` as the workspace would deliver it to that webhook, signed at `at` (Unix seconds)."""
        body, moment = Reply(document=document).content(), int(time.time()) if at is None else at
        signed = f"{moment}.".encode() + body
        digest = hmac.new(self.secrets[webhook_id].encode(), signed, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "ElevenLabs-Signature": f"t={moment},v0={digest}"}
        headers |= self.webhooks[webhook_id].get("request_headers") or {}
        return Callback(self.webhooks[webhook_id]["webhook_url"], headers, body)

    def answer(self, request: Received) -> Reply:
        """Serve the workspace's webhooks and settings to whoever holds its key."""
        if request.headers.get("xi-api-key") != self.api_key:
            return Reply(401, {"detail": {"status": "invalid_api_key", "message": "Invalid API key"}})
        webhook_id = request.path.removeprefix("/v1/workspace/webhooks").lstrip("/")
        place = request.path.removesuffix(f"/{webhook_id}") if webhook_id else request.path
        match request.method, place:
            case "GET", "/v1/workspace/webhooks":
                return Reply(200, {"webhooks": [self._shown(each, request) for each in self.webhooks.values()]})
            case "POST", "/v1/workspace/webhooks":
                return self._create(request.document)
            case ("PATCH" | "DELETE") as method, "/v1/workspace/webhooks" if webhook_id not in self.webhooks:
                return _detail(404, "webhook_not_found", f"No webhook to {method.lower()}")
            case "PATCH", "/v1/workspace/webhooks":
                return self._change(webhook_id, request.document)
            case "DELETE", "/v1/workspace/webhooks":
                return self._delete(webhook_id)
        return self._convai(request)

    def _convai(self, request: Received) -> Reply:
        if request.path != "/v1/convai/settings" or request.method not in {"GET", "PATCH"}:
            return Reply(404, {"detail": "Not Found"})
        changes = request.document if request.method == "PATCH" else {}
        wrong = set(changes.get("webhooks", {}).get("events", ())) - self._CALL_EVENTS
        if wrong:
            return _invalid(["body", "webhooks", "events", 0], f"Input should be one of {sorted(self._CALL_EVENTS)}")
        if self.takes_settings:
            self.settings |= changes
        return Reply(200, self.settings)

    def _shown(self, webhook: dict[str, Any], request: Received) -> dict[str, Any]:
        shown = {name: value for name, value in webhook.items() if name not in ("retry_enabled", "request_headers")}
        if request.query.get("include_usages") == "true":
            shown["usage"] = [{"usage_type": "ConvAI Settings"}] if self._is_used(webhook["webhook_id"]) else []
        return shown

    def _is_used(self, webhook_id: str) -> bool:
        return bool(self.settings["webhooks"]["post_call_webhook_id"] == webhook_id)

    def _create(self, document: dict[str, Any]) -> Reply:
        settings = document.get("settings", {})
        for name in ("name", "webhook_url"):
            if not settings.get(name):
                return _invalid(["body", "settings", name], "Field required")
        own = {"request_headers": settings["request_headers"]} if settings.get("request_headers") else {}
        webhook_id = self.add_webhook(settings["webhook_url"], name=settings["name"], **own)
        secret = self.secrets[webhook_id] if self.shows_secret else None
        return Reply(200, {"webhook_id": webhook_id, "webhook_secret": secret})

    def _change(self, webhook_id: str, document: dict[str, Any]) -> Reply:
        for name in ("is_disabled", "name"):
            if name not in document:
                return _invalid(["body", name], "Field required")
        if not set(document.get("events") or ()) <= self._WORKSPACE_EVENTS:
            return _invalid(["body", "events", 0], f"Input should be one of {sorted(self._WORKSPACE_EVENTS)}")
        self.webhooks[webhook_id] |= {name: value for name, value in document.items() if value is not None}
        return Reply(200, {"status": "ok"})

    def _delete(self, webhook_id: str) -> Reply:
        if self._is_used(webhook_id):
            return _detail(400, "webhook_in_use", "The webhook is used by ConvAI Settings")
        del self.webhooks[webhook_id]
        return Reply(200, {"status": "ok"})


def _detail(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"detail": {"status": code, "message": message}})


def _invalid(place: list[str | int], message: str) -> Reply:
    return Reply(422, {"detail": [{"loc": place, "msg": message, "type": "value_error"}]})


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _base64(digest: hmac.HMAC) -> str:
    return base64.b64encode(digest.digest()).decode()


def _random() -> str:
    return secrets.token_urlsafe(24)


def _ulid() -> str:
    return "01" + secrets.token_hex(12).upper()
