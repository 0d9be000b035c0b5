"""Connecting a voice agent: what is made, attached and left alone, what drifts, and what every lost answer leads to."""

import asyncio
import contextlib
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from actions import administer
from actions.agent_secret import resume_secret_writes, rotate_old_secrets, workspace_of
from actions.connect_agent import Wish, check_agent, connect_agent, disconnect_agent
from actions.set_up_demo import Demo
from domain.agents import PartState
from domain.audit import COMMAND_LINE
from domain.errors import InvalidRequest, NotFound
from domain.times import later
from persistence import agents, users, voice_ai_configs
from persistence.models import AgentWorkspace, AuditEntry, ToolSecret
from tests.support.api import Api, running_api
from tests.support.elevenlabs_workspace import FakeWorkspace, PhoneCall
from tests.support.faulty_http import Fault, Reply
from tests.support.reading import get
from tests.support.waiting import patience

AGENT = "agent_01"
ADDRESS = "https://relay.example"
NAMES = ["check_availability", "check_business_hours", "create_note", "send_sms", "transfer", "update_contact"]
CONVERSATION = "conv_8f3d1b9c2e7a4f0b9a4d2c1e6e2f8c01"


@pytest.fixture
async def workspace() -> AsyncIterator[FakeWorkspace]:
    async with FakeWorkspace() as workspace:
        workspace.add_agent()
        yield workspace


@pytest.fixture
async def relay(tmp_path: Path, workspace: FakeWorkspace) -> AsyncIterator[Api]:
    settings = {"elevenlabs_url": workspace.url, "elevenlabs_timeout_seconds": 20}
    async with running_api(tmp_path / "var", **settings) as api:
        saved = {"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": workspace.api_key}
        assert (await api.configure(saved)).status_code == 200
        yield api


async def connect(api: Api, agent_id: str = AGENT, **wish: Any) -> dict[str, Any]:
    response = await api.post(f"/api/calls/voice-ai/agents/{agent_id}/connect", wish, api.superadmin_token)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def refusal(api: Api, agent_id: str = AGENT, **wish: Any) -> tuple[int, str]:
    response = await api.post(f"/api/calls/voice-ai/agents/{agent_id}/connect", wish, api.superadmin_token)
    error = response.json()["error"]
    return response.status_code, error if isinstance(error, str) else error["message"]


def states(told: dict[str, Any]) -> dict[str, str]:
    return {f"{part['kind']} {part['name']}".strip(): part["state"] for part in told["connection"]["parts"]}


