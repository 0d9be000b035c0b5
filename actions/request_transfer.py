"""Writing down that a caller wants a person, so that one can join."""

from dataclasses import dataclass, field
from typing import Any

from actions.announcements import transfer_requested
from actions.relay import Relay
from actions.tool_calls import call_of, contact_of, context_of, fingerprint, normalise
from domain.replay import ANONYMOUS_REPLAY_SECONDS
from persistence import agents, outbox, tool_invocations, transfer_requests

TOOL = "transfer"

# The documented answer: nobody transfers the call, but the request reaches the people who can join it.
HOLD = "Transfer is not yet implemented — please ask the caller to hold while a human agent joins."
# Once the agent has a transfer of its own, which it calls next.
CONNECTING = "Tell the caller that you are connecting them now."


@dataclass(frozen=True, slots=True)
class TransferWish:
    """A wish for a person as the agent sends it; everything in it is optional."""

    reason: str | None = field(default=None, repr=False)
    conversation_id: str | None = None
    called_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TransferAnswer:
    """The stored request, and what the agent is told."""

    request_id: str
    words: str


async def request_transfer(relay: Relay, organization_id: str, wish: TransferWish) -> TransferAnswer:
    """Store the request once and tell the listeners; return it with the text for the agent.

    The text asks the caller to hold, until an agent of the organization has a real transfer: then it is the
    organization's own.
    """
    reason = (wish.reason or "").strip() or None
    same_call = fingerprint(TOOL, wish.conversation_id, reason, wish.called_id)
    window = relay.rules.tool_replay
    if wish.conversation_id is None:
        window = min(window, ANONYMOUS_REPLAY_SECONDS)

    def unit() -> TransferAnswer:
        request_id, _ = tool_invocations.once(
            organization_id,
            TOOL,
            same_call,
            window,
            lambda: _write(organization_id, wish, reason),
        )
        has_transfer, own_words = agents.transfer_text(organization_id)
        return TransferAnswer(request_id, (own_words or CONNECTING) if has_transfer else HOLD)

    return await relay.database.write(unit, of=organization_id)


def _write(organization_id: str, wish: TransferWish, reason: str | None) -> str:
    known = _known_of(organization_id, wish.conversation_id)
    is_erased = "call" in known and known["contact"] is None
    request = transfer_requests.add(
        organization_id,
        {
            # The words of a person who was erased would belong to nobody, and stay.
            "reason": None if is_erased else reason,
            "elevenlabs_conversation_id": wish.conversation_id,
            "called_number": _called(organization_id, wish),
            **known,
        },
    )
    outbox.append(organization_id, [transfer_requested(request)])
    return str(request.id)


def _called(organization_id: str, wish: TransferWish) -> str | None:
    if wish.called_id:
        return normalise(organization_id, wish.called_id)
    context = context_of(organization_id, wish.conversation_id)
    return context.called_number if context else None


def _known_of(organization_id: str, conversation_id: str | None) -> dict[str, Any]:
    # The tool carries no phone number. What else happened in the same conversation tells whose call it is.
    if conversation_id is None:
        return {}
    call = call_of(organization_id, conversation_id)
    if call is not None:
        return {"call": call.id, "contact": call.contact_id}
    return {"contact": contact_of(organization_id, conversation_id)}
