"""How a voice agent is connected: what its workspace has, held against what the contract and the organization want.

Nothing is changed here. Connecting, checking and the dry run all begin with this look; connecting ends with it too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from actions.agent_secret import secret_name
from actions.configure_voice_ai import WEBHOOK_PATH
from actions.relay import Relay
from domain.agents import (
    AgentContract,
    Connection,
    Part,
    PartKind,
    PartState,
    ToolDefinition,
    TransferTarget,
)
from domain.documents import load
from domain.errors import InvalidRequest, NotFound
from persistence import agents, voice_ai_configs
from persistence.models import AgentWorkspace, ConnectedAgent, VoiceAiConfig
from providers.elevenlabs_agents import (
    TRANSFER_TOOL,
    Agent,
    Agents,
    Config,
    StoredTool,
    pre_call_config,
    says,
    tool_config,
    transfer_config,
)

TRANSFER_WORDS = (
    "Connect the caller to a person of the company. First call the tool `transfer`, so that the people who join know "
    "why; then call this tool with the number whose condition fits. If it fails, say so and offer to take a note."
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the relay remembers about an organization's agents and the one that is looked at."""

    config: VoiceAiConfig
    workspace: AgentWorkspace
    tool_ids: Mapping[str, str]
    agent: ConnectedAgent | None

    @property
    def transfers(self) -> list[Config]:
        """The transfers that were set for the agent."""
        return list(load(self.agent.transfers)) if self.agent else []


