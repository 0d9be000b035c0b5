"""The options of a follow, checked before anything is connected."""

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

from .events import EVENT_NAMES, Gap


class Problem(TypedDict):
    """What `on_error` is told: a code for programs, and a sentence for people.

    `token_failed` means that `token()` gave none; every other code is the server's.
    """

    type: Literal["error"]
    code: str
    message: str


Token = str | Callable[[], str | Awaitable[str]]
OnGap = Callable[[Gap], Awaitable[object] | object]
OnState = Callable[[str, Mapping[str, Any]], object]
OnError = Callable[[Problem], object]

_ID = re.compile(r"[0-9a-f]{24}")
_LONGEST_TOKEN = 4096
_LARGEST_SEQUENCE = 2**63 - 1


class OptionError(ValueError):
    """An option is not what it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `follow` was given; see there."""

    url: str
    token: Token
    since: int | None
    epoch: str | None
    events: Sequence[str] | None
    contact_id: str | None
    conversation_id: str | None
    fallback_url: str | None
    on_gap: OnGap | None
    on_state: OnState | None
    on_error: OnError | None
    token_seconds: float
    connect_seconds: float
    pong_seconds: float

    def __post_init__(self) -> None:
        """Check every option.

        Raises:
            OptionError: if one is not what it must be.
        """
        for name, (is_right, words) in _RULES.items():
            value = getattr(self, name)
            if not (value is None and name not in _NEEDED) and not is_right(value):
                raise OptionError(f"{name} must be {words}.")
        if self.epoch is not None and self.since is None:
            raise OptionError("epoch belongs to a position: give since as well.")


def is_token(value: object) -> bool:
    """Tell whether a value can be a token."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_TOKEN


def _is_address(*schemes: str) -> Callable[[object], bool]:
    def is_right(value: object) -> bool:
        if not isinstance(value, str) or "#" in value:
            return False
        try:
            parts = urlsplit(value)
            return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            return False

    return is_right


def _is_sequence_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_SEQUENCE


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _are_names(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return len(value) > 0 and all(name in EVENT_NAMES for name in value) and len(set(value)) == len(value)


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


_SECONDS = (_is_seconds, "a number of seconds above 0")
# Each option: whether a value is right, and what it has to be. None stands for an option that is not given.
_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "url": (_is_address("ws", "wss"), "the address of the broadcaster, such as wss://events.example/v1"),
    "token": (
        lambda value: is_token(value) or callable(value),
        "an API key or JWT, or a function that returns one",
    ),
    "since": (_is_sequence_number, "the sequence of the last event handled, a whole number from 0"),
    "epoch": (_is_id, "the epoch that came with the position, 24 hexadecimal digits"),
    "events": (
        _are_names,
        f"a list of at least one of {', '.join(EVENT_NAMES)}, each once; without it all events come",
    ),
    "contact_id": (_is_id, "the id of a contact, 24 hexadecimal digits"),
    "conversation_id": (_is_id, "the id of a conversation, 24 hexadecimal digits"),
    "fallback_url": (
        _is_address("http", "https"),
        "the address of GET /api/events, such as https://api.example/api/events",
    ),
    "on_gap": (callable, "a function that takes a gap"),
    "on_state": (callable, "a function that takes a state's name and details"),
    "on_error": (callable, "a function that takes an error"),
    "token_seconds": _SECONDS,
    "connect_seconds": _SECONDS,
    "pong_seconds": _SECONDS,
}
_NEEDED = ("url", "token", "token_seconds", "connect_seconds", "pong_seconds")
