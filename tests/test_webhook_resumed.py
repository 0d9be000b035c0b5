"""A process that ends while ElevenLabs is silent, by a signal or by force: in time, and the next one goes on."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from domain.times import later
from drills.stage import Process, Stage, staged
from persistence import voice_ai_configs
from tests.support.faulty_http import Fault
from tests.support.vendors import FakeElevenLabs
from tests.support.waiting import PATIENCE_SECONDS, patience

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("forked_stages")]

# Longer than any test waits: a process that ended only once the vendor's time is up would never be seen to end.
NEVER_SECONDS = 3600


async def webhook(stage: Stage, api: Process, http: httpx.AsyncClient) -> str:
    headers = {"Authorization": f"Bearer {stage.superadmin_token}"}
    answer = await http.get(f"{api.url}/api/calls/voice-ai/config", headers=headers)
    return str(answer.json()["config"]["webhook"]["status"])


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("sqlite", signal.SIGTERM),
        ("sqlite", signal.SIGKILL),
        ("postgresql", signal.SIGKILL),
        # The claim is what an engine can matter for, and a process that ends by itself leaves none.
        pytest.param("postgresql", signal.SIGTERM, marks=pytest.mark.any_engine),
    ],
)
async def test_set_up_that_hangs_is_resumed_by_the_next_process(
    tmp_path: Path, engine: str, number: signal.Signals
) -> None:
    """After SIGTERM at once, having ended by itself; after SIGKILL when the claim has ended, without that wait."""
    async with (
        FakeElevenLabs() as elevenlabs,
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as http,
        staged(engine, folder=tmp_path, elevenlabs_url=elevenlabs.url, public_url="https://relay.example") as stage,
    ):
        elevenlabs.behave(Fault.HANG_AFTER_READING, on="settings")
        first = await stage.api(elevenlabs_timeout_seconds=NEVER_SECONDS)
        body = {"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key}
        headers = {"Authorization": f"Bearer {stage.superadmin_token}"}
        saved = await http.post(f"{first.url}/api/calls/voice-ai/config", json=body, headers=headers)
        pending = await webhook(stage, first, http)
        first.send(number)
        status = await first.ended()
        elevenlabs.release()
        if number is signal.SIGKILL:
            async with stage.relay() as relay:
                ended = {"webhook_claimed_until": later(-1)}
                await relay.database.write(lambda: voice_ai_configs.update(stage.organization_id, ended))
        second = await stage.api()
        async with patience():
            while (settled := await webhook(stage, second, http)) == "pending":  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.05)

    assert (saved.status_code, pending, settled) == (200, "pending", "configured")
    assert status == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    assert len(elevenlabs.webhooks) == 1
