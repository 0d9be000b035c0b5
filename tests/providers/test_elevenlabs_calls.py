from typing import Any

import pytest

from domain.errors import InvalidRequest
from domain.lengths import LENGTHS
from providers.elevenlabs_calls import ReportKind, read_report


def failure(**body: Any) -> dict[str, Any]:
    data = {"conversation_id": "conv_1", "metadata": {"type": "sip", "body": body}}
    return {"type": "call_initiation_failure", "data": data}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (486, "busy"),
        (600, "busy"),
        (408, "no-answer"),
        (480, "no-answer"),
        (487, "no-answer"),
        ("487", "no-answer"),
        (404, "failed"),
        (503, "failed"),
        (None, "failed"),
        ("nonsense", "failed"),
    ],
)
def test_the_code_of_a_line_says_how_an_attempt_ended(code: object, status: str) -> None:
    """A line that is taken or rings out is nobody's fault."""
    report = read_report(failure(sip_status_code=code))

    assert report.call is not None
    assert report.call.status == status


@pytest.mark.parametrize("kind", list(ReportKind))
def test_conversation_id_is_refused_beyond_the_length_of_its_column(kind: ReportKind) -> None:
    """It is kept where there is room for as many."""
    longest = "c" * LENGTHS["conversationId"]
    assert read_report({"type": kind, "data": {"conversation_id": longest}}).conversation_id == longest
    for wrong in (longest + "c", "", None, 7):
        with pytest.raises(InvalidRequest):
            read_report({"type": kind, "data": {"conversation_id": wrong}})
