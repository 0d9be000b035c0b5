"""What is written down for good: who did what to secrets, recordings and people, and from where."""

from dataclasses import dataclass
from enum import StrEnum


class AuditAction(StrEnum):
    """Everything the audit log knows."""

    SIGNED_IN = "user.signed_in"
    SIGN_IN_FAILED = "user.sign_in_failed"
    SIGNED_OUT = "user.signed_out"
    USER_CREATED = "user.created"
    PASSWORD_CHANGED = "user.password_changed"
    API_KEY_CREATED = "api_key.created"
    API_KEY_READ = "api_key.read"
    API_KEY_REGENERATED = "api_key.regenerated"
    CONFIG_CHANGED = "config.changed"
    TOOL_SECRET_ENDED = "tool_secret.ended"
    TOOL_SECRET_ROTATED = "tool_secret.rotated"
    RECORDING_LISTENED = "recording.listened"
    CONTACT_ERASED = "contact.erased"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user if one is known, the address they come from, and the request they act by."""

    user_id: str | None = None
    client: str | None = None
    request_id: str | None = None


COMMAND_LINE = Actor(client="command line")


def mask_email(address: str) -> str:
    """Return `a•••@example.com` for `alex@example.com`: enough to recognise, too little to write to."""
    name, at, host = address.strip().rpartition("@")
    return f"{name[:1]}•••{at}{host}"[:320] if at else "•••"
