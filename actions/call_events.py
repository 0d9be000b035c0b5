"""What listeners are told about a call, whichever way it became known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domain.events import Event, EventName
from domain.texts import shown


@dataclass(frozen=True, slots=True)
class StoredAudio:
    """Audio in the store; `size` in bytes."""

    key: str
    content_type: str
    size: int
    sha256: str

    def columns(self) -> dict[str, Any]:
        """Return it as the columns of a row."""
        return {"key": self.key, "content_type": self.content_type, "size": self.size, "sha256": self.sha256}


def call_recorded(call: Mapping[str, Any], audio: StoredAudio | None) -> list[Event]:
    """Say that a call took place; `call` is its row, column by column."""
    initiated = {
        "direction": call["direction"],
        "from": call["from_number"],
        "to": call["to_number"],
        "externalCallId": call["external_call_id"],
        "startedAt": call["started_at"],
        "agentName": call["agent_name"],
    }
    ended = {
        "direction": call["direction"],
        "status": call["status"],
        "duration": call["duration"],
        "endedAt": call["ended_at"],
        "summary": shown(call["summary"]),
    }
    return [
        _event(call, EventName.CALL_INITIATED, initiated),
        _event(call, EventName.CALL_ENDED, ended),
        *([] if audio is None else [recording_ready(call, audio)]),
        _event(call, EventName.FETCH_MESSAGES, {"channelType": "voice"}),
    ]


def recording_ready(call: Mapping[str, Any], audio: StoredAudio) -> Event:
    """Say that the recording of a call can be listened to."""
    ready = {"duration": call["duration"], "contentType": audio.content_type, "size": audio.size}
    return _event(call, EventName.CALL_RECORDING_READY, ready)


def _event(call: Mapping[str, Any], name: EventName, facts: dict[str, Any]) -> Event:
    ids = {"callId": call["id"], "contactId": call["contact"], "conversationId": call["conversation"]}
    present = {key: value for key, value in facts.items() if value is not None}
    return Event(name, ids | present, call["contact"], call["conversation"])
