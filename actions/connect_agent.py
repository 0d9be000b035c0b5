"""Connecting a voice agent: its tools, their secret, the webhooks before and after a call, and its transfers.

Nothing of the agent that is not ours is touched: what it has is read, what is missing is added, and it is read again.
What is made at ElevenLabs is remembered at once by its id. A request whose answer was lost is never repeated: the
relay looks by name and address first. Tools that were made and could not be attached are removed again, or listed.
One process at a time works on the workspace of an organization, whose row says which.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from actions.agent_secret import begin_storing, workspace_of, write_secret
from actions.agent_survey import (
    TRANSFER_WORDS,
    FoundTool,
    Survey,
    existing_agent,
    public_address,
    remembered,
    survey,
    with_secret,
)
from actions.configure_voice_ai import ensure_webhook
from actions.relay import Relay
from domain.agents import (
    MAX_TRANSFERS,
    Connection,
    Part,
    PartKind,
    PartState,
    TransferTarget,
    transfer_target,
)
from domain.audit import Actor, AuditAction
from domain.documents import dump
from domain.errors import (
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    ProviderError,
    ProviderRejected,
    RelayError,
)
from domain.lengths import LENGTHS
from domain.times import later
from persistence import agents, audit, organizations, tool_secrets
from providers.elevenlabs_agents import Agent, Agents, Config, says, tool_config, transfer_tool

_WORKING_SECONDS = 120
_CLAIM_SECONDS = _WORKING_SECONDS + 30
_LONGEST_TEXT = 500

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks of a connection: transfers as (address, condition); None leaves them as they are."""

    transfers: tuple[tuple[str, str | None], ...] | None = field(default=None, repr=False)
    transfer_text: str | None = None


class _Stopped(Exception):
    """Raised when a step failed: the part it was about, and why."""

    def __init__(self, kind: PartKind, name: str, reason: RelayError) -> None:
        super().__init__(str(reason))
        self.kind = kind
        self.name = name
        self.reason = reason


async def connect_agent(
    relay: Relay, organization_id: str, agent_id: str, wish: Wish, actor: Actor, *, is_dry_run: bool = False
) -> Connection:
    """Connect the agent, or with `is_dry_run` say what would be done; a connected agent is left alone.

    Raises:
        NotFound: if the workspace has no such agent.
        InvalidRequest: if something has to be configured first, or a transfer makes no sense.
        ProviderError: if ElevenLabs refused or did not answer before anything was changed.
        Overloaded: if another process is working on the organization's agents.
    """
    targets = await _targets(relay, organization_id, wish)
    vendor = await _opened(relay, organization_id, agent_id)
    if is_dry_run:
        return (await survey(relay, organization_id, vendor, agent_id, targets)).connection()
    async with _claimed(relay, organization_id) as claim:
        found = await survey(relay, organization_id, vendor, agent_id, targets)
        return await _Work(relay, organization_id, vendor, claim, actor).connect(found, wish)


async def check_agent(relay: Relay, organization_id: str, agent_id: str) -> Connection:
    """Say how the agent is connected.

    Raises:
        RelayError: as `connect_agent`.
    """
    vendor = await _opened(relay, organization_id, agent_id)
    return (await survey(relay, organization_id, vendor, agent_id)).connection()


async def disconnect_agent(relay: Relay, organization_id: str, agent_id: str, actor: Actor) -> list[str]:
    """Take from the agent what is ours, and remove what no other agent uses; return what was done, in sentences.

    Raises:
        RelayError: as `connect_agent`; what was done until then stays done, and the command may be repeated.
    """
    vendor = await _opened(relay, organization_id, agent_id)
    async with _claimed(relay, organization_id) as claim:
        return await _Work(relay, organization_id, vendor, claim, actor).disconnect(agent_id)


async def tool_definitions(relay: Relay, organization_id: str) -> list[Config]:
    """Return the definitions of the organization's tools, to be pasted into ElevenLabs by hand."""
    address = public_address(relay)
    kept = await relay.database.read(lambda: agents.workspace(organization_id))
    secret = (kept.secret_id if kept else None) or "ID_OF_A_SECRET_THAT_HOLDS_Bearer_AND_THE_TOOL_SECRET"
    return [tool_config(one, address + one.path, secret, organization_id) for one in relay.agent_contract().tools]


