"""An ElevenLabs workspace with agents, tools and secrets, which also calls its tools as ElevenLabs would.

What it is sent is checked strictly against ElevenLabs' SDK, and so is what it answers. It refuses what theirs refuses:
a property with two sources, a secret or a tool that does not exist, one that is still in use, an address without TLS.
"""

import copy
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx
from elevenlabs import types as sdk

from tests.support import elevenlabs_models as models
from tests.support.faulty_http import Received, Reply
from tests.support.vendors import FakeElevenLabs

_SYSTEM = re.compile(r"system__[a-z_]+\Z")
_SOURCES = ("description", "dynamic_variable", "constant_value", "is_system_provided", "is_omitted")
_LITERALS = ("string", "number", "integer", "boolean")
_ACCESS = {"is_creator": True, "creator_name": "Owner", "creator_email": "owner@example.com", "role": "admin"}


@dataclass
class PhoneCall:
    """A call that an agent has: what ElevenLabs knows of it by itself."""

    agent_id: str
    conversation_id: str
    caller_id: str = ""
    called_number: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, str]:
        """Return the call's variables."""
        return {
            "system__agent_id": self.agent_id,
            "system__conversation_id": self.conversation_id,
            "system__caller_id": self.caller_id,
            "system__called_number": self.called_number,
            **self.variables,
        }


