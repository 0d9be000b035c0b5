"""Greeting a caller by name: what is known of a call when it connects, kept for a day.

The tools that are called during the call find the caller by it if they carry nothing but the conversation. The report
after the call finds the numbers by it if it has none.
"""

from dataclasses import dataclass, field
from functools import partial

import structlog

from actions.relay import Relay
from actions.tool_calls import normalise
from domain.agents import refer_address
from domain.calls import CALL_CONTEXT_SECONDS
from domain.errors import InvalidRequest
from domain.times import later, now
from persistence import availability, call_contexts, contacts, organizations, voice_ai_configs

_ROWS = 500

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ConnectedCall:
    """A call that has just connected, in the words of the voice agent; everything may be missing."""

    conversation_id: str | None = None
    call_sid: str | None = None
    agent_id: str | None = None
    caller_id: str | None = field(default=None, repr=False)
    called_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who is calling: a name, "" if it is not known, the number in E.164, and the name of the organization.

    `is_known` says whether a contact of the organization has the number. `available_number` and `available_sip_address`
    reach a person who is available just now, "" if nobody is; the second needs a trunk.
    """

    caller_name: str = field(repr=False)
    caller_number: str = field(repr=False)
    org_name: str
    is_known: bool
    available_number: str = field(default="", repr=False)
    available_sip_address: str = field(default="", repr=False)


async def personalize(relay: Relay, organization_id: str, connected: ConnectedCall) -> Greeting:
    """Keep the context of the call and return who is calling."""

    def unit() -> Greeting:
        caller = _number(organization_id, connected.caller_id)
        called = _number(organization_id, connected.called_id)
        contact = contacts.by_phone(organization_id, caller) if caller else None
        if connected.conversation_id or connected.call_sid:
            row = {
                "elevenlabs_conversation_id": connected.conversation_id,
                "call_sid": connected.call_sid,
                "agent_id": connected.agent_id,
                "caller_number": caller,
                "called_number": called,
                "contact": contact.id if contact else None,
            }
            call_contexts.put(organization_id, row)
        organization = organizations.get(organization_id)
        number = availability.number_of_one(organization_id, now()) or ""
        is_named = contact is not None and not contact.name_is_placeholder
        return Greeting(
            caller_name=contact.name if contact and is_named else "",
            caller_number=caller or "",
            org_name=organization.name if organization else "",
            is_known=contact is not None,
            available_number=number,
            available_sip_address=_on_trunk(organization_id, number) if number else "",
        )

    return await relay.database.write(unit, of=organization_id)


async def forget_call_contexts(relay: Relay) -> int:
    """Delete every context that is a day old; return how many there were."""
    before, total = later(-CALL_CONTEXT_SECONDS), 0
    while found := await relay.database.read(lambda: call_contexts.organizations_with_old(before, _ROWS)):
        for organization_id in found:
            unit = partial(call_contexts.forget_old, organization_id, before, _ROWS)
            while count := await relay.database.write(unit, of=organization_id):
                total += count
    return total


def _on_trunk(organization_id: str, number: str) -> str:
    config = voice_ai_configs.get(organization_id)
    trunk_domain = config.sinch_est_trunk_domain if config else None
    try:
        return refer_address(number, trunk_domain) if trunk_domain else ""
    except InvalidRequest:  # a domain that was saved wrongly must not keep the call from being greeted
        return ""


def _number(organization_id: str, given: str | None) -> str | None:
    return normalise(organization_id, given) if given and given.strip() else None
