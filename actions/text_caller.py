"""Texting the caller in the middle of a call: stored first, sent once, and never sent again.

The message is committed as *queued* before the provider hears of it, and the provider is called outside of any
transaction. Whoever finds a queued message afterwards (a repeated tool call, a restarted server) never sends it: either
its sender is still at work, or nobody can tell whether it left.
"""

import asyncio
from dataclasses import dataclass, field

import structlog

from actions.announcements import message_queued, message_status
from actions.relay import Relay
from actions.status_callbacks import callback_url
from actions.tool_calls import Contacted, call_of, context_of, find_contact, fingerprint, normalise
from domain.errors import ProviderError, ProviderRejected, ProviderUnavailable, Speakable, facts_of
from domain.messages import OutboundText, SentText, TextProvider
from domain.statuses import MessageStatus
from domain.times import later
from persistence import conversations, messages, outbox, phone_numbers, sms_configs, tool_invocations
from persistence.models import Message

TOOL = "send-sms"
MAX_LENGTH = 1600  # what Twilio takes, the least of the three providers

_UNDECIDED = frozenset({MessageStatus.QUEUED})
_FAILED = frozenset({MessageStatus.FAILED, MessageStatus.UNDELIVERED})
_POLL_SECONDS = 0.05

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TextToSend:
    """A text as the agent sends it; `called_id` is the number of ours the caller rang."""

    phone_number: str = field(repr=False)
    message: str = field(repr=False)
    called_id: str | None = field(default=None, repr=False)
    conversation_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Queued:
    message: Message
    provider: TextProvider | None


async def text_caller(relay: Relay, organization_id: str, request: TextToSend) -> None:
    """Send the text once, within `rules.sms_timeout` seconds, and tell the listeners.

    Raises:
        Speakable: when it was not sent, or nobody can tell whether it was.
    """
    text = _checked(request.message)
    deadline = asyncio.get_running_loop().time() + relay.rules.sms_timeout
    queued = await relay.database.write(lambda: _queue(relay, organization_id, request, text), of=organization_id)
    message = queued.message
    if queued.provider is not None:
        # A caller who hangs up must not leave the message without its outcome.
        message = await asyncio.shield(_send(relay, queued.provider, message, deadline))
    elif MessageStatus(message.status) in _UNDECIDED:
        message = await _outcome_of_the_first(relay, message, deadline)
    _tell(message)


async def recover_stranded(relay: Relay, older_than: float = 60) -> int:
    """Mark messages whose sender died as unknown; return how many there were."""

    def unit() -> int:
        stranded = messages.stranded(later(-older_than))
        for message in stranded:
            advance(message, MessageStatus.UNKNOWN, error="The server stopped while the message was being sent")
        return len(stranded)

    return await relay.database.write(unit)


def _checked(message: str) -> str:
    text = message.strip()
    if not text:
        raise Speakable("The message is empty, so nothing was sent.")
    if len(text) > MAX_LENGTH:
        raise Speakable("The message is too long for a text message, so it was not sent.")
    return text


# Storing.


def _queue(relay: Relay, organization_id: str, request: TextToSend, text: str) -> _Queued:
    contact = find_contact(
        organization_id, request.phone_number, request.conversation_id, otherwise="the message was not sent"
    )
    same_call = fingerprint(TOOL, request.conversation_id, contact.number, text)
    provider: list[TextProvider] = []

    def act() -> str:
        name, client = _provider_of(relay, organization_id)
        provider.append(client)
        return str(_write(organization_id, request, contact, text, name).id)

    message_id, acted = tool_invocations.once(organization_id, TOOL, same_call, relay.rules.tool_replay, act)
    message = messages.get(organization_id, message_id)
    assert message is not None, "a tool invocation outlived its message"  # noqa: S101
    return _Queued(message, provider[0] if acted else None)


def _provider_of(relay: Relay, organization_id: str) -> tuple[str, TextProvider]:
    config = sms_configs.get(organization_id)
    if config is None:
        raise Speakable("Text messages are not set up yet, so the message was not sent.")
    credentials = relay.vault.open_document(config.credentials_sealed)
    return config.provider, relay.text_provider(config.provider, credentials)


