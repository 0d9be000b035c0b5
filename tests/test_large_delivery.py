"""Thirty megabytes of audio, chunked and signed, at a real server whose memory is watched."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from tests.support.audio import mp3, mp3_base64
from tests.support.up import Processes, environment, running_up
from tests.support.vendors import FakeElevenLabs
from tests.support.waiting import PATIENCE_SECONDS

MEGABYTE = 1_000_000
FRAMES = 30 * MEGABYTE // len(mp3(1)) + 1


def process_of_the_api(running: Processes) -> Path:
    """Return the folder in which the system tells about the API's process."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    (found,) = [child for child in children if b"serve" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return Path("/proc") / found


def memory(process: Path, line: str) -> int:
    """Return its resident memory in bytes: `VmRSS` now, `VmHWM` at its highest."""
    status = (process / "status").read_text().splitlines()
    return int(next(each for each in status if each.startswith(line)).split()[1]) * 1024


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 64 * 1024):
        yield body[start : start + 64 * 1024]


async def test_thirty_megabytes_of_audio_are_stored_in_bounded_memory(tmp_path: Path) -> None:
    """One delivery takes a fraction of itself; what it takes beyond an ordinary request does not grow with its size."""
    async with FakeElevenLabs() as elevenlabs:
        env = environment(
            tmp_path / "var", elevenlabs_url=elevenlabs.url, public_url="https://relay.example", api_processes="1"
        )
        async with (
            running_up(env) as running,
            httpx.AsyncClient(base_url=running.demo["apiUrl"], trust_env=False, timeout=PATIENCE_SECONDS) as http,
        ):
            token = {"Authorization": f"Bearer {running.demo['superadminToken']}"}
            config = {"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": elevenlabs.api_key}
            assert (await http.post("/api/calls/voice-ai/config", json=config, headers=token)).status_code == 200
            webhook_id = elevenlabs.settings["webhooks"]["post_call_webhook_id"]
            api = process_of_the_api(running)

            async def deliver(conversation: str, audio: str) -> int:
                document = {"type": "post_call_audio", "data": {"conversation_id": conversation, "full_audio": audio}}
                delivery = elevenlabs.delivery(webhook_id, document)
                answer = await http.post(
                    "/api/webhook/elevenlabs", content=in_pieces(delivery.body), headers=delivery.headers
                )
                return answer.status_code

            assert await deliver("conv_small", mp3_base64(10)) == 200
            before = memory(api, "VmRSS")
            (api / "clear_refs").write_text("5")
            assert await deliver("conv_large", mp3_base64(FRAMES)) == 200
            grown = memory(api, "VmHWM") - before

        stored = sorted((tmp_path / "var" / "recordings").rglob("*.mp3"), key=lambda path: path.stat().st_size)

        assert stored[-1].read_bytes() == mp3(FRAMES)
        assert grown < 10 * MEGABYTE, f"{grown / MEGABYTE:.1f} MB"
