"""What is written down for good: who did what to secrets, recordings and people, and from where."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.documents import dump


class AuditAction(StrEnum):
    """Everything the audit log knows."""

    SIGNED_IN = "user.signed_in"
    SIGN_IN_FAILED = "user.sign_in_failed"
    SIGNED_OUT = "user.signed_out"
    USER_CREATED = "user.created"
    USER_DISABLED = "user.disabled"
    USER_ENABLED = "user.enabled"
    USER_REMOVED = "user.removed"
    ROLE_CHANGED = "user.role_changed"
    PASSWORD_CHANGED = "user.password_changed"
    API_KEY_CREATED = "api_key.created"
    API_KEY_READ = "api_key.read"
    API_KEY_REGENERATED = "api_key.regenerated"
    API_KEY_REVOKED = "api_key.revoked"
    CONFIG_CHANGED = "config.changed"
    TOOL_SECRET_ENDED = "tool_secret.ended"
    TOOL_SECRET_ROTATED = "tool_secret.rotated"
    AGENT_CONNECTED = "agent.connected"
    AGENT_DISCONNECTED = "agent.disconnected"
    NUMBER_ADDED = "number.added"
    SMS_CHANGED = "sms.changed"
    REGION_CHANGED = "region.changed"
    RETENTION_CHANGED = "retention.changed"
    HOURS_CHANGED = "hours.changed"
    LIMITS_CHANGED = "limits.changed"
    RECORDING_LISTENED = "recording.listened"
    CONTACT_ERASED = "contact.erased"
    # With AUDIT_READS=on.
    CONTACTS_LISTED = "contacts.listed"
    CONTACT_READ = "contact.read"
    TIMELINE_READ = "timeline.read"
    NOTES_READ = "notes.read"
    CALLS_LISTED = "calls.listed"
    CALL_READ = "call.read"
    RECORDING_FETCHED = "recording.fetched"
    STATISTICS_READ = "statistics.read"
    CONFIG_READ = "config.read"
    CONVERSATIONS_LISTED = "conversations.listed"
    CONVERSATION_READ = "conversation.read"
    MESSAGES_READ = "messages.read"
    EVENTS_READ = "events.read"
    SOCKET_OPENED = "socket.opened"
    SOCKET_CLOSED = "socket.closed"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user if one is known, the address they come from, and the request they act by."""

    user_id: str | None = None
    client: str | None = None
    request_id: str | None = None


def entry_digest(organization_id: str | None, sequence: int, previous_digest: str, values: Sequence[str | None]) -> str:
    """Return the digest of an entry of the audit log, which the next entry carries.

    It is the SHA-256 of a JSON array without spaces, in UTF-8: organization (null for none), sequence, the digest of
    the entry before ("" for the first), and `values`: id, at, action, user id, client, request id, subject and details,
    the details as the text that is stored. What it covers can never change.
    """
    return hashlib.sha256(dump([organization_id, sequence, previous_digest, *values])).hexdigest()


COMMAND_LINE = Actor(client="command line")


def mask_email(address: str) -> str:
    """Return `a•••@example.com` for `alex@example.com`: enough to recognise, too little to write to."""
    name, at, host = address.strip().rpartition("@")
    return f"{name[:1]}•••{at}{host}"[:320] if at else "•••"