def of_kind(told: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [part for part in told["connection"]["parts"] if part["kind"] == kind]


def writes(workspace: FakeWorkspace) -> list[str]:
    return [f"{one.method} {one.path}" for one in workspace.requests if one.method != "GET"]


def attached(workspace: FakeWorkspace) -> list[str]:
    return [workspace.tools[tool_id]["name"] for tool_id in workspace.prompt()["tool_ids"]]


def call_of(demo: Demo, agent_id: str = AGENT, **facts: Any) -> PhoneCall:
    known = {"caller_id": demo.contact_phone, "called_number": demo.organization_phone}
    return PhoneCall(**({"agent_id": agent_id, "conversation_id": CONVERSATION} | known | facts))


async def said(api: Api, workspace: FakeWorkspace, name: str, **words: Any) -> httpx.Response:
    """Have the agent call one of its tools as ElevenLabs would."""
    call = call_of(api.demo)
    return await workspace.call_tool(api.http, call, name, words, instead_of=ADDRESS, at=api.url)


async def test_connect_makes_every_tool_with_its_secret_and_attaches_it(relay: Api, workspace: FakeWorkspace) -> None:
    """Nobody has seen the secret: it is made, stored here as a digest, and written there as the whole header."""
    theirs = workspace.add_tool("book_table")
    workspace.prompt()["tool_ids"].append(theirs)
    told = await connect(relay)
    (tool_id,) = workspace.named("send_sms")
    config = workspace.tools[tool_id]
    (secret,) = workspace.stored.values()

    assert told["success"] is True, told
    assert set(states(told).values()) == {"ok"}
    assert attached(workspace)[0] == "book_table"
    assert sorted(attached(workspace)[1:]) == NAMES
    assert config["api_schema"]["url"] == f"{ADDRESS}/api/webhook/elevenlabs/tools/send-sms"
    assert config["interruption_mode"] == "disable_during_tool"
    properties = config["api_schema"]["request_body_schema"]["properties"]
    sources = {name: one.get("dynamic_variable", "model") for name, one in properties.items()}
    assert sources == {
        "phone_number": "system__caller_id",
        "message": "model",
        "called_number": "system__called_number",
        "conversation_id": "system__conversation_id",
    }
    assert secret["value"].startswith("Bearer ")
    assert secret["value"].removeprefix("Bearer ") not in str(told)
    assert workspace.prompt()["prompt"] == "Be kind."


async def test_connected_tools_work_as_elevenlabs_calls_them(relay: Api, workspace: FakeWorkspace) -> None:
    """Who calls comes from the call, whatever the model says; the secret that people know goes on working."""
    await connect(relay)
    note = await said(relay, workspace, "create_note", note="Wants the corner unit.")
    text = await said(relay, workspace, "send_sms", message="Here is the link.")
    transfer = await said(relay, workspace, "transfer", reason="Wants a person.")
    hours = await said(relay, workspace, "check_business_hours")
    available = await said(relay, workspace, "check_availability")
    corrected = await said(relay, workspace, "update_contact", first_name="Alex", last_name="Morgan")
    by_hand = await relay.tool("create-note", {"phone_number": relay.demo.contact_phone, "note": "By hand."})

    assert [one.json()["success"] for one in (note, text, transfer, by_hand)] == [True, True, False, True]
    assert corrected.json() == {**corrected.json(), "success": True}
    assert "is_open" in hours.json()
    assert "agents_available" in available.json()
    with pytest.raises(AssertionError, match="phone_number"):
        await said(relay, workspace, "create_note", note="x", phone_number="+14165550199")


async def test_connecting_twice_changes_nothing(relay: Api, workspace: FakeWorkspace) -> None:
    """Neither at ElevenLabs nor here; a dry run says so before and after."""
    planned = await connect(relay, dryRun=True)
    before = writes(workspace)
    first = await connect(relay)
    after, tools, audited = writes(workspace), copy.deepcopy(workspace.tools), await entries(relay)
    again, planned_again = await connect(relay), await connect(relay, dryRun=True)

    assert [part["change"] for part in of_kind(planned, "tool")] == ["make and attach"] * len(NAMES)
    assert not any("tools" in one or "agents" in one for one in before)
    assert (first["success"], again["success"], planned_again["success"]) == (True, True, True)
    assert writes(workspace) == after
    assert workspace.tools == tools
    assert await entries(relay) == audited == 1
    assert {part["change"] for part in planned_again["connection"]["parts"]} == {""}


async def entries(api: Api, action: str = "agent.connected") -> int:
    return int(await api.read(lambda: AuditEntry.select().where(AuditEntry.action == action).count()))


async def test_two_connects_at_once_make_every_tool_once(relay: Api, workspace: FakeWorkspace) -> None:
    """The second one is told to come back, and then finds everything done."""
    workspace.behave(Fault.HANG_AFTER_PROCESSING, on="/v1/convai/secrets")
    first = asyncio.create_task(connect(relay))
    asked = len(workspace.requests)
    await workspace.until_received(asked + 1)
    status, _ = await refusal(relay)
    workspace.release()
    told = await first

    assert status == 503
    assert told["success"] is True
    assert sorted(tool["name"] for tool in workspace.tools.values()) == NAMES
    assert (await connect(relay))["success"] is True


async def test_agent_with_another_tool_of_the_same_name_is_told_which(relay: Api, workspace: FakeWorkspace) -> None:
    """It was made by hand; the model could not tell the two apart, so nothing is attached beside it."""
    theirs = workspace.add_tool("send_sms", f"{ADDRESS}/api/webhook/elevenlabs/tools/send-sms")
    workspace.prompt()["tool_ids"].append(theirs)
    told = await connect(relay)
    tools = dict(workspace.tools)
    workspace.prompt()["tool_ids"].remove(theirs)

    assert states(told)["tool send_sms"] == "refused"
    assert f"another tool send_sms, {theirs}" in told["connection"]["problem"]
    assert list(tools) == [theirs]
    assert (await connect(relay))["success"] is True


async def test_check_says_what_drifted_and_connect_repairs_it(relay: Api, workspace: FakeWorkspace) -> None:
    """A changed address, a field that somebody added, a tool that was taken away and one that was removed."""
    await connect(relay)
    (note,), (text,), (transfer,) = (workspace.named(name) for name in ("create_note", "send_sms", "transfer"))
    changed = workspace.tools[note]["api_schema"]["request_body_schema"]["properties"]
    changed["phone_number"] = {"type": "string", "description": "Ask the caller for it."}
    workspace.prompt()["tool_ids"].remove(text)
    workspace.prompt()["tool_ids"].remove(transfer)
    del workspace.tools[transfer]
    found = await check_agent(relay.relay, relay.organization_id, AGENT)
    repaired = await connect(relay)

    assert {part.name: part.state for part in found.parts if part.state is not PartState.OK} == {
        "create_note": PartState.DRIFTED,
        "send_sms": PartState.MISSING,
        "transfer": PartState.MISSING,
    }
    assert not found.is_whole
    assert repaired["success"] is True
    assert workspace.named("create_note") == [note]
    assert (
        "dynamic_variable" in workspace.tools[note]["api_schema"]["request_body_schema"]["properties"]["phone_number"]
    )


async def test_field_that_was_added_at_elevenlabs_is_drift(relay: Api, workspace: FakeWorkspace) -> None:
    """What is sent is no longer what the contract says, even if everything of ours is still there."""
    await connect(relay)
    (note,) = workspace.named("create_note")
    properties = workspace.tools[note]["api_schema"]["request_body_schema"]["properties"]
    properties["mood"] = {"type": "string", "description": "The caller's mood."}
    (part,) = [
        part
        for part in (await check_agent(relay.relay, relay.organization_id, AGENT)).parts
        if part.name == "create_note"
    ]

    assert part.state is PartState.DRIFTED


async def test_disconnect_takes_what_is_ours_and_no_more(relay: Api, workspace: FakeWorkspace) -> None:
    """Another agent of the workspace keeps the tools and the secret; with the last one everything goes."""
    theirs = workspace.add_tool("book_table")
    workspace.prompt()["tool_ids"].append(theirs)
    workspace.add_agent("agent_02")
    await connect(relay, transfers=[{"to": "sip:desk@pbx.example"}])
    await connect(relay, "agent_02")
    await disconnect_agent(relay.relay, relay.organization_id, AGENT, COMMAND_LINE)
    between = (attached(workspace), len(workspace.tools), len(workspace.stored), workspace.prompt()["built_in_tools"])
    note = await workspace.call_tool(
        relay.http,
        call_of(relay.demo, "agent_02"),
        "create_note",
        {"note": "x"},
        instead_of=ADDRESS,
        at=relay.url,
    )
    await disconnect_agent(relay.relay, relay.organization_id, "agent_02", COMMAND_LINE)

    assert between == (["book_table"], len(NAMES) + 1, 1, {"transfer_to_number": None})
    assert note.json()["success"] is True
    assert (list(workspace.tools), workspace.stored) == ([theirs], {})
    assert await relay.read(lambda: agents.tools(relay.organization_id)) == {}
    assert (await connect(relay))["success"] is True


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "place", ["/v1/convai/secrets", "/v1/convai/tools", "/v1/convai/agents", "/v1/convai/settings"]
)
@pytest.mark.parametrize("fault", [Fault.RESET_AFTER_READING, Fault.RESET_AFTER_PROCESSING, Fault.RESET_INSIDE_BODY])
async def test_lost_answer_at_any_step_never_makes_a_second_one(
    relay: Api, workspace: FakeWorkspace, place: str, fault: Fault
) -> None:
    """Whatever the first run comes to, a second one ends with one of each, attached."""
    for number in range(1, 9):
        with failing(workspace, place, fault, number) as failed:
            await relay.post(f"/api/calls/voice-ai/agents/{AGENT}/connect", {}, relay.superadmin_token)
        told = await connect(relay)

        assert told["success"] is True, told
        assert sorted(tool["name"] for tool in workspace.tools.values()) == NAMES
        assert sorted(attached(workspace)) == NAMES
        assert len(workspace.stored) == 1
        await disconnect_agent(relay.relay, relay.organization_id, AGENT, COMMAND_LINE)
        if not failed:
            break  # so many requests to this place there are not
    assert number > 1


