"""Schemathesis, bounded; `make fuzz` goes on for longer and never twice with the same seed."""

from pathlib import Path

from tests.support.fuzz import fuzz

PUBLISHED = r"^/api/(calls/(ingest|voice-ai/config)|webhook/elevenlabs/tools/(create-note|send-sms|transfer))$"


async def test_schemathesis_finds_nothing_and_gets_everywhere(tmp_path: Path) -> None:
    """Every check passes, `openapi-core` agrees, and every documented status of every operation was answered."""
    outcome = await fuzz(tmp_path / "var", examples=5, seed=2212, only=PUBLISHED)

    assert not outcome.failed, outcome.said
    assert outcome.unreached == []