async def _targets(relay: Relay, organization_id: str, wish: Wish) -> tuple[TransferTarget, ...] | None:
    if wish.transfer_text is not None and not 0 < len(wish.transfer_text.strip()) <= _LONGEST_TEXT:
        raise InvalidRequest(f"The transfer text must have 1 to {_LONGEST_TEXT} characters")
    if wish.transfers is None:
        return None
    if len(wish.transfers) > MAX_TRANSFERS:
        raise InvalidRequest(f"An agent can be given at most {MAX_TRANSFERS} transfers")
    organization = await relay.database.read(lambda: organizations.get(organization_id))
    region = organization.default_region if organization else None
    return tuple(transfer_target(address, condition, region) for address, condition in wish.transfers)


async def _opened(relay: Relay, organization_id: str, agent_id: str) -> Agents:
    if not 0 < len(agent_id) <= LENGTHS["vendorId"]:
        raise InvalidRequest("That is not the id of an agent")
    public_address(relay)
    # Reading the contract takes a second the first time.
    await asyncio.to_thread(relay.agent_contract)
    return await workspace_of(relay, organization_id)


@contextlib.asynccontextmanager
async def _claimed(relay: Relay, organization_id: str) -> AsyncIterator[str]:
    """Claim the organization's workspace for as long as the context lasts, and bound that.

    Raises:
        Overloaded: if another process has it, or the time is up.
    """
    claim = await relay.database.write(lambda: agents.claim(organization_id, later(_CLAIM_SECONDS)), of=organization_id)
    if claim is None:
        raise Overloaded("Another process is working on the organization's agents; try again in a minute")
    try:
        async with asyncio.timeout(_WORKING_SECONDS):
            yield claim
    except TimeoutError:
        raise Overloaded(
            f"ElevenLabs took longer than {_WORKING_SECONDS} seconds; run the command again, which goes on from there"
        ) from None
    finally:
        await asyncio.shield(relay.database.write(partial(agents.release, organization_id, claim), of=organization_id))