@contextlib.contextmanager
def failing(workspace: FakeWorkspace, place: str, fault: Fault, number: int) -> Iterator[list[str]]:
    """Have the request of that number to `place` fail, and those before and after it succeed; yield what failed."""
    ordinary, seen = workspace._step, itertools.count(1)
    failed: list[str] = []

    def step(target: str, *, at_connection: bool) -> Any:
        is_it = not at_connection and place in target and next(seen) == number
        if is_it:
            failed.append(target)
        return fault if is_it else ordinary(target, at_connection=at_connection)

    with mock.patch.object(workspace, "_step", step):
        yield failed


@pytest.mark.parametrize("fault", [Fault.HANG_AFTER_READING, Fault.HANG_AFTER_PROCESSING])
async def test_tool_whose_making_is_never_answered_is_made_once(
    relay: Api, workspace: FakeWorkspace, move_on: Callable[[float], None], fault: Fault
) -> None:
    """The time limit ends the wait; whether the tool is there shows when the relay looks."""
    ordinary, hung = workspace._step, asyncio.Event()

    def step(target: str, *, at_connection: bool) -> Any:
        if target != "/v1/convai/tools" or hung.is_set():
            return ordinary(target, at_connection=at_connection)
        hung.set()
        return fault

    with mock.patch.object(workspace, "_step", step):
        connecting = asyncio.create_task(connect(relay))
        async with patience():
            await hung.wait()
        move_on(21)
        first = await connecting
    workspace.release()
    again = await connect(relay)

    assert first["success"] is (fault is Fault.HANG_AFTER_PROCESSING)
    assert again["success"] is True
    assert sorted(tool["name"] for tool in workspace.tools.values()) == NAMES


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(401, {"detail": {"status": "invalid_api_key", "message": "Invalid API key"}}), "rights"),
        (Reply(429, {"detail": {"status": "too_many_concurrent_requests", "message": "Slow down"}}), "Run the command"),
        (Reply(500, body=b"oops"), "Run the command"),
        (Reply(200, body=b"<html>garbage"), "not changed as asked"),
        (Reply(422, {"detail": [{"loc": ["body", "x"], "msg": "Too many tools", "type": "limit"}]}), "Too many tools"),
    ],
    ids=["401", "429", "500", "garbage", "422"],
)
async def test_refused_agent_leaves_no_tool_behind(
    relay: Api, workspace: FakeWorkspace, reply: Reply, words: str
) -> None:
    """The tools that were made for it are removed again, and one sentence says what to do."""
    patched: list[Reply] = []
    ordinary = workspace._of_agents

    def refuse(request: Any, agent_id: str) -> Reply:
        if request.method == "PATCH":
            patched.append(reply)
            return reply
        return ordinary(request, agent_id)

    workspace._of_agents = refuse  # type: ignore[method-assign]
    told = await connect(relay)
    left = dict(workspace.tools)
    workspace._of_agents = ordinary  # type: ignore[method-assign]

    assert (told["success"], len(patched), left) == (False, 1, {})
    assert words in told["connection"]["problem"]
    assert "made the tool create_note" in told["connection"]["problem"]
    assert "refused" in states(told).values()
    assert await relay.read(lambda: agents.tools(relay.organization_id)) == {}
    assert (await connect(relay))["success"] is True