class FakeWorkspace(FakeElevenLabs):
    """The whole workspace. `most_tools` is its limit of tools, `rights` what its key may work on.

    Set `takes_agents` to False for one that answers 200 to a change of an agent and changes nothing.
    """

    _PLACES: ClassVar = {"tools": "convai/tools", "secrets": "convai/secrets", "agents": "convai/agents"}

    def __init__(self) -> None:
        super().__init__()
        self.tools: dict[str, dict[str, Any]] = {}
        self.stored: dict[str, dict[str, str]] = {}
        self.agents: dict[str, dict[str, Any]] = {}
        self.rights = {"tools", "secrets", "agents", "settings"}
        self.most_tools = 50
        self.page_size = 30
        self.takes_agents = True
        self.values_seen: list[str] = []

    # What the workspace's owner does by hand

    def add_agent(self, agent_id: str = "agent_01", *, numbers: tuple[str, ...] = (), **prompt: Any) -> dict[str, Any]:
        """Make an agent; `numbers` are the providers of its phone numbers."""
        agent = {
            "agent_id": agent_id,
            "name": f"Agent {agent_id}",
            "conversation_config": {"agent": {"prompt": {"prompt": "Be kind.", "tool_ids": [], **prompt}}},
            "metadata": {"created_at_unix_secs": 1_796_000_000, "updated_at_unix_secs": 1_796_000_000},
            "platform_settings": {"overrides": {}, "workspace_overrides": {}},
            "phone_numbers": [self._number(provider, index) for index, provider in enumerate(numbers)],
            "branch_id": "branch_main",
            "main_branch_id": "branch_main",
        }
        self.agents[agent_id] = agent
        return agent

    def add_tool(self, name: str, url: str = "https://elsewhere.example/x") -> str:
        """Make a webhook tool, and return its id."""
        schema = {"url": url, "method": "POST"}
        return self._keep_tool({"type": "webhook", "name": name, "description": "Not ours.", "api_schema": schema})

    def prompt(self, agent_id: str = "agent_01") -> dict[str, Any]:
        """Return what the agent is told and given."""
        prompt: dict[str, Any] = self.agents[agent_id]["conversation_config"]["agent"]["prompt"]
        return prompt

    def named(self, name: str) -> list[str]:
        """Return the ids of the tools of that name."""
        return [tool_id for tool_id, tool in self.tools.items() if tool["name"] == name]

    # What an agent does in a call

    async def call_tool(
        self, http: httpx.AsyncClient, call: PhoneCall, name: str, said: dict[str, Any], *, instead_of: str, at: str
    ) -> httpx.Response:
        """Call a tool of the agent with what the model said, from the definition that was stored.

        The address's beginning `instead_of` is replaced by `at`, where the relay really is.
        """
        (tool,) = [self.tools[one] for one in self.prompt(call.agent_id)["tool_ids"] if self.tools[one]["name"] == name]
        schema = tool["api_schema"]
        body = self._filled(schema["request_body_schema"], call, said, tool)
        headers = {one: self._header(value) for one, value in schema["request_headers"].items()}
        address = schema["url"].replace(instead_of, at)
        return await http.request(
            schema.get("method", "GET"),
            address,
            json=body,
            headers=headers,
            timeout=tool.get("response_timeout_secs", 20),
        )

    def _filled(self, schema: dict[str, Any], call: PhoneCall, said: dict[str, Any], tool: dict[str, Any]) -> Any:
        placeholders = (tool.get("dynamic_variables") or {}).get("dynamic_variable_placeholders") or {}
        known = {**placeholders, **call.values()}
        body = {}
        for name, described in schema["properties"].items():
            if "dynamic_variable" in described:
                # A variable without a value fails the call.
                body[name] = known[described["dynamic_variable"]]
            elif name in said:
                body[name] = said[name]
            else:
                assert name not in schema["required"], f"the model has to say {name}"
        unasked = said.keys() - {name for name, one in schema["properties"].items() if "dynamic_variable" not in one}
        assert not unasked, f"the model is not asked for {unasked}"
        return body

    def _header(self, value: Any) -> str:
        return self.stored[value["secret_id"]]["value"] if isinstance(value, dict) else str(value)

    # The API

    def _convai(self, request: Received) -> Reply:
        kind, _, rest = request.path.removeprefix("/v1/convai/").partition("/")
        if kind not in self.rights:
            missing = {"status": "missing_permissions", "message": f"The API key lacks the permission convai_{kind}"}
            return Reply(403, {"detail": missing})
        if kind == "settings":
            return self._settings(request)
        answers = {"tools": self._of_tools, "secrets": self._of_secrets, "agents": self._of_agents}
        return answers[kind](request, rest) if kind in answers else Reply(404, {"detail": "Not Found"})

    def _settings(self, request: Received) -> Reply:
        if request.method == "PATCH":
            wrong = models.of_fields(models.SETTINGS, request.document, required=False)
            if wrong:
                return _refused(wrong)
        return super()._convai(request)

    def _of_tools(self, request: Received, rest: str) -> Reply:
        tool_id, _, more = rest.partition("/")
        if request.method == "POST" and not rest:
            return self._make_tool(request.document)
        if request.method == "GET" and not rest:
            return self._list_tools(request.query)
        if tool_id not in self.tools:
            return _detail(404, "tool_not_found", f"Tool {tool_id} not found")
        if more == "dependent-agents":
            users = [self._user(one) for one in self._users(tool_id)]
            return self._page(request.query, "agents", users)
        return self._of_one_tool(request, tool_id)

    def _of_one_tool(self, request: Received, tool_id: str) -> Reply:
        if request.method == "PATCH":
            wrong = self._wrong_tool(request.document)
            if wrong:
                return _refused(wrong)
            self.tools[tool_id] = _with_defaults(request.document["tool_config"])
        elif request.method == "DELETE":
            if self._users(tool_id):
                return _detail(409, "tool_in_use", "The tool is used by agents")
            del self.tools[tool_id]
            return Reply(204)
        return Reply(200, self._shown_tool(tool_id))

    def _make_tool(self, document: Any) -> Reply:
        if wrong := self._wrong_tool(document):
            return _refused(wrong)
        if len(self.tools) >= self.most_tools:
            return _refused([(["body"], f"The workspace has reached its limit of {self.most_tools} tools")])
        return Reply(200, self._shown_tool(self._keep_tool(document["tool_config"])))

    def _keep_tool(self, config: dict[str, Any]) -> str:
        tool_id = f"tool_{next(self._numbers):04d}"
        self.tools[tool_id] = _with_defaults(config)
        return tool_id

    def _list_tools(self, query: dict[str, str]) -> Reply:
        named = [one for one, tool in self.tools.items() if tool["name"].startswith(query.get("search", ""))]
        chosen = [one for one in named if query.get("types", "webhook") == "webhook"]
        return self._page(query, "tools", [self._shown_tool(one) for one in chosen])

    def _page(self, query: dict[str, str], what: str, entries: list[Any]) -> Reply:
        size = int(query.get("page_size", self.page_size))
        if not 0 < size <= 100:
            return _refused([(["query", "page_size"], "Input should be less than or equal to 100")])
        start, size = int(query.get("cursor", 0)), min(size, self.page_size)
        following = str(start + size) if start + size < len(entries) else None
        page = {what: entries[start : start + size], "next_cursor": following}
        return Reply(200, page if what == "secrets" else page | {"has_more": following is not None})

    def _shown_tool(self, tool_id: str) -> dict[str, Any]:
        shown = {
            "id": tool_id,
            "tool_config": self.tools[tool_id],
            "access_info": _ACCESS,
            "usage_stats": {"total_calls": 0, "avg_latency_secs": 0.1},
        }
        return _as_documented(sdk.ToolResponseModel, shown)

    def _wrong_tool(self, document: Any) -> list[models.Problem]:
        wrong = models.problems(sdk.ToolRequestModel, document)
        if wrong:
            return wrong
        config, place = document["tool_config"], ["body", "tool_config"]
        schema = config["api_schema"]
        if not 5 <= config.get("response_timeout_secs", 20) <= 300:
            wrong.append(([*place, "response_timeout_secs"], "Input should be between 5 and 300"))
        if not schema["url"].startswith("https://"):
            wrong.append(([*place, "api_schema", "url"], "The URL must use https"))
        for name, value in (schema.get("request_headers") or {}).items():
            if isinstance(value, dict) and value.get("secret_id") not in self.stored:
                wrong.append(([*place, "api_schema", "request_headers", name], "Secret not found"))
        known = (config.get("dynamic_variables") or {}).get("dynamic_variable_placeholders") or {}
        wrong += _wrong_properties(schema.get("request_body_schema") or {}, [*place, "request_body_schema"], known)
        return wrong

    def _users(self, tool_id: str) -> list[str]:
        return [one for one in self.agents if tool_id in self.prompt(one).get("tool_ids", [])]

    def _user(self, agent_id: str) -> dict[str, Any]:
        name = self.agents[agent_id]["name"]
        return {"type": "available", "id": agent_id, "name": name, "created_at_unix_secs": 1, "access_level": "admin"}

    def _of_secrets(self, request: Received, secret_id: str) -> Reply:
        if request.method == "GET" and not secret_id:
            found = [self._shown_secret(one) for one in self.stored]
            prefix = request.query.get("search", "")
            return self._page(request.query, "secrets", [one for one in found if one["name"].startswith(prefix)])
        if request.method == "POST" and not secret_id:
            wrong = models.of_fields(models.NEW_SECRET, request.document, required=True)
            if any(one["name"] == request.document.get("name") for one in self.stored.values()):
                return _detail(409, "secret_exists", "A secret of that name exists already")
            return _refused(wrong) if wrong else self._store(f"secret_{next(self._numbers):04d}", request.document)
        if secret_id not in self.stored:
            return _detail(404, "secret_not_found", "Secret not found")
        if request.method == "PATCH":
            wrong = models.of_fields(models.CHANGED_SECRET, request.document, required=True)
            return _refused(wrong) if wrong else self._store(secret_id, request.document)
        if any(secret_id in str(tool) for tool in self.tools.values()):
            return _detail(400, "secret_in_use", "The secret is used by tools")
        del self.stored[secret_id]
        return Reply(204)

    def _store(self, secret_id: str, document: dict[str, Any]) -> Reply:
        self.stored[secret_id] = {"name": document["name"], "value": document["value"]}
        self.values_seen.append(document["value"])
        return Reply(200, {"type": "stored", "secret_id": secret_id, "name": document["name"]})

    def _shown_secret(self, secret_id: str) -> dict[str, Any]:
        used_by: dict[str, list[Any]] = {"tools": [], "agents": [], "others": [], "phone_numbers": []}
        return {"type": "stored", "secret_id": secret_id, "name": self.stored[secret_id]["name"], "used_by": used_by}

    def _of_agents(self, request: Received, agent_id: str) -> Reply:
        if agent_id not in self.agents:
            return _detail(404, "agent_not_found", f"Agent {agent_id} not found")
        if request.method == "PATCH":
            wrong = models.of_fields(models.AGENT_CHANGES, request.document, required=False)
            wrong = wrong or self._wrong_agent(request.document)
            if wrong:
                return _refused(wrong)
            if self.takes_agents:
                _merge(self.agents[agent_id], request.document)
                self.agents[agent_id].pop("version_description", None)
        elif request.method != "GET":
            return Reply(405, {"detail": "Method Not Allowed"})
        return Reply(200, _as_documented(sdk.GetAgentResponseModel, self.agents[agent_id]))

    def _wrong_agent(self, document: dict[str, Any]) -> list[models.Problem]:
        agent = (document.get("conversation_config") or {}).get("agent") or {}
        prompt, place = agent.get("prompt") or {}, ["body", "conversation_config", "agent", "prompt"]
        gone = [one for one in prompt.get("tool_ids") or () if one not in self.tools]
        wrong: list[models.Problem] = [([*place, "tool_ids"], f"Document with id {one} not found") for one in gone]
        tool = (prompt.get("built_in_tools") or {}).get("transfer_to_number")
        for transfer in (tool or {}).get("params", {}).get("transfers", ()):
            is_sip = transfer["transfer_destination"]["type"].startswith("sip")
            if is_sip != (transfer.get("transfer_type") == "sip_refer"):
                wrong.append(([*place, "built_in_tools"], "Only sip_refer can transfer to a SIP URI"))
            if not is_sip and transfer.get("custom_sip_headers"):
                wrong.append(([*place, "built_in_tools"], "Headers can only be sent with sip_refer"))
        return wrong

    def _number(self, provider: str, index: int) -> dict[str, Any]:
        number = {"phone_number": f"+1236555010{index}", "label": provider, "phone_number_id": f"phnum_{index}"}
        trunk = {"livekit_stack": "standard"} if provider == "sip_trunk" else {}
        return {"provider": provider, **number, **trunk}


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    kept = copy.deepcopy(config)
    kept.setdefault("response_timeout_secs", 20)
    kept.setdefault("interruption_mode", "allow")
    kept.setdefault("tool_error_handling_mode", "auto")
    kept.setdefault("assignments", [])
    kept["api_schema"].setdefault("method", "GET")
    kept["api_schema"].setdefault("path_params_schema", {})
    kept["api_schema"].setdefault("query_params_schema", None)
    return kept