class _Work:
    """One connect or disconnect, under the claim."""

    def __init__(self, relay: Relay, organization_id: str, vendor: Agents, claim: str, actor: Actor) -> None:
        self._relay = relay
        self._organization_id = organization_id
        self._vendor = vendor
        self._claim = claim
        self._actor = actor
        self._made: list[str] = []
        self._may_be_attached = False
        self._done: list[str] = []

    async def connect(self, before: Survey, wish: Wish) -> Connection:
        """Make, change and attach what is missing, and look again."""
        changes = {(part.kind, part.name): part.change for part in before.connection().parts}
        try:
            found = await self._tools(await self._secret(before))
            await self._attach(found)
            await self._remember(found, wish)
            await self._post_call(found)
            after = await survey(self._relay, self._organization_id, self._vendor, found.agent.id)
        except _Stopped as stopped:
            return await self._stopped(before, stopped)
        except ProviderError as error:
            return await self._stopped(before, _Stopped(PartKind.TOOL, "", error))
        parts = [replace(part, change=changes.get((part.kind, part.name), "")) for part in after.connection().parts]
        return replace(after.connection(), parts=tuple(parts))

    async def _secret(self, found: Survey) -> Survey:
        if found.is_secret_written and found.secret_id is not None:
            return found
        unit = partial(begin_storing, self._relay, self._organization_id, self._actor)
        await self._write(unit)
        with _about(PartKind.SECRET, ""):
            secret_id = await write_secret(self._relay, self._organization_id, self._vendor)
        self._done.append("wrote the tool secret")
        return with_secret(found, secret_id)

    async def _tools(self, found: Survey) -> Survey:
        tools = []
        for one in found.tools:
            if (rival := found.rival_of(one)) is not None:
                name = one.definition.name
                reason = InvalidRequest(f"The agent has another tool {name}, {rival}: remove it at ElevenLabs")
                raise _Stopped(PartKind.TOOL, name, reason)
        for one in found.tools:
            with _about(PartKind.TOOL, one.definition.name):
                tools.append(await self._tool(found, one))
        return replace(found, tools=tuple(tools))

    async def _tool(self, found: Survey, one: FoundTool) -> FoundTool:
        name, config = one.definition.name, found.tool_config(one)
        if one.tool_id is None:
            tool_id = await self._made_tool(one, config)
            self._done.append(f"made the tool {name}")
        else:
            tool_id = one.tool_id
            if not found.is_tool_current(one):
                await self._vendor.replace_tool(tool_id, config)
                self._done.append(f"changed the tool {name}")
        if found.kept.tool_ids.get(name) != tool_id:
            await self._write(partial(agents.remember_tool, self._organization_id, name, tool_id))
        stored = await self._vendor.tool(tool_id)
        if stored is None or not says(stored.config, config):
            raise ProviderRejected("elevenlabs", f"answered, but the tool {name} is not as it was asked for")
        return replace(one, stored=(stored,))

    async def _made_tool(self, one: FoundTool, config: Config) -> str:
        # The claim must still be ours: without it another process may be making the same tool.
        if not await self._relay.database.read(partial(agents.holds, self._organization_id, self._claim)):
            raise Overloaded("Another process took over the organization's agents; run the command again")
        try:
            tool_id = await self._vendor.create_tool(config)
        except OutcomeUnknown:
            found = await self._vendor.find_tools(one.url, one.definition.name, self._organization_id)
            if not found:
                raise
            tool_id = found[0].id
        self._made.append(tool_id)
        return tool_id

    async def _attach(self, found: Survey) -> None:
        # What the agent has may have changed while its tools were made, and lists are replaced whole.
        with _about(PartKind.TOOL, ""):
            agent = await existing_agent(self._vendor, found.agent.id)
            found = replace(found, agent=agent)
            changes = _changes(found)
            if not changes:
                self._made.clear()
                return
            failure = await self._changed(agent.id, changes)
            after = replace(found, agent=await existing_agent(self._vendor, agent.id))
            self._may_be_attached = False
            missing = _not_taken(found, after)
            if not missing or any(tool_id in after.agent.tool_ids for tool_id in self._made):
                self._made.clear()
            if missing:
                said = f"answered, but the agent was not changed as asked: {', '.join(missing)}"
                raise failure or ProviderRejected("elevenlabs", said)
        self._done.append("changed the agent")

    async def _changed(self, agent_id: str, changes: Config) -> OutcomeUnknown | None:
        """Change the agent; return what was lost on the way if nobody knows whether it was changed."""
        try:
            await self._vendor.change_agent(agent_id, changes)
        except OutcomeUnknown as error:
            self._may_be_attached = True
            return error
        self._may_be_attached = True
        return None

    async def _remember(self, found: Survey, wish: Wish) -> None:
        transfers = dump(list(found.transfers)).decode()
        is_known = found.kept.agent is not None and found.kept.agent.transfers == transfers
        if is_known and wish.transfer_text is None and not self._done:
            return

        def unit() -> None:
            agents.remember_agent(self._organization_id, found.agent.id, found.agent.name, transfers)
            if wish.transfer_text is not None:
                agents.update_workspace(self._organization_id, {"transfer_text": wish.transfer_text.strip()})
            details = {"agentId": found.agent.id, "transfers": len(found.transfers)}
            audit.record(self._organization_id, AuditAction.AGENT_CONNECTED, self._actor, details=details)

        await self._write(unit)

    async def _post_call(self, found: Survey) -> None:
        (part,) = [part for part in found.connection().parts if part.kind is PartKind.POST_CALL]
        if part.state is not PartState.OK and part.change:
            await ensure_webhook(self._relay, self._organization_id)

    async def _stopped(self, before: Survey, stopped: _Stopped) -> Connection:
        left = await self._take_back()
        parts = list(await self._parts_now(before))
        for index, part in enumerate(parts):
            if part.kind is stopped.kind and stopped.name in ("", part.name) and part.state is not PartState.OK:
                parts[index] = replace(part, state=PartState.REFUSED, detail=f"because {stopped.reason}")
        done = f"Until then the relay {', '.join(self._done)}. " if self._done else ""
        removed = f"The new tools stay, and the next connect uses them: {', '.join(left)}. " if left else ""
        problem = f"{_sentence(stopped.reason)} {done}{removed}{_advice(stopped.reason)}"
        log.warning("agent.not_connected", organization_id=self._organization_id, reason=str(stopped.reason))
        return Connection(before.agent.id, before.agent.name, tuple(parts), problem, tuple(left))

    async def _take_back(self) -> list[str]:
        # An agent must not be left with the ids of tools that are gone.
        left = list(self._made) if self._may_be_attached else []
        for tool_id in () if self._may_be_attached else self._made:
            try:
                await self._vendor.remove_tool(tool_id)
                await self._write(partial(agents.forget_tool, self._organization_id, tool_id))
            except ProviderError:
                # Its id is remembered, so the next connect uses it.
                left.append(tool_id)
        if self._made and not left:
            self._done.append("removed the new tools again")
        return left

    async def _parts_now(self, before: Survey) -> tuple[Part, ...]:
        try:
            again = await survey(self._relay, self._organization_id, self._vendor, before.agent.id)
            return replace(again, transfers=before.transfers).connection().parts
        except RelayError:
            return before.connection().parts

    # Disconnecting

    async def disconnect(self, agent_id: str) -> list[str]:
        """Take the agent's parts away, then what nobody uses any more."""
        kept = await remembered(self._relay, self._organization_id, agent_id)
        agent = await self._vendor.agent(agent_id)
        if agent is None and kept.agent is None:
            raise NotFound(f"The ElevenLabs workspace has no agent {agent_id[:100]}")
        ours = frozenset(kept.tool_ids.values())
        if agent is not None:
            await self._detach(agent, ours, kept.transfers)
        await self._write(partial(self._forget_agent, agent_id))
        for tool_id in sorted(ours):
            if await self._vendor.users_of_tool(tool_id) - {agent_id}:
                self._done.append(f"The tool {tool_id} stays, because another agent has it.")
                continue
            await self._vendor.remove_tool(tool_id)
            await self._write(partial(agents.forget_tool, self._organization_id, tool_id))
            self._done.append(f"Removed the tool {tool_id}.")
        await self._remove_secret()
        return self._done

    async def _detach(self, agent: Agent, ours: frozenset[str], transfers: list[Config]) -> None:
        contract = self._relay.agent_contract()
        own_url = None if contract.pre_call is None else public_address(self._relay) + contract.pre_call
        changes = _taken_away(agent, ours, transfers, own_url)
        if not changes:
            return
        await self._vendor.change_agent(agent.id, changes)
        after = await existing_agent(self._vendor, agent.id)
        if set(after.tool_ids) & ours or _taken_away(after, ours, transfers, own_url):
            raise ProviderRejected("elevenlabs", "answered, but the agent still has what is ours")
        self._done.append(f"Took our tools, transfers and webhook from the agent {agent.name or agent.id}.")

    def _forget_agent(self, agent_id: str) -> None:
        agents.forget_agent(self._organization_id, agent_id)
        details = {"agentId": agent_id}
        audit.record(self._organization_id, AuditAction.AGENT_DISCONNECTED, self._actor, details=details)

    async def _remove_secret(self) -> None:
        kept = await self._relay.database.read(lambda: agents.workspace(self._organization_id))
        if kept is None or kept.secret_id is None or await self._relay.database.read(self._has_tools):
            return
        await self._vendor.remove_secret(kept.secret_id)
        await self._write(partial(self._forget_secret, kept.secret_digest))
        self._done.append(f"Removed the secret {kept.secret_id}.")

    def _has_tools(self) -> bool:
        return bool(agents.tools(self._organization_id) or agents.connected(self._organization_id))

    def _forget_secret(self, written_digest: str | None) -> None:
        gone = {"secret_id": None, "secret_digest": None, "secret_sealed": None, "secret_stored_at": None}
        agents.update_workspace(self._organization_id, gone)
        if written_digest is not None:
            expires_at = later(self._relay.rules.tool_secret_overlap)
            tool_secrets.expire(self._organization_id, written_digest, expires_at)

    async def _write(self, unit: Callable[[], None]) -> None:
        await self._relay.database.write(unit, of=self._organization_id)