async def test_tools_that_cannot_be_removed_again_are_listed_and_used_next_time(
    relay: Api, workspace: FakeWorkspace
) -> None:
    """They stay at ElevenLabs; the next connect attaches them and makes none."""
    workspace.takes_agents = False
    ordinary = workspace._of_one_tool

    def keep(request: Any, tool_id: str) -> Reply:
        return Reply(500) if request.method == "DELETE" else ordinary(request, tool_id)

    workspace._of_one_tool = keep  # type: ignore[method-assign]
    told = await connect(relay)
    listed = told["connection"]["leftBehind"]
    workspace.takes_agents = True
    again = await connect(relay)

    assert sorted(listed) == sorted(workspace.tools)
    assert "The new tools stay" in told["connection"]["problem"]
    assert again["success"] is True
    assert workspace.prompt()["tool_ids"] == listed


async def test_change_that_did_not_take_is_an_error_with_words(relay: Api, workspace: FakeWorkspace) -> None:
    """ElevenLabs answered 200; the agent is read again and is what counts."""
    workspace.takes_agents = False
    told = await connect(relay)

    assert told["success"] is False
    assert "not changed as asked: it lacks create_note" in told["connection"]["problem"]
    assert workspace.tools == {}


async def test_workspace_at_its_limit_says_so_and_keeps_nothing_half_done(relay: Api, workspace: FakeWorkspace) -> None:
    """The third tool is refused with a list of problems; the first two go again."""
    workspace.most_tools = 2
    told = await connect(relay)

    assert "reached its limit of 2 tools" in told["connection"]["problem"]
    assert (workspace.tools, workspace.prompt()["tool_ids"]) == ({}, [])
    assert [part["state"] for part in of_kind(told, "tool")] == ["missing", "missing", "refused"] + ["missing"] * 3


async def test_key_without_rights_is_told_apart_from_an_unknown_agent(relay: Api, workspace: FakeWorkspace) -> None:
    """403 for what the key may not do, 404 for an agent that is not there; both in one sentence."""
    unknown = await refusal(relay, "agent_99")
    workspace.rights.remove("agents")
    forbidden = await refusal(relay)
    workspace.rights = {"agents", "settings", "tools"}
    told = await connect(relay)

    assert unknown == (404, "The ElevenLabs workspace has no agent agent_99")
    assert forbidden[0] == 400
    assert "lacks the permission convai_agents" in forbidden[1]
    assert "lacks the permission convai_secrets" in told["connection"]["problem"]
    assert "Give the ElevenLabs API key the rights" in told["connection"]["problem"]
    assert workspace.tools == {}


async def test_agent_on_another_branch_is_not_touched(relay: Api, workspace: FakeWorkspace) -> None:
    """A change would land on the main branch, where nobody expects it."""
    workspace.agents[AGENT]["branch_id"] = "branch_try"
    before = writes(workspace)

    assert await refusal(relay) == (
        400,
        (
            "The agent is on the branch branch_try, not on its main branch branch_main; "
            "merge the branch at ElevenLabs first"
        ),
    )
    assert writes(workspace) == before


async def test_user_who_is_no_superadmin_connects_nothing(relay: Api, workspace: FakeWorkspace) -> None:
    """The answer is the documented 401, as for the configuration."""
    admin = {"email": "admin@example.com", "full_name": "Admin", "password_hash": "", "role": "admin"}
    person = await relay.relay.database.write(lambda: users.add(relay.organization_id, **admin))
    token = relay.relay.tokens.issue(person.id, person.token_version, 3600)
    response = await relay.post(f"/api/calls/voice-ai/agents/{AGENT}/connect", {}, token)

    assert response.status_code == 401
    assert workspace.tools == {}


async def test_relay_without_https_address_says_what_to_set(tmp_path: Path, workspace: FakeWorkspace) -> None:
    """Nothing is asked of ElevenLabs."""
    async with running_api(tmp_path / "http", elevenlabs_url=workspace.url, public_url="http://relay.example") as api:
        await api.configure({"elevenlabsApiKey": workspace.api_key})
        asked = len(workspace.requests)
        status, words = await refusal(api)

    assert (status, len(workspace.requests)) == (400, asked)
    assert "set PUBLIC_URL" in words


async def test_organization_without_key_says_what_to_save(api: Api) -> None:
    """The sentence names the field and where to save it."""
    status, words = await refusal(api)

    assert status == 400
    assert "elevenlabsApiKey" in words


async def test_tools_of_another_organization_in_one_workspace_are_left_alone(
    relay: Api, workspace: FakeWorkspace
) -> None:
    """Both have tools of the same names and addresses, each with a secret of its own."""
    await connect(relay)
    ours = dict(workspace.tools)
    other = await administer.create_organization(relay.relay, "Other", "CA")
    object.__setattr__(relay, "organization_id", other.id)
    key = relay.relay.vault.seal(workspace.api_key)
    await relay.relay.database.write(
        lambda: voice_ai_configs.update(other.id, {"elevenlabs_api_key_sealed": key, "ai_voice_provider": "elevenlabs"})
    )
    workspace.add_agent("agent_02")
    connection = await connect_agent(relay.relay, other.id, "agent_02", Wish(), COMMAND_LINE)

    assert len(workspace.tools) == 2 * len(ours)
    assert {tool_id: workspace.tools[tool_id] for tool_id in ours} == ours
    assert len(workspace.stored) == 2
    assert [part.state for part in connection.parts if part.kind == "tool"] == [PartState.OK] * len(NAMES)