def _wrong_properties(schema: dict[str, Any], place: list[str | int], known: dict[str, Any]) -> list[models.Problem]:
    wrong: list[models.Problem] = []
    properties = schema.get("properties") or {}
    unknown = [name for name in schema.get("required") or () if name not in properties]
    wrong += [([*place, "required"], f"{name} is not a property") for name in unknown]
    for name, one in properties.items():
        given = [source for source in _SOURCES if one.get(source) not in (None, False)]
        if one.get("type") in _LITERALS and len(given) != 1:
            wrong.append(([*place, name], f"Must set exactly one of {', '.join(_SOURCES)}"))
        variable = one.get("dynamic_variable")
        if variable is not None and not _SYSTEM.match(variable) and variable not in known:
            wrong.append(([*place, name], f"Missing placeholder for the dynamic variable {variable}"))
        if one.get("type") == "object":
            wrong += _wrong_properties(one, [*place, name], known)
    return wrong


def _merge(target: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        else:
            target[name] = copy.deepcopy(value)


def _as_documented(kind: Any, document: dict[str, Any]) -> dict[str, Any]:
    wrong = models.problems(kind, document)
    assert not wrong, wrong
    return document


def _detail(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"detail": {"status": code, "message": message}})


def _refused(wrong: list[models.Problem]) -> Reply:
    return Reply(422, {"detail": [{"loc": place, "msg": words, "type": "value_error"} for place, words in wrong]})