@dataclass(frozen=True, slots=True)
class FoundTool:
    """One tool of the contract: where it calls, and what the workspace has of it; several are leftovers.

    `rivals` are tools of the same name that are not ours; they are looked for only while ours is not known by its id.
    """

    definition: ToolDefinition
    url: str
    stored: tuple[StoredTool, ...] = ()
    rivals: tuple[str, ...] = ()

    @property
    def tool_id(self) -> str | None:
        """The id of the tool that is used."""
        return self.stored[0].id if self.stored else None


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found, and what is wanted of the agent."""

    organization_id: str
    agent: Agent
    kept: Kept
    secret_id: str | None
    tools: tuple[FoundTool, ...]
    pre_call: Config | None = field(repr=False)
    workspace_pre_call: Config | None = field(repr=False)
    post_call: str | None
    transfers: tuple[Config, ...] = field(repr=False)

    @property
    def their_transfers(self) -> list[Config]:
        """The agent's transfers that we did not set."""
        ours = [*self.kept.transfers, *self.transfers]
        return [one for one in self.agent.transfers if not any(says(one, mine) for mine in ours)]

    @property
    def has_transfers(self) -> bool:
        """Whether the agent has exactly those transfers of ours that are wanted."""
        stale = [one for one in self.kept.transfers if one not in self.transfers]
        has_stale = any(says(one, old) for one in self.agent.transfers for old in stale)
        return not has_stale and all(any(says(one, want) for one in self.agent.transfers) for want in self.transfers)

    @property
    def is_secret_written(self) -> bool:
        """Whether ElevenLabs has the newest secret."""
        return self.secret_id is not None and self.kept.workspace.secret_sealed is None

    @property
    def foreign_pre_call(self) -> str | None:
        """The host of a webhook before the call that is not ours and that the agent uses, if any."""
        used = self.agent.pre_call or (self.workspace_pre_call if self.agent.asks_before_call else None)
        if used is None or self.pre_call is None or used.get("url") == self.pre_call["url"]:
            return None
        return urlsplit(str(used.get("url"))).hostname or "another address"

    def tool_config(self, found: FoundTool, secret_id: str | None = None) -> Config:
        """Return the definition that a tool should have."""
        secret = secret_id or self.secret_id or ""
        return tool_config(found.definition, found.url, secret, self.organization_id)

    def is_tool_current(self, found: FoundTool) -> bool:
        """Tell whether the workspace has the tool as it should be."""
        return bool(found.stored) and says(found.stored[0].config, self.tool_config(found))

    def rival_of(self, found: FoundTool) -> str | None:
        """Return the agent's own tool of the same name, if it has one: the model could not tell them apart."""
        return next((tool_id for tool_id in found.rivals if tool_id in self.agent.tool_ids), None)

    def connection(self) -> Connection:
        """Describe the survey part by part."""
        return Connection(self.agent.id, self.agent.name, tuple(self._parts()))

    def _parts(self) -> Iterator[Part]:
        yield self._secret()
        for found in self.tools:
            yield self._tool(found)
        yield self._pre_call()
        yield self._post_call()
        yield self._transfer()

    def _secret(self) -> Part:
        name = secret_name(self.organization_id)
        workspace = self.kept.workspace
        if self.is_secret_written:
            return Part(PartKind.SECRET, name, PartState.OK, str(self.secret_id))
        if self.secret_id is None:
            gone = "it is gone from ElevenLabs" if workspace.secret_id else "no tool secret is stored at ElevenLabs"
            return Part(PartKind.SECRET, name, PartState.MISSING, gone, "make")
        why = workspace.secret_error or "the newest tool secret is not written yet"
        return Part(PartKind.SECRET, name, PartState.DRIFTED, f"{why}; the one before it still works", "change")

    def _tool(self, found: FoundTool) -> Part:
        name, tool_id = found.definition.name, found.tool_id
        if (rival := self.rival_of(found)) is not None:
            return Part(PartKind.TOOL, name, PartState.REFUSED, f"because the agent has another tool {name}, {rival}")
        if tool_id is None:
            return Part(PartKind.TOOL, name, PartState.MISSING, "ElevenLabs has no such tool", "make and attach")
        is_attached = tool_id in self.agent.tool_ids
        if not self.is_tool_current(found):
            change = "change" if is_attached else "change and attach"
            return Part(PartKind.TOOL, name, PartState.DRIFTED, f"{tool_id} differs from the contract", change)
        if not is_attached:
            return Part(PartKind.TOOL, name, PartState.MISSING, f"the agent does not have {tool_id}", "attach")
        more = [one.id for one in found.stored[1:]]
        return Part(PartKind.TOOL, name, PartState.OK, tool_id + (f"; unused: {', '.join(more)}" if more else ""))

    def _pre_call(self) -> Part:
        if self.pre_call is None:
            return Part(PartKind.PRE_CALL, "", PartState.OK, "the contract has none")
        url = str(self.pre_call["url"])
        if self.foreign_pre_call is not None:
            why = f"because the agent asks {self.foreign_pre_call} before a call; remove that at ElevenLabs to use ours"
            return Part(PartKind.PRE_CALL, url, PartState.REFUSED, why)
        if self.agent.pre_call is None:
            return Part(PartKind.PRE_CALL, url, PartState.MISSING, "the agent asks nobody before a call", "set")
        if not says(self.agent.pre_call, self.pre_call) or not self.agent.asks_before_call:
            return Part(PartKind.PRE_CALL, url, PartState.DRIFTED, "it differs, or is switched off", "set")
        return Part(PartKind.PRE_CALL, url, PartState.OK, url)

    def _post_call(self) -> Part:
        config, own = self.kept.config, self.agent.own_post_call
        if config.ai_voice_provider != "elevenlabs":
            return Part(PartKind.POST_CALL, "", PartState.MISSING, "set aiVoiceProvider to elevenlabs")
        if own is not None and own != config.webhook_id:
            why = f"the agent reports to a webhook of its own, {own}; remove that override at ElevenLabs"
            return Part(PartKind.POST_CALL, own, PartState.DRIFTED, why)
        if config.webhook_status == "configured" and config.webhook_id and self.post_call == config.webhook_id:
            return Part(PartKind.POST_CALL, WEBHOOK_PATH, PartState.OK, str(config.webhook_id))
        if config.webhook_status == "failed":
            why = f"because {config.webhook_error}"
            return Part(PartKind.POST_CALL, WEBHOOK_PATH, PartState.REFUSED, why, "set up again")
        if config.webhook_status == "configured":
            why = "the workspace reports calls elsewhere"
            return Part(PartKind.POST_CALL, WEBHOOK_PATH, PartState.DRIFTED, why, "set up again")
        return Part(PartKind.POST_CALL, WEBHOOK_PATH, PartState.MISSING, "it is not set up", "set up")

    def _transfer(self) -> Part:
        if self.has_transfers:
            said = ", ".join(f"{one['transfer_type']} to {destination(one)}" for one in self.transfers)
            return Part(
                PartKind.TRANSFER, TRANSFER_TOOL, PartState.OK, said or "none is set; callers are asked to hold"
            )
        missing = [one for one in self.transfers if not any(says(have, one) for have in self.agent.transfers)]
        state = PartState.MISSING if len(missing) == len(self.transfers) > 0 else PartState.DRIFTED
        why = (
            f"not set: {', '.join(map(destination, missing))}" if missing else "the agent still has an earlier transfer"
        )
        return Part(PartKind.TRANSFER, TRANSFER_TOOL, state, why, "set")