@contextlib.contextmanager
def _about(kind: PartKind, name: str) -> Iterator[None]:
    """Say which part of the connection a failure is about."""
    try:
        yield
    except (ProviderError, InvalidRequest, NotFound, Overloaded) as error:
        raise _Stopped(kind, name, error) from error


def _changes(found: Survey) -> Config:
    """Return what has to change of the agent; what it has of others is sent along, because lists are replaced whole."""
    agent, prompt = found.agent, Config()
    missing = [one.tool_id for one in found.tools if one.tool_id and one.tool_id not in agent.tool_ids]
    if missing:
        prompt["tool_ids"] = [*agent.tool_ids, *missing]
    if not found.has_transfers:
        prompt["built_in_tools"] = _transfer_tools(found.agent, [*found.their_transfers, *found.transfers])
    changes: Config = {"conversation_config": {"agent": {"prompt": prompt}}} if prompt else {}
    if _wants_pre_call(found):
        overrides = {name: value for name, value in agent.overrides.items() if value is not None}
        changes["platform_settings"] = {
            "workspace_overrides": {**overrides, "conversation_initiation_client_data_webhook": found.pre_call},
            "overrides": {"enable_conversation_initiation_client_data_from_webhook": True},
        }
    return changes | ({"version_description": "Connected to Tether Relay"} if changes else {})


