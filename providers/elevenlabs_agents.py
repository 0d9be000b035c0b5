"""ElevenLabs' voice agents: the tools and secrets of a workspace, and what one agent is given of them.

Source: ElevenLabs' SDK 2.78.0. Nothing here has an idempotency key: making a tool or a secret is never repeated, and a
lost answer is followed by a look (`find_tools`, `find_secret`). Replacing and changing say the same thing again, so
they may be repeated. What an agent has is replaced whole where it is a list, so the old entries are sent along.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import SecretStr

from domain.agents import (
    AVAILABLE_NUMBER,
    AVAILABLE_SIP_ADDRESS,
    CONVERSATION_HEADER,
    ORGANIZATION_HEADER,
    ToolDefinition,
    ToolField,
    TransferTarget,
    refer_address,
)
from domain.errors import InvalidRequest, ProviderRejected
from providers.elevenlabs import ElevenLabs
from providers.exchange import VendorAnswer, garbled

TRANSFER_TOOL = "transfer_to_number"

_PROVIDER = "elevenlabs"
_PAGE_SIZE = 30
_MOST_PAGES = 200
_NOT_FOUND = 404

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredTool:
    """A webhook tool as the workspace has it; `config` is ElevenLabs' own form."""

    id: str
    config: Config = field(repr=False)

    @property
    def name(self) -> str:
        """What the model calls it."""
        return str(self.config.get("name"))

    def belongs_to(self, url: str, organization_id: str) -> bool:
        """Tell whether it calls `url` for the organization."""
        schema = _object(self.config.get("api_schema"))
        headers = _object(schema.get("request_headers"))
        return schema.get("url") == url and headers.get(ORGANIZATION_HEADER) == organization_id


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """The webhooks that agents have unless they have their own: after a call, and before one."""

    post_call: str | None
    pre_call: Config | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent, as far as we look at it; `telephony` are the kinds of its phone numbers."""

    id: str
    name: str
    tool_ids: tuple[str, ...] = ()
    transfers: tuple[Config, ...] = field(default=(), repr=False)
    transfer_tool: Config | None = field(default=None, repr=False)
    telephony: frozenset[str] = frozenset()
    pre_call: Config | None = field(default=None, repr=False)
    asks_before_call: bool = False
    overrides: Config = field(default_factory=dict, repr=False)
    branch_id: str | None = None
    main_branch_id: str | None = None

    @property
    def own_post_call(self) -> str | None:
        """The post-call webhook that the agent has instead of the workspace's."""
        chosen = _object(self.overrides.get("webhooks")).get("post_call_webhook_id")
        return chosen if isinstance(chosen, str) and chosen else None


