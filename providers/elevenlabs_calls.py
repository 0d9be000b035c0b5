"""What ElevenLabs reports after a call, read into our words.

Source: ElevenLabs' page on post-call webhooks and the types of its SDK. Today's form carries everything in `data`, the
older one the same fields at the top. What is optional there may be missing, null or of another type here; only what
cannot be done without is insisted on. `tool_details` may carry a tool's secret headers, and `secret__` variables are
what they say: neither is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

from domain.documents import load
from domain.errors import InvalidRequest
from domain.lengths import LENGTHS
from domain.statuses import TransferOutcome

_MAX_SECONDS = 1_000_000_000
_MAX_MOMENT = 253_402_300_799  # the last second of the year 9999

_RESULTS = {"busy": "busy", "no_answer": "no-answer", "no-answer": "no-answer", "failed": "failed"}
_SIP_RESULTS = {486: "busy", 600: "busy", 408: "no-answer", 480: "no-answer", 487: "no-answer"}


_TRANSFER_TOOL = "transfer_to_number"
_MOST_TRANSFERS = 20
_MOST_REASON = 200

# What ElevenLabs writes about a transfer that failed is for people; these words tell that nobody took the call.
_NO_ANSWER = ("no answer", "no-answer", "no_answer", "not answer", "unanswered", "timed out", "timeout", "408", "480")


class ReportKind(StrEnum):
    """The three types of report we act on."""

    TRANSCRIPTION = "post_call_transcription"
    AUDIO = "post_call_audio"
    FAILURE = "call_initiation_failure"


@dataclass(frozen=True, slots=True)
class ReportedTransfer:
    """One use of the agent's own transfer tool; `at` in seconds of the call, `reason` in the model's words."""

    outcome: TransferOutcome
    at: float = 0
    reason: str | None = field(default=None, repr=False)
    problem: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ReportedCall:
    """A call that took place, or one that never began; `duration` in seconds, `started_at` in Unix seconds.

    A number is as ElevenLabs wrote it, and None when there is none. `call_sid` is the id of the call in the telephone
    network. `facts` is what else is worth keeping.
    """

    direction: str
    from_number: str | None = field(repr=False)
    to_number: str | None = field(repr=False)
    status: str
    duration: float = 0
    started_at: float | None = None
    transcript: list[dict[str, Any]] | None = field(default=None, repr=False)
    summary: str | None = field(default=None, repr=False)
    agent_name: str | None = None
    call_sid: str | None = None
    transfers: tuple["ReportedTransfer", ...] = ()
    facts: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class PostCallReport:
    """One delivery; `kind` is None for a type we do not know, `call` for audio."""

    kind: ReportKind | None
    conversation_id: str = ""
    call: ReportedCall | None = None


def read_report(document: Any) -> PostCallReport:
    """Read a delivery.

    Raises:
        InvalidRequest: when it is none, or says nothing of the conversation it is about.
    """
    said = _object(document).get("type")
    if not isinstance(said, str):
        raise InvalidRequest("Missing required field: type")
    if said not in set(ReportKind):
        return PostCallReport(None)
    kind, data = ReportKind(said), _object(document.get("data")) or document
    conversation_id = data.get("conversation_id")
    if not isinstance(conversation_id, str) or not 0 < len(conversation_id) <= LENGTHS["conversationId"]:
        longest = LENGTHS["conversationId"]
        raise InvalidRequest(
            f"A report of type {kind} names its conversation in conversation_id, of at most {longest} characters"
        )
    if kind is ReportKind.AUDIO:
        return PostCallReport(kind, conversation_id)
    is_failure = kind is ReportKind.FAILURE
    moment = _moment(document.get("event_timestamp"))
    return PostCallReport(kind, conversation_id, _failure(data, moment) if is_failure else _conversation(data))


# A call that took place


def _conversation(data: dict[str, Any]) -> ReportedCall:
    metadata, analysis = _object(data.get("metadata")), _object(data.get("analysis"))
    phone_call = _object(metadata.get("phone_call"))
    from_number, to_number = _numbers(data, metadata, phone_call)
    return ReportedCall(
        direction=_direction(phone_call.get("direction")),
        from_number=from_number,
        to_number=to_number,
        status=_status(data, phone_call),
        duration=_duration(metadata.get("call_duration_secs"), data.get("call_duration_secs")),
        started_at=_moment(metadata.get("start_time_unix_secs")),
        transcript=list(_turns(data.get("transcript"))),
        summary=_text(analysis.get("transcript_summary")),
        agent_name=_text(data.get("agent_name")),
        call_sid=_text(phone_call.get("call_sid")),
        transfers=tuple(islice(_transfers(data.get("transcript")), _MOST_TRANSFERS)),
        facts=_facts(data, {"metadata": metadata, "analysis": analysis}),
    )


def _numbers(
    data: dict[str, Any], metadata: dict[str, Any], phone_call: dict[str, Any]
) -> tuple[str | None, str | None]:
    """Return who called and who was called."""
    theirs, ours = _number(phone_call.get("external_number")), _number(phone_call.get("agent_number"))
    if theirs and ours:
        return (theirs, ours) if _direction(phone_call.get("direction")) == "inbound" else (ours, theirs)
    variables = _object(_object(data.get("conversation_initiation_client_data")).get("dynamic_variables"))
    caller = metadata.get("caller_id") or data.get("caller_id") or variables.get("system__caller_id")
    called = metadata.get("called_id") or data.get("called_id") or variables.get("system__called_number")
    return _number(caller), _number(called)


def _status(data: dict[str, Any], phone_call: dict[str, Any]) -> str:
    result = _RESULTS.get(str(phone_call.get("call_result")))
    return result or ("failed" if data.get("status") == "failed" else "completed")


def _turns(transcript: Any) -> Iterator[dict[str, Any]]:
    """Yield what was said, in the words of ingest; turns without words (tool calls) are not speech."""
    for turn in transcript if isinstance(transcript, list) else []:
        role, message = _object(turn).get("role"), _object(turn).get("message")
        if role in ("agent", "user") and isinstance(message, str) and message:
            at = _measure(turn.get("time_in_call_secs"))
            yield {"role": role, "message": message} | ({} if at is None else {"timestamp": at})


# Transfers


def _transfers(transcript: Any) -> Iterator[ReportedTransfer]:
    """Yield each use of the transfer tool that was really made, with its result."""
    reasons: dict[str, str | None] = {}
    for turn in transcript if isinstance(transcript, list) else []:
        for call in _entries(turn, "tool_calls"):
            reasons[str(call.get("request_id"))] = _reason(call.get("params_as_json"))
        for result in _entries(turn, "tool_results"):
            if result.get("tool_has_been_called") is not False:
                at = _measure(_object(turn).get("time_in_call_secs")) or 0
                yield _transfer(result, at, reasons.get(str(result.get("request_id"))))


def _entries(turn: Any, name: str) -> list[dict[str, Any]]:
    listed = _object(turn).get(name)
    entries = [_object(entry) for entry in listed] if isinstance(listed, list) else []
    return [entry for entry in entries if entry.get("tool_name") == _TRANSFER_TOOL]


def _reason(parameters: Any) -> str | None:
    said = _text(_object(_read(parameters)).get("reason"))
    return said[:_MOST_REASON] if said else None


def _transfer(result: dict[str, Any], at: float, reason: str | None) -> ReportedTransfer:
    told = _object(result.get("result")) or _object(_read(result.get("result_value")))
    is_success = told.get("status") == "success" and result.get("is_error") is not True
    if is_success and result.get("is_blocked") is not True:
        return ReportedTransfer(TransferOutcome.CONNECTED, at, reason)
    words = [told.get("error"), told.get("details"), result.get("raw_error_message"), result.get("error_type")]
    problem = "; ".join(word for word in map(_text, words) if word)[:_MOST_REASON] or None
    is_unanswered = any(word in (problem or "").lower() for word in _NO_ANSWER)
    return ReportedTransfer(
        TransferOutcome.NO_ANSWER if is_unanswered else TransferOutcome.REFUSED, at, reason, problem
    )


def _read(text: Any) -> Any:
    try:
        return load(text) if isinstance(text, str) else None
    except InvalidRequest:
        return None


# A call that never began


def _failure(data: dict[str, Any], moment: float | None) -> ReportedCall:
    metadata = _object(data.get("metadata"))
    body = _object(metadata.get("body"))
    return ReportedCall(
        # Documented for outbound attempts; only Twilio's own words say otherwise.
        direction="inbound" if str(body.get("Direction")).startswith("inbound") else "outbound",
        from_number=_number(body.get("from_number") or body.get("From")),
        to_number=_number(body.get("to_number") or body.get("To")),
        status=_failed(data.get("failure_reason"), body),
        started_at=moment,
        agent_name=_text(data.get("agent_name")),
        facts=_facts(data, {"failure_reason": data.get("failure_reason"), "metadata": metadata}),
    )


def _failed(reason: Any, body: dict[str, Any]) -> str:
    said = _RESULTS.get(str(reason)) or _RESULTS.get(str(body.get("CallStatus")))
    code = body.get("sip_status_code", body.get("SipResponseCode"))
    return said or _SIP_RESULTS.get(int(_measure(code) or 0)) or "failed"


# Values


def _facts(data: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    named = {name: data.get(name) for name in ("agent_id", "conversation_id")}
    return {name: value for name, value in (named | {"elevenlabs": kept}).items() if value is not None}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _number(value: Any) -> str | None:
    # A table of the documentation says number where its example shows a string.
    if isinstance(value, int) and not isinstance(value, bool):
        return f"+{value}"
    return _text(value)


def _direction(value: Any) -> str:
    return "outbound" if value == "outbound" else "inbound"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _measure(value: Any) -> float | None:
    """Return a number that may be written as text, if it is one we can reckon with."""
    try:
        number = float(value) if _is_number(value) or isinstance(value, str) else -1.0
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= _MAX_MOMENT else None


def _duration(*values: Any) -> float:
    found = next((seconds for value in values if (seconds := _measure(value)) is not None), 0)
    seconds = min(found, _MAX_SECONDS)
    return int(seconds) if seconds == int(seconds) else seconds


def _moment(value: Any) -> float | None:
    return _measure(value)