def _transfer_tools(agent: Agent, transfers: list[Config]) -> Config:
    tool = transfer_tool(transfers, TRANSFER_WORDS, agent.transfer_tool) if transfers else None
    return {"transfer_to_number": tool}


def _wants_pre_call(found: Survey) -> bool:
    (part,) = [part for part in found.connection().parts if part.kind is PartKind.PRE_CALL]
    return bool(part.change)


def _not_taken(asked: Survey, after: Survey) -> list[str]:
    """Return what the agent lacks after the change, ours or its own."""
    lost = [tool_id for tool_id in asked.agent.tool_ids if tool_id not in after.agent.tool_ids]
    missing = [one.definition.name for one in asked.tools if one.tool_id not in after.agent.tool_ids]
    problems = [f"it lost its tool {tool_id}" for tool_id in lost] + [f"it lacks {name}" for name in missing]
    if not after.has_transfers:
        problems.append("it lacks the transfer")
    if any(not any(says(have, one) for have in after.agent.transfers) for one in asked.their_transfers):
        problems.append("it lost a transfer of its own")
    if _wants_pre_call(after):
        problems.append("it lacks the webhook before a call")
    return problems


def _taken_away(agent: Agent, ours: frozenset[str], transfers: list[Config], own_url: str | None) -> Config:
    """Return the changes that take from the agent what is ours; empty if it has nothing of it."""
    prompt = Config()
    if set(agent.tool_ids) & ours:
        prompt["tool_ids"] = [tool_id for tool_id in agent.tool_ids if tool_id not in ours]
    theirs = [one for one in agent.transfers if not any(says(one, mine) for mine in transfers)]
    if len(theirs) < len(agent.transfers):
        prompt["built_in_tools"] = _transfer_tools(agent, theirs)
    changes: Config = {"conversation_config": {"agent": {"prompt": prompt}}} if prompt else {}
    if own_url is not None and agent.pre_call is not None and agent.pre_call.get("url") == own_url:
        overrides = {name: value for name, value in agent.overrides.items() if value is not None}
        changes["platform_settings"] = {
            "workspace_overrides": {**overrides, "conversation_initiation_client_data_webhook": None},
            "overrides": {"enable_conversation_initiation_client_data_from_webhook": False},
        }
    return changes | ({"version_description": "Disconnected from Tether Relay"} if changes else {})


def _sentence(error: RelayError) -> str:
    said = str(error)
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _advice(error: RelayError) -> str:
    status = error.status if isinstance(error, ProviderError) else None
    if status in (401, 403):
        return "Give the ElevenLabs API key the rights to tools, secrets and agents, then run the command again."
    if isinstance(error, ProviderRejected):
        return "Mend that at ElevenLabs, then run the command again."
    return "Run the command again; it looks at what is there before it makes anything."