class Agents:
    """Works on the tools, secrets and agents of one workspace; errors are those of `ElevenLabs`."""

    def __init__(self, workspace: ElevenLabs) -> None:
        self._workspace = workspace

    async def agent(self, agent_id: str) -> Agent | None:
        """Return the agent, or None if the workspace has none of that id."""
        answer = await self._found(f"/v1/convai/agents/{quote(agent_id, safe='')}")
        return None if answer is None else _agent(answer, agent_id)

    async def change_agent(self, agent_id: str, changes: Config) -> None:
        """Replace what `changes` names, in a new version of the agent's main branch."""
        await self._workspace.tell("PATCH", f"/v1/convai/agents/{quote(agent_id, safe='')}", changes)

    async def settings(self) -> WorkspaceSettings:
        """Return the workspace's webhooks."""
        answer = await self._workspace.ask("/v1/convai/settings")
        if not (settings := answer.document()):
            raise garbled(_PROVIDER, answer, "the settings")
        post_call = _text(_object(settings.get("webhooks")).get("post_call_webhook_id"))
        return WorkspaceSettings(
            post_call, _object(settings.get("conversation_initiation_client_data_webhook")) or None
        )

    async def tool(self, tool_id: str) -> StoredTool | None:
        """Return the tool, or None if the workspace has none of that id."""
        answer = await self._found(f"/v1/convai/tools/{quote(tool_id, safe='')}")
        return None if answer is None else _tool(answer, answer.document())

    async def tools_named(self, name: str) -> list[StoredTool]:
        """Return the webhook tools of that name, whoever made them."""
        pages = self._pages("/v1/convai/tools", "tools", search=name, types="webhook")
        return [tool async for answer, entry in pages if (tool := _tool(answer, entry)).name == name]

    async def find_tools(self, url: str, name: str, organization_id: str) -> list[StoredTool]:
        """Return the tools of that name that call `url` for the organization."""
        return [tool for tool in await self.tools_named(name) if tool.belongs_to(url, organization_id)]

    async def create_tool(self, config: Config) -> str:
        """Make a tool and return its id; never repeated here."""
        answer = await self._workspace.tell("POST", "/v1/convai/tools", {"tool_config": config})
        return _id(answer, "id", "a tool id")

    async def replace_tool(self, tool_id: str, config: Config) -> None:
        """Replace the tool's definition."""
        await self._workspace.tell("PATCH", f"/v1/convai/tools/{quote(tool_id, safe='')}", {"tool_config": config})

    async def remove_tool(self, tool_id: str) -> None:
        """See to it that there is no such tool."""
        await self._remove(f"/v1/convai/tools/{quote(tool_id, safe='')}")

    async def users_of_tool(self, tool_id: str) -> set[str]:
        """Return the ids of the agents that have the tool."""
        path = f"/v1/convai/tools/{quote(tool_id, safe='')}/dependent-agents"
        return {str(entry.get("id")) async for _, entry in self._pages(path, "agents")}

    async def find_secret(self, name: str) -> str | None:
        """Return the id of the workspace secret of that name."""
        return next((secret for known, secret in await self._secrets(name) if known == name), None)

    async def has_secret(self, secret_id: str, name: str) -> bool:
        """Tell whether the workspace has the secret of that id, which goes by `name`."""
        return any(secret == secret_id for _, secret in await self._secrets(name))

    async def create_secret(self, name: str, value: SecretStr) -> str:
        """Store a new secret and return its id; never repeated here."""
        said = value.get_secret_value()
        document = {"type": "new", "name": name, "value": said}
        answer = await self._workspace.tell("POST", "/v1/convai/secrets", document, secret=said)
        return _id(answer, "secret_id", "a secret id")

    async def change_secret(self, secret_id: str, name: str, value: SecretStr) -> None:
        """Change the value of a secret in place: everything that refers to it uses the new one from then on."""
        said = value.get_secret_value()
        document = {"type": "update", "name": name, "value": said}
        await self._workspace.tell("PATCH", f"/v1/convai/secrets/{quote(secret_id, safe='')}", document, secret=said)

    async def remove_secret(self, secret_id: str) -> None:
        """See to it that there is no such secret."""
        await self._remove(f"/v1/convai/secrets/{quote(secret_id, safe='')}")

    async def _secrets(self, name: str) -> list[tuple[str, str]]:
        pages = self._pages("/v1/convai/secrets", "secrets", search=name)
        return [(str(entry.get("name")), str(entry.get("secret_id"))) async for _, entry in pages]

    async def _found(self, path: str) -> VendorAnswer | None:
        try:
            return await self._workspace.ask(path)
        except ProviderRejected as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    async def _remove(self, path: str) -> None:
        try:
            await self._workspace.tell("DELETE", path)
        except ProviderRejected as error:
            if error.status != _NOT_FOUND:
                raise

    async def _pages(self, path: str, what: str, **query: str) -> Any:
        cursor = None
        for _ in range(_MOST_PAGES):
            asked = {"page_size": str(_PAGE_SIZE), **query} | ({} if cursor is None else {"cursor": cursor})
            answer = await self._workspace.ask(f"{path}?{urlencode(asked)}")
            document = answer.document()
            entries = document.get(what)
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise garbled(_PROVIDER, answer, f"a list of {what}")
            for entry in entries:
                yield answer, entry
            cursor = document.get("next_cursor")
            if not isinstance(cursor, str) or not cursor:
                return


# What we send


def tool_config(tool: ToolDefinition, url: str, secret_id: str, organization_id: str) -> Config:
    """Return the definition of a webhook tool that calls `url` with the stored secret."""
    required = [one.name for one in tool.fields if one.is_required]
    placeholders = {one.variable: "" for one in tool.fields if one.variable and not one.variable.startswith("system__")}
    config: Config = {
        "type": "webhook",
        "name": tool.name,
        "description": tool.description,
        **tool.behaviour,
        "api_schema": {
            "url": url,
            "method": "POST",
            "content_type": "application/json",
            "request_headers": {"Authorization": {"secret_id": secret_id}, ORGANIZATION_HEADER: organization_id},
            "request_body_schema": {
                "type": "object",
                "description": f"What {tool.name} is told.",
                "properties": {one.name: _property(one) for one in tool.fields},
                "required": required,
            },
        },
    }
    return config | ({"dynamic_variables": {"dynamic_variable_placeholders": placeholders}} if placeholders else {})


def _property(one: ToolField) -> Config:
    # A property has exactly one source: the words for the model, or the variable.
    if one.variable is not None:
        return {"type": one.schema["type"], "dynamic_variable": one.variable}
    return dict(one.schema)


def pre_call_config(url: str, secret_id: str) -> Config:
    """Return the webhook before a call, which calls `url` with the stored secret."""
    return {"url": url, "request_headers": {"Authorization": {"secret_id": secret_id}}}


