"""Where vendors report how far a message got, and what makes us believe them.

The address is handed out with each message and holds the message's own id and a token for it. What counts is the
vendor's signature whenever the organization's credentials can check one. Where they cannot, because the vendor signs
only on request or the organization has changed its provider meanwhile, the token counts.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from actions.relay import Relay
from domain.errors import ConfigurationError, Unauthenticated
from domain.messages import StatusReport
from persistence import sms_configs
from persistence.models import Message, SmsConfig
from providers import sinch, textgrid, twilio

CALLBACK_PATH = "/api/webhook/sms"

_PURPOSE = "sms status callback"


@dataclass(frozen=True, slots=True)
class Callback:
    """A report as it came in: `target` is path and query, `headers` are looked up whatever their case."""

    provider: str
    message_id: str
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    token: str | None = field(default=None, repr=False)


def callback_url(relay: Relay, message: Message) -> str | None:
    """Return where `message` is to be reported on; None when the outside cannot reach us, or nobody would report."""
    if relay.rules.public_url is None or message.provider not in _VENDORS:
        return None
    token = relay.vault.sign(_PURPOSE, message.id)
    return f"{relay.rules.public_url}{CALLBACK_PATH}/{message.provider}/{message.id}?token={token}"


def has_token(relay: Relay, callback: Callback) -> bool:
    """Tell whether the callback carries the token we handed out with its message."""
    return callback.token is not None and relay.vault.is_signed(_PURPOSE, callback.message_id, callback.token)


def verify(relay: Relay, callback: Callback, config: SmsConfig | None) -> None:
    """Insist that the vendor made this callback; `config` is how the organization sends texts.

    Raises:
        Unauthenticated: when nothing proves it.
    """
    secret = _secret(relay, callback.provider, config)
    if secret is not None:
        _VENDORS[callback.provider].verify(callback, f"{relay.rules.public_url or ''}{callback.target}", secret)
    elif not has_token(relay, callback):
        raise Unauthenticated("The callback is not signed and its token is not ours")


def read(callback: Callback) -> StatusReport | None:
    """Return what is reported, None when it is nothing we record.

    Raises:
        InvalidRequest: when it cannot be read.
    """
    return _VENDORS[callback.provider].read(callback.body)


def config_of(message: Message) -> SmsConfig | None:
    """Return how the message's organization sends texts."""
    return sms_configs.get(message.organization_id)


def _secret(relay: Relay, provider: str, config: SmsConfig | None) -> SecretStr | None:
    if config is None or config.provider != provider:
        return None
    try:
        secret = relay.vault.open_document(config.credentials_sealed).get(_VENDORS[provider].secret)
    except ConfigurationError as error:
        raise Unauthenticated("The secret to check the signature with cannot be read") from error
    return SecretStr(secret) if secret else None


# What the vendors have each their own way with


def _verify_twilio(callback: Callback, url: str, secret: SecretStr) -> None:
    signature, media_type = callback.headers.get("X-Twilio-Signature", ""), callback.headers.get("Content-Type", "")
    twilio.verify_signature(signature, url, callback.body, media_type, secret)


def _verify_sinch(callback: Callback, url: str, secret: SecretStr) -> None:
    del url
    name = "x-sinch-webhook-signature"
    given = [callback.headers.get(header, "") for header in (name, f"{name}-nonce", f"{name}-timestamp")]
    # A report that is sent again later changes nothing, so its age need not be doubted.
    sinch.verify_signature(given[0], given[1], given[2], callback.body, secret, now=time.time())


def _verify_textgrid(callback: Callback, url: str, secret: SecretStr) -> None:
    textgrid.verify_signature(callback.headers.get("X-TextGrid-Signature", ""), url, callback.body, secret)


@dataclass(frozen=True, slots=True)
class _Vendor:
    """`secret` names the credential that reports are signed with."""

    secret: str
    verify: Callable[[Callback, str, SecretStr], None]
    read: Callable[[bytes], StatusReport | None]


_VENDORS: Mapping[str, _Vendor] = {
    "twilio": _Vendor("auth_token", _verify_twilio, twilio.parse_status),
    "sinch": _Vendor("webhook_secret", _verify_sinch, sinch.parse_status),
    "textgrid": _Vendor("webhook_secret", _verify_textgrid, textgrid.parse_status),
}
