"""Schemathesis, bounded; `make fuzz` goes on for longer and never twice with the same seed."""

from collections.abc import Callable
from pathlib import Path

from tests.support.fuzz import fuzz


async def test_schemathesis_finds_nothing_and_gets_everywhere(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every check passes, `openapi-core` agrees, and every documented status of every operation was answered."""
    outcome = await fuzz(tmp_path / "var", examples=3, seed=2212)
    record_property("fuzz", outcome.summary)

    assert not outcome.failed, outcome.said
    assert outcome.unreached == []
