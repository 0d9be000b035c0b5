"""Setting up the ElevenLabs webhook: after which save, while another save arrives, and after it was cut off."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from actions import administer, configure_voice_ai
from actions.configure_voice_ai import resume_webhook_setups
from domain.times import later
from persistence import voice_ai_configs
from persistence.models import VoiceAiConfig
from providers.elevenlabs import ElevenLabs
from tests.handlers.test_calls import provider
from tests.support.api import Api, running_api
from tests.support.faulty_http import Fault
from tests.support.reading import get
from tests.support.vendors import FakeElevenLabs
from tests.support.waiting import PATIENCE_SECONDS


@pytest.fixture
async def configured(tmp_path: Path, elevenlabs: FakeElevenLabs) -> AsyncIterator[Api]:
    async with running_api(tmp_path / "var", elevenlabs_url=elevenlabs.url, elevenlabs_timeout_seconds=20) as api:
        yield api


async def webhook(api: Api) -> dict[str, Any]:
    shown: dict[str, Any] = (await get(api, "/api/calls/voice-ai/config")).json()["config"]["webhook"]
    return shown


async def until_settled(api: Api) -> dict[str, Any]:
    while (shown := await webhook(api))["status"] == "pending":  # noqa: ASYNC110 - the condition is behind the API
        await asyncio.sleep(0.01)
    return shown


async def results(api: Api) -> list[dict[str, Any]]:
    return [event["data"] for event in await api.events() if event["name"] == "voice_ai_webhook"]


async def test_save_answers_while_elevenlabs_is_silent(
    configured: Api, elevenlabs: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status is pending until the set-up has ended, and an event tells its result."""
    monkeypatch.setattr(configure_voice_ai, "_ANSWER_SECONDS", 0)
    elevenlabs.behave(Fault.HANG_AFTER_READING, on="settings")
    response = await configured.configure(provider(elevenlabs))
    shown, told = await webhook(configured), await results(configured)
    elevenlabs.release()
    settled = await until_settled(configured)

    assert response.json()["success"] is True
    assert (shown["status"], told) == ("pending", [])
    assert [result["status"] for result in await results(configured)] == [settled["status"]]


async def test_save_during_a_set_up_is_followed_by_another(
    configured: Api, elevenlabs: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key that was stored last is the one whose workspace has the webhook; only that result is announced."""
    monkeypatch.setattr(configure_voice_ai, "_ANSWER_SECONDS", 0)
    async with FakeElevenLabs() as second, httpx.AsyncClient(trust_env=False) as http:
        elevenlabs.behave(Fault.HANG_AFTER_READING, on="settings")
        await configured.configure(provider(elevenlabs))
        await elevenlabs.until_received(1)
        workspace = partial(ElevenLabs, http, second.url, timeout=20)
        object.__setattr__(configured.relay, "elevenlabs", workspace)
        await configured.configure(provider(second))
        during = await webhook(configured)
        elevenlabs.release()
        settled, told = await until_settled(configured), await results(configured)

        assert (during["status"], settled["status"]) == ("pending", "configured")
        assert [result["status"] for result in told] == ["configured"]
        assert settled["webhookId"] in second.webhooks


async def test_set_up_that_was_cut_off_is_done_again(configured: Api, elevenlabs: FakeElevenLabs) -> None:
    """A process died in the middle of it: once its claim has ended, housekeeping takes over."""
    saved = {"ai_voice_provider": "elevenlabs", "webhook_wanted": 1, "webhook_claimed_until": later(60)}
    key = configured.relay.vault.seal(elevenlabs.api_key)
    await configured.relay.database.write(
        lambda: voice_ai_configs.update(configured.organization_id, saved | {"elevenlabs_api_key_sealed": key})
    )
    claimed = await resume_webhook_setups(configured.relay), await webhook(configured)
    await configured.relay.database.write(
        lambda: voice_ai_configs.update(configured.organization_id, {"webhook_claimed_until": later(-1)})
    )
    resumed = await resume_webhook_setups(configured.relay)

    assert (claimed[0], claimed[1]["status"]) == (0, "pending")
    assert (resumed, (await webhook(configured))["status"]) == (1, "configured")
    assert await resume_webhook_setups(configured.relay) == 0


async def test_fault_of_our_own_in_a_set_up_is_a_failure_and_not_forever_pending(
    configured: Api, elevenlabs: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said in words, without what it was about."""

    async def broken(*_: Any) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(configure_voice_ai, "_set_up", broken)
    await configured.configure(provider(elevenlabs))
    shown = await webhook(configured)

    assert shown["status"] == "failed"
    assert "KeyError" in shown["lastError"]
    assert "secret" not in shown["lastError"]
    assert await resume_webhook_setups(configured.relay) == 0


async def test_workspace_that_is_silent_holds_up_no_other_set_up(
    configured: Api, elevenlabs: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were cut off; the other organization's is over while the first one's waits."""
    others = await administer.create_organization(configured.relay, "Other", "CA")
    names = {configured.organization_id: "silent", others.id: "quick"}
    reached = {name: asyncio.Event() for name in names.values()}

    async def each(_: Any, config: VoiceAiConfig) -> None:
        reached[names[config.organization_id]].set()
        await asyncio.gather(*(event.wait() for event in reached.values()))

    monkeypatch.setattr(configure_voice_ai, "_set_up", each)
    wanted = {"ai_voice_provider": "elevenlabs", "webhook_wanted": 1}
    for organization_id in names:
        await configured.relay.database.write(partial(voice_ai_configs.update, organization_id, wanted))
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await resume_webhook_setups(configured.relay) == 2
    found = await configured.read(lambda: [voice_ai_configs.get(organization_id) for organization_id in names])

    assert [config.webhook_status for config in found if config] == ["configured", "configured"]


async def test_set_up_of_a_process_that_stops_is_resumed_at_once(
    configured: Api, elevenlabs: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits until its claim has ended."""
    monkeypatch.setattr(configure_voice_ai, "_ANSWER_SECONDS", 0)
    elevenlabs.behave(Fault.HANG_AFTER_READING, on="settings")
    await configured.configure(provider(elevenlabs))
    await elevenlabs.until_received(1)
    await configured.relay.background.close()
    during = await webhook(configured)
    elevenlabs.release()
    resumed = await resume_webhook_setups(configured.relay)

    assert during["status"] == "pending"
    assert (resumed, (await webhook(configured))["status"]) == (1, "configured")


async def test_workspace_without_transcripts_is_told_in_words(configured: Api, elevenlabs: FakeElevenLabs) -> None:
    """The setting stays as the workspace wants it; the configuration and the event name it."""
    elevenlabs.settings["webhooks"]["exclude_transcript"] = True
    await configured.configure(provider(elevenlabs))
    shown = await until_settled(configured)
    (told,) = await results(configured)

    assert elevenlabs.settings["webhooks"]["exclude_transcript"] is True
    assert shown["status"] == "configured"
    assert "exclude_transcript" in shown["warning"]
    assert told["warning"] == shown["warning"]