# The webhooks before and after a call


async def test_connect_sees_to_the_post_call_webhook(relay: Api, workspace: FakeWorkspace) -> None:
    """It was pointed elsewhere meanwhile; connecting points it back, and says what it did."""
    workspace.settings["webhooks"]["post_call_webhook_id"] = workspace.add_webhook("https://elsewhere.example/")
    found = await check_agent(relay.relay, relay.organization_id, AGENT)
    told = await connect(relay)
    shown = (await get(relay, "/api/calls/voice-ai/config")).json()["config"]["webhook"]

    assert [part.state for part in found.parts if part.kind == "post-call"] == [PartState.DRIFTED]
    assert of_kind(told, "post-call")[0]["state"] == "ok"
    assert of_kind(told, "post-call")[0]["change"] == "set up again"
    assert workspace.settings["webhooks"]["post_call_webhook_id"] == shown["webhookId"]


async def test_agent_with_a_post_call_webhook_of_its_own_is_told(relay: Api, workspace: FakeWorkspace) -> None:
    """The override is the owner's; the table says which one it is."""
    workspace.agents[AGENT]["platform_settings"]["workspace_overrides"]["webhooks"] = {"post_call_webhook_id": "wh_x"}
    told = await connect(relay)

    assert of_kind(told, "post-call")[0]["state"] == "drifted"
    assert "wh_x" in of_kind(told, "post-call")[0]["detail"]
    assert told["success"] is False
    assert sorted(attached(workspace)) == NAMES


async def test_connect_has_the_agent_ask_before_a_call(relay: Api, workspace: FakeWorkspace) -> None:
    """Address and secret are the agent's own setting, so other agents of the workspace ask nobody new."""
    told = await connect(relay)
    settings = workspace.agents[AGENT]["platform_settings"]
    webhook = settings["workspace_overrides"]["conversation_initiation_client_data_webhook"]
    headers = {name: workspace._header(value) for name, value in webhook["request_headers"].items()}
    asked = {
        "caller_id": relay.demo.contact_phone,
        "agent_id": AGENT,
        "called_number": "+12362320246",
        "call_sid": "CA1",
    }
    answer = await relay.http.post(webhook["url"].replace(ADDRESS, relay.url), json=asked, headers=headers)

    assert of_kind(told, "pre-call")[0]["state"] == "ok"
    assert settings["overrides"]["enable_conversation_initiation_client_data_from_webhook"] is True
    assert workspace.settings["conversation_initiation_client_data_webhook"] is None
    assert (answer.status_code, answer.json()["type"]) == (200, "conversation_initiation_client_data")
    await disconnect_agent(relay.relay, relay.organization_id, AGENT, COMMAND_LINE)
    assert settings["workspace_overrides"]["conversation_initiation_client_data_webhook"] is None
    assert settings["overrides"]["enable_conversation_initiation_client_data_from_webhook"] is False


@pytest.mark.parametrize("place", ["agent", "workspace"])
async def test_webhook_before_a_call_that_is_not_ours_is_left_alone(
    relay: Api, workspace: FakeWorkspace, place: str
) -> None:
    """The table says whose it is; the tools are connected all the same."""
    theirs = {"url": "https://crm.example/greet", "request_headers": {}}
    settings = workspace.agents[AGENT]["platform_settings"]
    settings["overrides"]["enable_conversation_initiation_client_data_from_webhook"] = True
    if place == "agent":
        settings["workspace_overrides"]["conversation_initiation_client_data_webhook"] = theirs
    else:
        workspace.settings["conversation_initiation_client_data_webhook"] = theirs
    before = copy.deepcopy(settings)
    told = await connect(relay)

    assert of_kind(told, "pre-call")[0]["state"] == "refused"
    assert "crm.example" in of_kind(told, "pre-call")[0]["detail"]
    assert settings == before
    assert sorted(attached(workspace)) == NAMES


# Rotating the secret


async def test_rotation_during_calls_refuses_none(relay: Api, workspace: FakeWorkspace) -> None:
    """Twenty calls use their tools while the secret changes at ElevenLabs, in place."""
    await connect(relay)
    tools, (secret_id,) = copy.deepcopy(workspace.tools), workspace.stored
    workspace.behave(Fault.HANG_AFTER_PROCESSING, on=f"/secrets/{secret_id}")
    asked = len(workspace.requests)
    answers: list[httpx.Response] = []

    async def talk(number: int) -> None:
        call = call_of(relay.demo, conversation_id=f"conv_{number}")
        for turn in range(6):
            words = {"note": f"Note {turn} of call {number}."}
            answers.append(
                await workspace.call_tool(relay.http, call, "create_note", words, instead_of=ADDRESS, at=relay.url)
            )
            if turn == 2:
                await half_way.wait()

    half_way = asyncio.Barrier(21)
    talking = [asyncio.create_task(talk(number)) for number in range(20)]
    rotating = asyncio.create_task(administer.new_tool_secret(relay.relay, relay.organization_id))
    await workspace.until_received(asked + 2)
    async with patience():
        await half_way.wait()
    workspace.release()
    fresh = await rotating
    await asyncio.gather(*talking)

    assert [answer.status_code for answer in answers] == [200] * 120
    assert all(answer.json()["success"] for answer in answers)
    assert workspace.tools == tools
    assert workspace.stored[secret_id]["value"] == f"Bearer {fresh.get_secret_value()}"