def destination(transfer: Config) -> str:
    """Return where a transfer goes to."""
    chosen = transfer.get("transfer_destination") or {}
    return str(chosen.get("sip_uri") or chosen.get("phone_number") or "?")


def public_address(relay: Relay) -> str:
    """Return the address under which ElevenLabs reaches us.

    Raises:
        InvalidRequest: unless it is HTTPS.
    """
    address = relay.rules.public_url
    if address is None or not address.lower().startswith("https://"):
        raise InvalidRequest("ElevenLabs calls tools over HTTPS only; set PUBLIC_URL to the relay's https address")
    return address


async def remembered(relay: Relay, organization_id: str, agent_id: str) -> Kept:
    """Return what is remembered of the organization's agents."""

    def unit() -> Kept:
        return Kept(
            voice_ai_configs.get(organization_id) or VoiceAiConfig(),
            agents.workspace(organization_id) or AgentWorkspace(),
            agents.tools(organization_id),
            agents.agent(organization_id, agent_id),
        )

    return await relay.database.read(unit)


async def survey(
    relay: Relay,
    organization_id: str,
    vendor: Agents,
    agent_id: str,
    targets: tuple[TransferTarget, ...] | None = None,
) -> Survey:
    """Look at the agent and its workspace; without `targets` the transfers stay those that were set before.

    Raises:
        NotFound: if the workspace has no such agent.
        InvalidRequest: if the agent is on a branch of its own, or its numbers cannot reach a target.
        ProviderError: if ElevenLabs does not answer or refuses.
    """
    address, contract = public_address(relay), relay.agent_contract()
    agent = await existing_agent(vendor, agent_id)
    kept = await remembered(relay, organization_id, agent_id)
    if agent.branch_id and agent.main_branch_id and agent.branch_id != agent.main_branch_id:
        raise InvalidRequest(
            f"The agent is on the branch {agent.branch_id}, not on its main branch {agent.main_branch_id}; "
            "merge the branch at ElevenLabs first"
        )
    name, secret_id = secret_name(organization_id), kept.workspace.secret_id
    if secret_id is not None and not await vendor.has_secret(secret_id, name):
        secret_id = None
    settings = await vendor.settings()
    before = None if contract.pre_call is None else pre_call_config(address + contract.pre_call, secret_id or "")
    transfers = kept.transfers if targets is None else _transfers(agent, kept.config, targets)
    return Survey(
        organization_id,
        agent,
        kept,
        secret_id,
        tuple([found async for found in _found_tools(vendor, contract, kept, organization_id, address)]),
        before,
        settings.pre_call,
        settings.post_call,
        tuple(transfers),
    )


def with_secret(found: Survey, secret_id: str) -> Survey:
    """Return the survey as it is once the secret of that id is written."""
    before = None if found.pre_call is None else pre_call_config(str(found.pre_call["url"]), secret_id)
    return replace(found, secret_id=secret_id, pre_call=before)


async def existing_agent(vendor: Agents, agent_id: str) -> Agent:
    """Return the agent.

    Raises:
        NotFound: if the workspace has none of that id.
    """
    agent = await vendor.agent(agent_id)
    if agent is None:
        raise NotFound(f"The ElevenLabs workspace has no agent {agent_id[:100]}")
    return agent


async def _found_tools(vendor: Agents, contract: AgentContract, kept: Kept, organization_id: str, address: str) -> Any:
    for definition in contract.tools:
        url, known = address + definition.path, kept.tool_ids.get(definition.name)
        stored = await vendor.tool(known) if known else None
        if stored is not None:
            yield FoundTool(definition, url, (stored,))
            continue
        named = await vendor.tools_named(definition.name)
        ours = tuple(tool for tool in named if tool.belongs_to(url, organization_id))
        yield FoundTool(definition, url, ours, tuple(tool.id for tool in named if tool not in ours))


def _transfers(agent: Agent, config: VoiceAiConfig, targets: tuple[TransferTarget, ...]) -> list[Config]:
    return [transfer_config(target, agent.telephony, config.sinch_est_trunk_domain) for target in targets]
