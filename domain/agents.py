"""Voice agents: the tools they are given, where they may transfer a call to, and how each part of this stands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from domain.errors import InvalidRequest
from domain.phones import to_e164

# What ElevenLabs knows about a call by itself. Other variables come from the pre-call webhook.
SYSTEM_VARIABLES = frozenset(
    {
        "system__agent_id",
        "system__call_duration_secs",
        "system__call_sid",
        "system__called_number",
        "system__caller_id",
        "system__conversation_id",
        "system__current_agent_id",
        "system__time",
        "system__time_utc",
        "system__timezone",
    }
)

MAX_TRANSFERS = 20
# Written instead of an address: whoever is available when the call begins. The answer to the webhook before the call
# says who that is, in these two variables; both are empty if nobody is.
AVAILABLE = "available"
AVAILABLE_NUMBER = "available_number"
AVAILABLE_SIP_ADDRESS = "available_sip_address"
# Sent along with every delivery and tool call. It proves nothing; it tells whose a delivery or a stored tool is.
ORGANIZATION_HEADER = "X-Relay-Organization"
CONVERSATION_HEADER = "X-Relay-Conversation"
DEFAULT_CONDITION = "When the caller asks to speak to a person."
DEFAULT_CONDITION_IF_AVAILABLE = (
    "When the caller asks to speak to a person, and the tool check_availability says that somebody is available."
)

# A host of RFC 3261: names and IPv4, with a port; what an address may carry beyond that is refused rather than guessed.
_SIP_URI = re.compile(
    r"sips?:(?P<user>[A-Za-z0-9+_.!~*'()&=$,;?/-]{1,64})@(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)"
    r"(?::[1-9][0-9]{0,4})?(?:;transport=(?:udp|tcp|tls))?\Z"
)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class ToolField:
    """One field of a tool's body: `variable` names the call's variable that fills it, None leaves it to the model."""

    name: str
    schema: Mapping[str, Any] = field(repr=False)
    variable: str | None = None
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as the contract describes it; `behaviour` holds the vendor's settings that the overlay chooses."""

    name: str
    description: str = field(repr=False)
    path: str
    fields: tuple[ToolField, ...] = field(repr=False)
    behaviour: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class AgentContract:
    """What the served document offers a voice agent; `pre_call` is the path of the webhook before a call, if any."""

    tools: tuple[ToolDefinition, ...] = ()
    pre_call: str | None = None


class PartState(StrEnum):
    """How a part of a connection stands."""

    OK = "ok"
    DRIFTED = "drifted"
    MISSING = "missing"
    REFUSED = "refused"


class PartKind(StrEnum):
    """What a connection consists of."""

    TOOL = "tool"
    SECRET = "secret"
    PRE_CALL = "pre-call"
    POST_CALL = "post-call"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a connection: how it stands, why, and what connecting did or would do about it."""

    kind: PartKind
    name: str
    state: PartState
    detail: str = ""
    change: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """How an agent is connected, part by part; `problem` is one sentence if something was refused."""

    agent_id: str
    agent_name: str
    parts: tuple[Part, ...]
    problem: str | None = None
    left_behind: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every part is as it should be."""
        return self.problem is None and all(part.state is PartState.OK for part in self.parts)


@dataclass(frozen=True, slots=True)
class TransferTarget:
    """Where a call may be transferred to, and when: an E.164 number, a SIP address or `AVAILABLE`, and a condition."""

    address: str = field(repr=False)
    condition: str

    @property
    def is_sip(self) -> bool:
        """Whether the address is a SIP address."""
        return _is_sip(self.address)

    @property
    def is_whoever_is_available(self) -> bool:
        """Whether the webhook before the call says where to."""
        return self.address == AVAILABLE


def transfer_target(address: str, condition: str | None, region: str | None = None) -> TransferTarget:
    """Return the target for a number, a `sip:` address or "available", as a person writes it.

    Raises:
        InvalidRequest: if it is neither, or the condition is blank or has more than 500 characters.
    """
    given = address.strip()
    is_whoever = given.lower() == AVAILABLE
    usual = DEFAULT_CONDITION_IF_AVAILABLE if is_whoever else DEFAULT_CONDITION
    when = usual if condition is None else condition.strip()
    if not 0 < len(when) <= 500:
        raise InvalidRequest("Say when to transfer in 1 to 500 characters")
    if is_whoever:
        return TransferTarget(AVAILABLE, when)
    if _is_sip(given):
        if not _SIP_URI.match(given):
            raise InvalidRequest(f"{given[:100]} is not a SIP address such as sip:reception@pbx.example")
        return TransferTarget(given, when)
    return TransferTarget(to_e164(given, region), when)


def refer_address(address: str, trunk_domain: str) -> str:
    """Return the SIP address that a trunk accepts in `Refer-To`: a number becomes a user of the trunk's own domain.

    Raises:
        InvalidRequest: if the trunk's domain is not a host name.
    """
    if _is_sip(address):
        return address
    if not _HOST.match(trunk_domain):
        raise InvalidRequest(f"sinchEstTrunkDomain {trunk_domain[:100]!r} is not a host name such as a.pstn.sinch.com")
    return f"sip:{address}@{trunk_domain}"


def _is_sip(address: str) -> bool:
    return address.lower().startswith(("sip:", "sips:"))