async def living(api: Api) -> list[str | None]:
    kept = await administer.list_tool_secrets(api.relay, api.organization_id)
    return [one.expires_at for one in sorted(kept, key=lambda one: one.id)]


async def test_old_secret_runs_out_once_elevenlabs_has_the_new_one(relay: Api, workspace: FakeWorkspace) -> None:
    """Generating one over the API writes it there; the ones before it get their end only then."""
    await connect(relay)
    before = await living(relay)
    generated = (await relay.configure({"generateToolSecret": True})).json()["elevenlabsToolSecret"]
    after = await living(relay)
    (stored,) = workspace.stored.values()
    shown = (await get(relay, "/api/calls/voice-ai/config")).json()["config"]["toolSecret"]

    assert before == [None, None]
    assert [end is None for end in after] == [False, False, True]
    assert stored["value"] == f"Bearer {generated}"
    assert (shown["status"], shown["lastError"]) == ("stored", None)


async def test_old_secret_lives_on_while_elevenlabs_cannot_be_reached(relay: Api, workspace: FakeWorkspace) -> None:
    """The configuration says so; once it is reached again, housekeeping writes the newest secret."""
    await connect(relay)
    workspace.behave(Fault.RESET_BEFORE_READING, always=True)
    await reset_connections(relay)
    fresh = await administer.new_tool_secret(relay.relay, relay.organization_id)
    problem = await administer.tool_secret_problem(relay.relay, relay.organization_id)
    shown = (await get(relay, "/api/calls/voice-ai/config")).json()["config"]["toolSecret"]
    ends = await living(relay)
    workspace.behave()
    note = await said(relay, workspace, "create_note", note="x")
    waiting = await resume_secret_writes(relay.relay)
    await relay.relay.database.write(lambda: AgentWorkspace.update(claimed_until=later(-1)).execute())
    resumed = await resume_secret_writes(relay.relay)
    (stored,) = workspace.stored.values()

    assert shown["status"] == "pending"
    assert problem
    assert shown["lastError"] == problem
    assert ends == [None, None, None]
    assert note.json()["success"] is True
    assert (waiting, resumed) == (0, 1)
    assert stored["value"] == f"Bearer {fresh.get_secret_value()}"
    assert [end is None for end in await living(relay)] == [False, False, True]
    assert await administer.tool_secret_problem(relay.relay, relay.organization_id) is None


async def reset_connections(api: Api) -> None:
    """Have the next request to ElevenLabs open a connection of its own."""
    vendor = await workspace_of(api.relay, api.organization_id)
    pool = vendor._workspace._http._transport._pool  # type: ignore[attr-defined]
    for connection in list(pool.connections):
        await connection.aclose()


async def test_refused_secret_is_not_tried_for_ever(relay: Api, workspace: FakeWorkspace) -> None:
    """The key lost its rights: the old secret works, the configuration says failed, and connecting mends it."""
    await connect(relay)
    workspace.rights.remove("secrets")
    await administer.new_tool_secret(relay.relay, relay.organization_id)
    shown = (await get(relay, "/api/calls/voice-ai/config")).json()["config"]["toolSecret"]
    resumed = await resume_secret_writes(relay.relay)
    note = await said(relay, workspace, "create_note", note="x")
    workspace.rights.add("secrets")
    told = await connect(relay)

    assert (shown["status"], resumed) == ("failed", 0)
    assert "convai_secrets" in shown["lastError"]
    assert note.json()["success"] is True
    assert told["success"] is True
    assert of_kind(told, "secret")[0]["change"] == "change"
    assert [end is None for end in await living(relay)] == [False, False, True]


async def test_error_that_quotes_the_secret_is_not_passed_on(relay: Api, workspace: FakeWorkspace) -> None:
    """Neither to the table nor to the configuration; the status is said all the same."""

    def quote(request: Any, secret_id: str) -> Reply:
        value = request.document["value"] if request.body else ""
        words = {"loc": ["body", "value"], "msg": f"Not a good value: {value}", "type": "value_error"}
        return Reply(422, {"detail": [words]}) if value else ordinary(request, secret_id)

    ordinary = workspace._of_secrets
    with mock.patch.object(workspace, "_of_secrets", quote):
        told = await connect(relay)

    assert "answered 422" in told["connection"]["problem"]
    assert "Bearer" not in str(told)
    assert (await connect(relay))["success"] is True


async def test_failed_rotation_on_schedule_is_not_repeated_every_round(relay: Api, workspace: FakeWorkspace) -> None:
    """A secret that waits for ElevenLabs is reason enough not to make another one."""
    await connect(relay)
    object.__setattr__(relay.relay, "rules", _with(relay.relay.rules, tool_secret_rotation=3600))
    await relay.relay.database.write(lambda: AgentWorkspace.update(secret_stored_at=later(-7200)).execute())
    workspace.rights.remove("secrets")

    assert [await rotate_old_secrets(relay.relay) for _ in range(3)] == [1, 0, 0]


