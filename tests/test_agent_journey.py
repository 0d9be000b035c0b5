"""From `make run` to a connected agent, whose tools are then called from the definitions that ElevenLabs stored."""

import asyncio
import json
import secrets
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import second_opinion
from tests.support.elevenlabs_workspace import FakeWorkspace, PhoneCall
from tests.support.up import environment, manage, running_up
from tests.support.vendors import FakeTwilio
from tests.support.waiting import PATIENCE_SECONDS

AGENT, ADDRESS = "agent_01", "https://relay.example"
CONVERSATION = "conv_8f3d1b9c2e7a4f0b9a4d2c1e6e2f8c01"


@dataclass
class Desk:
    """A running relay whose organization has an ElevenLabs workspace with one agent on a Sinch trunk."""

    env: dict[str, str]
    demo: dict[str, str]
    data_dir: Path
    http: httpx.AsyncClient
    workspace: FakeWorkspace
    twilio: FakeTwilio

    async def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Run `manage.py`, without a terminal."""
        return await manage(self.env, *arguments, stdin=stdin)

    async def say(self, name: str, **words: Any) -> dict[str, Any]:
        """Have the agent call a tool in the middle of the call, as ElevenLabs would."""
        call = PhoneCall(AGENT, CONVERSATION, self.demo["contactPhone"], self.demo["organizationPhone"])
        answer = await self.workspace.call_tool(
            self.http, call, name, words, instead_of=ADDRESS, at=self.demo["apiUrl"]
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        """Ask the API as the superadmin."""
        headers = {"Authorization": f"Bearer {self.demo['superadminToken']}"}
        answer = await self.http.request(method, path, headers=headers, **options)
        assert answer.is_success, answer.text
        return answer.json()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with FakeTwilio() as twilio, FakeWorkspace() as workspace:
        workspace.add_agent(AGENT, numbers=("sip_trunk",))
        addresses = {"twilio_url": twilio.url, "elevenlabs_url": workspace.url, "public_url": ADDRESS}
        env = environment(tmp_path / "var", **addresses)
        async with running_up(env) as running:
            hooks = {"response": [second_opinion.hear]}
            base = running.demo["apiUrl"]
            async with httpx.AsyncClient(
                base_url=base, event_hooks=hooks, trust_env=False, timeout=PATIENCE_SECONDS
            ) as http:
                yield Desk(env, running.demo, running.data_dir, http, workspace, twilio)


async def test_agent_is_connected_in_one_command_and_its_call_is_one_conversation(desk: Desk) -> None:
    """Nobody copies a secret or a definition; everything that happens in the call is tied to it afterwards."""
    credentials = json.dumps(desk.twilio.credentials)
    assert (await desk.run("org", "sms", "Demo", "twilio", "--credentials", "-", stdin=credentials))[0] == 0
    saved = {
        "aiVoiceProvider": "elevenlabs",
        "elevenlabsApiKey": desk.workspace.api_key,
        "sinchEstTrunkDomain": "acme.pstn.sinch.com",
    }
    await desk.ask("POST", "/api/calls/voice-ai/config", json=saved)

    # One command, which says in a table how everything stands; another one finds nothing to do.
    planned = await desk.run("agent", "connect", AGENT, "--dry-run", "--transfer", "+14165550123")
    nothing = dict(desk.workspace.tools)
    done = await desk.run("agent", "connect", AGENT, "--transfer", "+14165550123", "--when", "Billing.")
    checked = await desk.run("agent", "check", AGENT)
    assert (planned[0], nothing) == (0, {})
    assert "make and attach" in planned[1]
    assert done[0] == checked[0] == 0, done
    assert "sip_refer to sip:+14165550123@acme.pstn.sinch.com" in done[1]
    assert "refused" not in done[1]

    # The call: greeted, helped, corrected, and put through.
    webhook = desk.workspace.agents[AGENT]["platform_settings"]["workspace_overrides"]
    pre_call = webhook["conversation_initiation_client_data_webhook"]
    greeted = await desk.http.post(
        pre_call["url"].removeprefix(ADDRESS),
        json={"caller_id": desk.demo["contactPhone"], "called_number": desk.demo["organizationPhone"]},
        headers={name: desk.workspace._header(value) for name, value in pre_call["request_headers"].items()},
    )
    note = await desk.say("create_note", note="Wants the corner unit.")
    text = await desk.say("send_sms", message="Here is the link.")
    hours = await desk.say("check_business_hours")
    available = await desk.say("check_availability")
    corrected = await desk.say("update_contact", first_name="Alexandra")
    transfer = await desk.say("transfer", reason="Wants a person.")
    reported = await report(desk)

    assert greeted.json()["dynamic_variables"]["org_name"] == "Demo"
    assert (note["success"], text["success"], corrected["success"], transfer["success"]) == (True, True, True, False)
    assert {"is_open"} <= hours.keys()
    assert {"agents_available"} <= available.keys()
    assert "connecting" in transfer["message"]
    assert [(sent["to"], sent["body"]) for sent in desk.twilio.messages] == [
        (desk.demo["contactPhone"], "Here is the link.")
    ]
    call = (await desk.ask("GET", f"/api/calls/{reported['callId']}"))["call"]
    assert [one["outcome"] for one in call["transferRequests"]] == ["connected"]
    ours = {call["_id"]}
    assert await tied(desk) == {"contact_note": ours, "message": ours, "transfer_request": ours}

    # The secret changes at ElevenLabs, in place; then the agent is taken back what it was given.
    (before,) = [dict(one) for one in desk.workspace.stored.values()]
    rotated = await desk.run("key", "tool", "Demo")
    again = await desk.say("create_note", note="After the rotation.")
    (after,) = desk.workspace.stored.values()
    gone = await desk.run("agent", "disconnect", AGENT)
    unconnected = await desk.run("agent", "check", AGENT)
    assert (rotated[0], rotated[2]) == (0, "")
    assert after["value"] == f"Bearer {rotated[1].strip()}" != before["value"]
    assert again["success"] is True
    assert gone[0] == 0
    assert (desk.workspace.tools, desk.workspace.stored) == ({}, {})
    assert unconnected[0] == 1


async def report(desk: Desk) -> dict[str, Any]:
    """Deliver the report of the call as the workspace would, with the transfer that the agent made."""
    (webhook_id,) = desk.workspace.webhooks
    result = {"status": "success", "transfer_number": "sip:+14165550123@acme.pstn.sinch.com", "reason": "", "note": ""}
    used = {"request_id": "t1", "tool_name": "transfer_to_number", "result_value": json.dumps(result)}
    turn = {"role": "agent", "message": "Connecting you.", "time_in_call_secs": 30}
    phone_call = {
        "type": "sip_trunking",
        "direction": "inbound",
        "phone_number_id": "phnum_1",
        "agent_number": desk.demo["organizationPhone"],
        "external_number": desk.demo["contactPhone"],
        "call_sid": secrets.token_hex(8),
    }
    data = {
        "agent_id": AGENT,
        "conversation_id": CONVERSATION,
        "status": "done",
        "transcript": [turn | {"tool_results": [used | {"is_error": False, "tool_has_been_called": True}]}],
        "metadata": {"start_time_unix_secs": 1_796_117_400, "call_duration_secs": 60, "phone_call": phone_call},
        "analysis": {"call_successful": "success", "transcript_summary": "Wants the corner unit."},
    }
    document = {"type": "post_call_transcription", "event_timestamp": 1_796_117_460, "data": data}
    callback = desk.workspace.delivery(webhook_id, document)
    answer = await desk.http.post(
        callback.url.removeprefix(ADDRESS), content=callback.body, headers=dict(callback.headers)
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def tied(desk: Desk) -> dict[str, set[str]]:
    """Return which calls the notes, texts and requests of the tools belong to."""

    def look() -> dict[str, set[str]]:
        database = sqlite3.connect(desk.data_dir / "relay.db")
        try:
            found = {}
            for table in ("contact_note", "message", "transfer_request"):
                query = f"SELECT call_id FROM {table} WHERE elevenlabs_conversation_id = ?"
                found[table] = {row[0] for row in database.execute(query, (CONVERSATION,))}
            return found
        finally:
            database.close()

    return await asyncio.to_thread(look)


async def test_definitions_to_paste_are_those_that_connecting_makes(desk: Desk) -> None:
    """Whoever does not give us their key gets the same values, from the same contract."""
    await desk.ask("POST", "/api/calls/voice-ai/config", json={"elevenlabsApiKey": desk.workspace.api_key})
    status, printed, errors = await desk.run("agent", "show", "--json")
    connected = await desk.run("agent", "connect", AGENT)
    (secret_id,) = desk.workspace.stored
    shown = {tool["name"]: tool for tool in json.loads(printed)["tools"]}
    table = await desk.run("agent", "show")

    assert (status, errors) == (0, "")
    assert connected[0] == 1
    assert "set aiVoiceProvider to elevenlabs" in connected[1]
    for stored in desk.workspace.tools.values():
        pasted = shown[stored["name"]]
        pasted["api_schema"]["request_headers"]["Authorization"] = {"secret_id": secret_id}
        assert pasted.items() <= (stored | {"api_schema": pasted["api_schema"]}).items()
        assert pasted["api_schema"].items() <= stored["api_schema"].items()
    assert "system__caller_id" in table[1]
    assert f"{ADDRESS}/api/webhook/elevenlabs/tools/create-note" in table[1]