def _write(organization_id: str, request: TextToSend, contact: Contacted, text: str, provider: str) -> Message:
    context = None if request.called_id else context_of(organization_id, request.conversation_id)
    our_number = _our_number(organization_id, context.called_number if context else request.called_id)
    call = call_of(organization_id, request.conversation_id)
    conversation = conversations.find_or_create(organization_id, contact.id, "sms", our_number)
    message = messages.queue(
        organization_id,
        {
            "conversation": conversation.id,
            "contact": contact.id,
            "author": "ai",
            "text": text,
            "from_number": our_number,
            "to_number": contact.number,
            "skip_automation": True,
            "provider": provider,
            "source_tool": TOOL,
            "elevenlabs_conversation_id": request.conversation_id,
            "call": call.id if call else None,
        },
    )
    conversations.touch(conversation.id, message.created_at)
    outbox.append(organization_id, [message_queued(message)])
    return message


def _our_number(organization_id: str, called_id: str | None) -> str:
    called = normalise(organization_id, called_id) if called_id else None
    if called and phone_numbers.owned(organization_id, called):
        return called
    default = phone_numbers.default(organization_id)
    if default is None:
        raise Speakable("There is no number to send text messages from, so the message was not sent.")
    return default


# Sending.


async def _send(relay: Relay, provider: TextProvider, message: Message, deadline: float) -> Message:
    status, sent, error = await _attempt(provider, message, callback_url(relay, message), deadline)

    def unit() -> Message:
        advance(message, status, provider_message_id=sent.provider_message_id if sent else None, error=error)
        found = messages.get(message.organization_id, message.id)
        if found is None:
            # The contact was erased while the text was sent, which the agent hears as it happened.
            message.status = status.value
        return found or message

    return await relay.database.write(unit, of=message.organization_id)


async def _attempt(
    provider: TextProvider, message: Message, status_callback: str | None, deadline: float
) -> tuple[MessageStatus, SentText | None, str | None]:
    outbound = OutboundText(
        message.from_number, message.to_number, message.text, reference=message.id, status_callback=status_callback
    )
    try:
        async with asyncio.timeout_at(deadline):
            sent = await provider.send(outbound)
    except (ProviderRejected, ProviderUnavailable) as error:
        return MessageStatus.FAILED, None, _reported(message, error)
    except (ProviderError, TimeoutError) as error:
        return MessageStatus.UNKNOWN, None, _reported(message, error)
    except Exception as error:
        # A fault of our own between us and the vendor: nobody can say whether the message left.
        log.error("sms.fault", message_id=message.id, provider=message.provider, **facts_of(error))
        return MessageStatus.UNKNOWN, None, type(error).__name__
    return sent.status, sent, None


def _reported(message: Message, error: Exception) -> str:
    reason = str(error) or "No answer in time"
    log.warning("sms.not_sent", message_id=message.id, provider=message.provider, reason=reason)
    return reason


def advance(message: Message, status: MessageStatus, **facts: str | None) -> bool:
    """Move the message forward, in a unit, and tell the listeners; False, and nothing done, when it is further on."""
    outbox.hold(message.organization_id)
    advanced = messages.advance(message.organization_id, message.id, status, **facts)
    if advanced is not None:
        outbox.append(message.organization_id, [message_status(advanced)])
    return advanced is not None


# Answering.


async def _outcome_of_the_first(relay: Relay, message: Message, deadline: float) -> Message:
    # The first call may be at work in another process, which tells us nothing but through the database.
    loop, organization_id, message_id = asyncio.get_running_loop(), message.organization_id, message.id
    latest: Message | None = message
    while latest and MessageStatus(latest.status) in _UNDECIDED and loop.time() < deadline:
        await asyncio.sleep(_POLL_SECONDS)
        latest = await relay.database.read(lambda: messages.get(organization_id, message_id))
    return latest or message


def _tell(message: Message) -> None:
    status = MessageStatus(message.status)
    if status in _FAILED:
        raise Speakable("The text message could not be sent.")
    if status in (MessageStatus.UNKNOWN, MessageStatus.QUEUED):
        raise Speakable("The text message may not have gone through, and it was not sent again.")