async def test_rotations_that_elevenlabs_never_takes_come_to_an_end(relay: Api, workspace: FakeWorkspace) -> None:
    """Every secret that may be in use works, so there is a limit to how many are made."""
    await connect(relay)
    workspace.rights.remove("secrets")
    for _ in range(8):
        await administer.new_tool_secret(relay.relay, relay.organization_id)
    with pytest.raises(InvalidRequest, match="has not taken"):
        await administer.new_tool_secret(relay.relay, relay.organization_id)

    assert await relay.read(lambda: ToolSecret.select().count()) == 10
    assert (await said(relay, workspace, "create_note", note="x")).json()["success"] is True


async def test_secrets_are_rotated_on_schedule(relay: Api, workspace: FakeWorkspace) -> None:
    """One that was written long enough ago is replaced; a secret that only people know is left alone."""
    await connect(relay)
    object.__setattr__(relay.relay, "rules", _with(relay.relay.rules, tool_secret_rotation=3600))
    young = await rotate_old_secrets(relay.relay)
    await relay.relay.database.write(lambda: AgentWorkspace.update(secret_stored_at=later(-7200)).execute())
    other = await administer.create_organization(relay.relay, "By hand", "CA")
    await administer.new_tool_secret(relay.relay, other.id)
    old = await rotate_old_secrets(relay.relay)

    assert (young, old, await rotate_old_secrets(relay.relay)) == (0, 1, 0)
    assert len(set(workspace.values_seen)) == 2
    assert len(await administer.list_tool_secrets(relay.relay, other.id)) == 1
    assert (await said(relay, workspace, "create_note", note="x")).json()["success"] is True


def _with(rules: Any, **changes: Any) -> Any:
    return replace(rules, **changes)


# Transfers


async def test_transfer_on_a_trunk_refers_to_the_trunks_own_domain(relay: Api, workspace: FakeWorkspace) -> None:
    """The number becomes a user of `sinchEstTrunkDomain`, and our conversation id travels in a header."""
    await relay.configure({"sinchEstTrunkDomain": "acme.pstn.sinch.com"})
    workspace.agents[AGENT]["phone_numbers"] = [workspace._number("sip_trunk", 1)]
    told = await connect(
        relay, transfers=[{"to": "(416) 555-0123", "when": "Billing."}, {"to": "sip:desk@pbx.example;transport=tls"}]
    )
    tool = workspace.prompt()["built_in_tools"]["transfer_to_number"]
    first, second = tool["params"]["transfers"]

    assert told["success"] is True, told
    assert first["transfer_destination"] == {"type": "sip_uri", "sip_uri": "sip:+14165550123@acme.pstn.sinch.com"}
    assert (first["transfer_type"], first["condition"]) == ("sip_refer", "Billing.")
    assert first["custom_sip_headers"] == [
        {"type": "dynamic", "key": "X-Relay-Conversation", "value": "system__conversation_id"}
    ]
    assert second["transfer_destination"]["sip_uri"] == "sip:desk@pbx.example;transport=tls"
    assert "transfer" in tool["description"]


async def test_transfer_on_twilio_numbers_is_a_conference(relay: Api, workspace: FakeWorkspace) -> None:
    """Even when a trunk is configured: the agent's numbers decide. A SIP address cannot be reached from there."""
    await relay.configure({"sinchEstTrunkDomain": "acme.pstn.sinch.com"})
    workspace.agents[AGENT]["phone_numbers"] = [workspace._number("twilio", 1)]
    told = await connect(relay, transfers=[{"to": "+14165550123"}])
    (one,) = workspace.prompt()["built_in_tools"]["transfer_to_number"]["params"]["transfers"]

    assert told["success"] is True
    assert one["transfer_destination"] == {"type": "phone", "phone_number": "+14165550123"}
    assert (one["transfer_type"], "custom_sip_headers" in one) == ("conference", False)
    status, words = await refusal(relay, transfers=[{"to": "sip:desk@pbx.example"}])
    assert (status, "Twilio numbers" in words) == (400, True)


@pytest.mark.parametrize(
    ("provider", "destination", "how"),
    [
        ("twilio", {"type": "phone_dynamic_variable", "phone_number": "available_number"}, "conference"),
        ("sip_trunk", {"type": "sip_uri_dynamic_variable", "sip_uri": "available_sip_address"}, "sip_refer"),
    ],
)
async def test_transfer_to_whoever_is_available_names_the_variable_of_the_call(
    relay: Api, workspace: FakeWorkspace, provider: str, destination: dict[str, str], how: str
) -> None:
    """The answer to the webhook before the call has the number; connecting again changes nothing."""
    await relay.configure({"sinchEstTrunkDomain": "acme.pstn.sinch.com"})
    workspace.agents[AGENT]["phone_numbers"] = [workspace._number(provider, 1)]
    told = await connect(relay, transfers=[{"to": "available"}])
    (one,) = workspace.prompt()["built_in_tools"]["transfer_to_number"]["params"]["transfers"]
    before = writes(workspace)
    again = await connect(relay, transfers=[{"to": " Available "}])

    assert (told["success"], again["success"]) == (True, True)
    assert (one["transfer_destination"], one["transfer_type"]) == (destination, how)
    assert "check_availability" in one["condition"]
    assert writes(workspace) == before