def transfer_config(target: TransferTarget, telephony: Iterable[str], trunk_domain: str | None) -> Config:
    """Return a transfer as the agent's own tool takes it: by REFER on a SIP trunk, as a conference on Twilio numbers.

    Raises:
        InvalidRequest: if the agent's numbers cannot reach the target.
    """
    kinds = set(telephony)
    is_trunk = "sip_trunk" in kinds or (not kinds and (trunk_domain is not None or target.is_sip))
    if not is_trunk and target.is_sip:
        raise InvalidRequest(
            f"{target.address[:100]} is a SIP address, and the agent has Twilio numbers, which transfer to numbers only"
        )
    if is_trunk and not target.is_sip and not trunk_domain:
        raise InvalidRequest(
            "The agent's numbers are on a SIP trunk: set sinchEstTrunkDomain in the voice AI configuration, "
            "or give the transfer a SIP address"
        )
    if not is_trunk:
        return {
            "transfer_destination": _number_to_call(target),
            "transfer_type": "conference",
            "condition": target.condition,
        }
    return {
        "transfer_destination": _address_to_refer_to(target, trunk_domain or ""),
        "transfer_type": "sip_refer",
        "condition": target.condition,
        "custom_sip_headers": [
            {"type": "dynamic", "key": CONVERSATION_HEADER, "value": "system__conversation_id"},
        ],
    }


def _number_to_call(target: TransferTarget) -> Config:
    if target.is_whoever_is_available:
        return {"type": "phone_dynamic_variable", "phone_number": AVAILABLE_NUMBER}
    return {"type": "phone", "phone_number": target.address}


def _address_to_refer_to(target: TransferTarget, trunk_domain: str) -> Config:
    if target.is_whoever_is_available:
        return {"type": "sip_uri_dynamic_variable", "sip_uri": AVAILABLE_SIP_ADDRESS}
    return {"type": "sip_uri", "sip_uri": refer_address(target.address, trunk_domain)}


def transfer_tool(transfers: list[Config], description: str, before: Config | None) -> Config:
    """Return the agent's own transfer tool with `transfers`; what else it had stays."""
    params = {"system_tool_type": TRANSFER_TOOL, "enable_client_message": True, **_object((before or {}).get("params"))}
    kept = {name: value for name, value in (before or {}).items() if value is not None}
    fresh = {"type": "system", "name": TRANSFER_TOOL, "description": description}
    return {**fresh, **kept, "params": {**params, "transfers": transfers}}


def says(stored: Any, wanted: Any, *, exactly: bool = False) -> bool:
    """Tell whether what is stored says all that is wanted; ElevenLabs adds defaults of its own.

    The fields of a body and the headers have to be the same ones: another one more changes what is sent.
    """
    if isinstance(wanted, Mapping):
        if not isinstance(stored, Mapping):
            return False
        present = {name for name, value in stored.items() if value is not None}
        if exactly and present != set(wanted):
            return False
        return all(
            says(stored.get(name), value, exactly=name in ("properties", "request_headers"))
            for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        if not isinstance(stored, list) or len(stored) != len(wanted):
            return False
        return all(any(says(entry, value) for entry in stored) for value in wanted)
    return bool(stored == wanted)


# What we read


def _agent(answer: VendorAnswer, agent_id: str) -> Agent:
    document = answer.document()
    config = document.get("conversation_config")
    prompt = _object(_object(_object(config).get("agent")).get("prompt"))
    if document.get("agent_id") != agent_id or not isinstance(config, dict):
        raise garbled(_PROVIDER, answer, "the agent")
    settings = _object(document.get("platform_settings"))
    overrides = _object(settings.get("workspace_overrides"))
    own_tool = _object(_object(prompt.get("built_in_tools")).get(TRANSFER_TOOL))
    transfers = _list(_object(own_tool.get("params")).get("transfers"))
    numbers = _list(document.get("phone_numbers"))
    asks = _object(settings.get("overrides")).get("enable_conversation_initiation_client_data_from_webhook")
    return Agent(
        id=agent_id,
        name=str(document.get("name") or ""),
        tool_ids=tuple(each for each in prompt.get("tool_ids") or () if isinstance(each, str)),
        transfers=tuple(transfers),
        transfer_tool=own_tool or None,
        telephony=frozenset(str(number.get("provider")) for number in numbers),
        pre_call=_object(overrides.get("conversation_initiation_client_data_webhook")) or None,
        asks_before_call=asks is True,
        overrides=overrides,
        branch_id=_text(document.get("branch_id")),
        main_branch_id=_text(document.get("main_branch_id")),
    )


def _tool(answer: VendorAnswer, document: Mapping[str, Any]) -> StoredTool:
    tool_id, config = document.get("id"), document.get("tool_config")
    if not isinstance(tool_id, str) or not tool_id or not isinstance(config, dict):
        raise garbled(_PROVIDER, answer, "a tool")
    return StoredTool(tool_id, config)


def _id(answer: VendorAnswer, name: str, what: str) -> str:
    found = answer.document().get(name)
    if not isinstance(found, str) or not found:
        raise garbled(_PROVIDER, answer, what)
    return found


def _object(value: Any) -> Config:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Config]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