async def test_call_is_told_the_number_of_a_person_who_is_available(relay: Api) -> None:
    """Of those who take calls and gave a number; nobody is there without a heartbeat."""
    person = {"Authorization": f"Bearer {relay.superadmin_token}"}

    async def say(**body: Any) -> dict[str, Any]:
        answer = await relay.http.put("/api/user/availability", json=body, headers=person)
        return dict(answer.json()["data"])

    async def there() -> tuple[str, str]:
        secret = {"Authorization": f"Bearer {relay.demo.tool_secret.get_secret_value()}"}
        answer = await relay.http.post("/api/webhook/elevenlabs/conversation-initiation", json={}, headers=secret)
        variables = answer.json()["dynamic_variables"]
        return variables["available_number"], variables["available_sip_address"]

    nobody = await there()
    said = await say(isAvailable=True, transferNumber="(416) 555-0111")
    number = await there()
    await relay.configure({"sinchEstTrunkDomain": "acme.pstn.sinch.com"})
    kept = await say(isAvailable=True)
    address = await there()
    await relay.configure({"sinchEstTrunkDomain": "no host name"})
    wrong = await there()
    await say(isAvailable=False)
    busy = await there()
    removed = await say(isAvailable=True, transferNumber=None)

    assert (said["transferNumber"], kept["transferNumber"], removed["transferNumber"]) == (
        "+14165550111",
        "+14165550111",
        None,
    )
    assert (nobody, busy, await there()) == (("", ""), ("", ""), ("", ""))
    assert (number, address) == (("+14165550111", ""), ("+14165550111", "sip:+14165550111@acme.pstn.sinch.com"))
    assert wrong == ("+14165550111", "")


async def test_transfers_of_the_agents_owner_stay(relay: Api, workspace: FakeWorkspace) -> None:
    """Ours are added, replaced and taken away beside them, with the description that was there."""
    own = {
        "transfer_destination": {"type": "phone", "phone_number": "+14165550777"},
        "transfer_type": "conference",
        "condition": "Emergencies.",
    }
    tool = {
        "type": "system",
        "name": "transfer_to_number",
        "description": "Mine.",
        "params": {"system_tool_type": "transfer_to_number", "transfers": [own]},
    }
    workspace.prompt()["built_in_tools"] = {"transfer_to_number": tool, "end_call": None}

    def targets() -> list[str]:
        now = workspace.prompt()["built_in_tools"]["transfer_to_number"]["params"]["transfers"]
        return [one["transfer_destination"]["phone_number"] for one in now]

    workspace.agents[AGENT]["phone_numbers"] = [workspace._number("twilio", 1)]
    first = await connect(relay, transfers=[{"to": "+14165550123"}])
    with_first = targets()
    kept = await connect(relay)
    with_kept = targets()
    await connect(relay, transfers=[{"to": "+14165550124"}])
    with_second = targets()
    await connect(relay, transfers=[])

    assert (first["success"], kept["success"]) == (True, True)
    assert with_first == with_kept == ["+14165550777", "+14165550123"]
    assert with_second == ["+14165550777", "+14165550124"]
    assert targets() == ["+14165550777"]
    assert workspace.prompt()["built_in_tools"]["transfer_to_number"]["description"] == "Mine."


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("not a number", "Not a phone number"),
        ("sip:desk", "is not a SIP address"),
        ("sip:desk@pbx.example>;x", "is not a SIP address"),
        ("sip:desk@pbx.example\r\nVia: x", "is not a SIP address"),
    ],
)
async def test_transfer_to_what_is_no_address_is_refused(
    relay: Api, workspace: FakeWorkspace, to: str, words: str
) -> None:
    """Before anything is made."""
    status, told = await refusal(relay, transfers=[{"to": to}])

    assert (status, words in told) == (400, True)
    assert workspace.tools == {}


async def test_transfer_tool_says_what_is_set_once_there_is_a_real_transfer(
    relay: Api, workspace: FakeWorkspace
) -> None:
    """Without one it answers as published; the organization's own text takes its place, and goes with it."""

    async def answered() -> str:
        return str((await said(relay, workspace, "transfer", reason=f"Try {next(tries)}")).json()["message"])

    tries = iter(range(100))
    await connect(relay)
    published = await answered()
    await connect(relay, transfers=[{"to": "sip:desk@pbx.example"}])
    default = await answered()
    await connect(relay, transferText="One moment, I am putting you through.")
    own = await answered()
    await connect(relay, transfers=[])

    assert "not yet implemented" in published
    assert "connecting" in default
    assert own == "One moment, I am putting you through."
    assert await answered() == published


async def test_unknown_agent_cannot_be_disconnected(relay: Api) -> None:
    """One that was connected and is gone can: what was made for it goes."""
    with pytest.raises(NotFound):
        await disconnect_agent(relay.relay, relay.organization_id, "agent_99", COMMAND_LINE)


async def test_agent_that_is_gone_takes_its_tools_with_it(relay: Api, workspace: FakeWorkspace) -> None:
    """Its owner removed it at ElevenLabs; disconnecting removes tools and secret."""
    await connect(relay)
    del workspace.agents[AGENT]
    await disconnect_agent(relay.relay, relay.organization_id, AGENT, COMMAND_LINE)

    assert (workspace.tools, workspace.stored) == ({}, {})
