"""The tables. Times are ISO 8601 text in UTC, ids 24 hex digits; every row belongs to an organization."""

from typing import Any

from peewee import (
    AutoField,
    BigIntegerField,
    BooleanField,
    CharField,
    DoubleField,
    ForeignKeyField,
    IntegerField,
    TextField,
)

from domain.identifiers import new_id
from domain.times import now
from persistence.units import Row


def Id() -> Any:  # noqa: N802 - it stands where a field class would
    """The primary key of a noun."""
    return CharField(max_length=24, primary_key=True, default=new_id)


def Moment(**options: Any) -> Any:  # noqa: N802
    """A moment in wire form."""
    return CharField(max_length=24, **options)


def Belongs(model: type[Row], **options: Any) -> Any:  # noqa: N802
    """A reference that keeps the row it points at from vanishing."""
    return ForeignKeyField(model, on_delete="RESTRICT", lazy_load=False, **options)


class Organization(Row):
    """A tenant. `event_sequence` is the sequence of its newest event, `call_count` the number of its calls.

    `recording_bytes` is the size of its recordings, those that wait for their call included. `audit_count` and
    `audit_digest` are the length of its audit log and the digest of the newest entry. The limit columns are quotas of
    its own; None is everybody's.

    The retention columns say for how many days something is kept; None keeps recordings and transcripts for good, and
    events as long as the broadcaster keeps everybody's.
    """

    id = Id()
    name = CharField(max_length=200)
    default_region = CharField(max_length=2, null=True)
    event_sequence = BigIntegerField(default=0)
    call_count = BigIntegerField(default=0)
    recording_bytes = BigIntegerField(default=0)
    audit_count = BigIntegerField(default=0)
    audit_digest = CharField(max_length=64, default="")
    recording_bytes_limit = BigIntegerField(null=True)
    requests_per_minute_limit = IntegerField(null=True)
    sockets_limit = IntegerField(null=True)
    recording_retention_days = IntegerField(null=True)
    transcript_retention_days = IntegerField(null=True)
    event_retention_days = IntegerField(null=True)
    created_at = Moment(default=now)


class User(Row):
    """A person who signs in. A higher `token_version` makes every earlier token worthless.

    `status` is one of `domain.statuses.UserStatus`. A removed user keeps the row, because calls and notes refer to it,
    and nothing of the person.
    """

    id = Id()
    organization = Belongs(Organization)
    email = CharField(max_length=320, unique=True)
    full_name = CharField(max_length=200)
    password_hash = CharField(max_length=200)
    role = CharField(max_length=16)
    status = CharField(max_length=16, default="active")
    token_version = IntegerField(default=0)
    created_at = Moment(default=now)


class KnownAddress(Row):
    """An address a user has signed in from; `digest` is of user and address together."""

    id = Id()
    organization = Belongs(Organization)
    user = Belongs(User, index=False)
    digest = CharField(max_length=64)
    last_used_at = Moment(default=now)

    class Meta:
        indexes = ((("user", "digest"), True),)


class ApiKey(Row):
    """A user's API key, under a name: a digest to find it by, and for the first one a sealed copy to show it again.

    `kind` is one of `domain.principals.KeyKind`. A key that was renewed with an overlap is found by the digest before
    too, until `previous_expires_at`.
    """

    id = Id()
    organization = Belongs(Organization)
    user = Belongs(User, index=False)
    name = CharField(max_length=100, default="default")
    kind = CharField(max_length=16, default="both")
    digest = CharField(max_length=64, unique=True)
    sealed = TextField()
    previous_digest = CharField(max_length=64, null=True, index=True)
    previous_expires_at = Moment(null=True)
    expires_at = Moment(null=True)
    last_used_at = Moment(null=True)
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("user", "name"), True),)


class PhoneNumber(Row):
    """A number of ours."""

    id = Id()
    organization = Belongs(Organization, index=False)
    number = CharField(max_length=16)
    label = CharField(max_length=100, null=True)
    is_default = BooleanField(default=False)
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("organization", "number"), True),)


class VoiceAiConfig(Row):
    """How an organization's voice AI is set up; sealed columns hold encrypted text, digests hold SHA-256."""

    organization = Belongs(Organization, primary_key=True)
    ai_voice_provider = TextField(null=True)
    elevenlabs_api_key_sealed = TextField(null=True)
    tool_secret_digest = CharField(max_length=64, null=True, unique=True)
    previous_tool_secret_digest = CharField(max_length=64, null=True, index=True)
    previous_tool_secret_expires_at = Moment(null=True)
    sinch_est_key_id = TextField(null=True)
    sinch_est_key_secret_sealed = TextField(null=True)
    sinch_est_project_id = TextField(null=True)
    sinch_est_trunk_id = TextField(null=True)
    sinch_est_trunk_domain = TextField(null=True)
    webhook_status = CharField(max_length=16, default="not_configured")
    webhook_id = CharField(max_length=200, null=True)
    webhook_url = TextField(null=True)
    webhook_secret_sealed = TextField(null=True)
    webhook_error = TextField(null=True)
    webhook_checked_at = Moment(null=True)
    webhook_claimed_until = Moment(null=True)
    updated_at = Moment(default=now)


class SmsConfig(Row):
    """Which provider sends an organization's texts, and with which (sealed) credentials."""

    organization = Belongs(Organization, primary_key=True)
    provider = CharField(max_length=16)
    credentials_sealed = TextField()
    updated_at = Moment(default=now)


class Contact(Row):
    """A person on the far side of a call or a text; unique by number within the organization.

    `search` is what a search looks at: name and number, in one case. A contact with an `erased_at` is on its way out
    and has neither any more.
    """

    id = Id()
    organization = Belongs(Organization, index=False)
    phone_number = CharField(max_length=16)
    name = TextField()
    name_is_placeholder = BooleanField(default=False)
    search = TextField(default="")
    erased_at = Moment(null=True)
    created_at = Moment(default=now)
    updated_at = Moment(default=now)

    class Meta:
        indexes = (
            (("organization", "phone_number"), True),
            (("organization", "created_at", "id", "erased_at"), False),
        )


class Conversation(Row):
    """One thread with a contact, over one channel and one of our numbers."""

    id = Id()
    organization = Belongs(Organization)
    contact = Belongs(Contact, index=False)
    channel_type = CharField(max_length=16)
    channel_identifier = CharField(max_length=16)
    last_message_at = Moment(null=True)
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("contact", "channel_type", "channel_identifier"), True),)


class Call(Row):
    """A finished call. `external_call_id` is the caller's own id and unique within the organization.

    `user` is whose API key pushed it in. A call without a contact is what erasing one leaves: it keeps its external id,
    so that the same call does not come back, and nothing of the person.
    """

    id = Id()
    organization = Belongs(Organization, index=False)
    contact = Belongs(Contact, null=True)
    conversation = Belongs(Conversation, null=True)
    user = Belongs(User, null=True)
    external_call_id = TextField(null=True)
    elevenlabs_conversation_id = CharField(max_length=200, null=True)
    source = CharField(max_length=16)
    direction = CharField(max_length=8)
    from_number = CharField(max_length=16)
    to_number = CharField(max_length=16)
    status = CharField(max_length=16)
    duration = DoubleField()
    started_at = Moment()
    ended_at = Moment()
    summary = TextField(null=True)
    transcript = TextField(null=True)
    agent_name = TextField(null=True)
    caller_name = TextField(null=True)
    provider_metadata = TextField(default="{}")
    payload_digests = TextField(default="{}")
    created_at = Moment(default=now)

    class Meta:
        indexes = (
            (("organization", "external_call_id"), True),
            (("organization", "elevenlabs_conversation_id"), False),
            (("organization", "started_at", "id"), False),
            (("organization", "contact", "started_at", "id"), False),
            (("organization", "user", "started_at", "id"), False),
            (("organization", "status", "started_at", "id", "duration"), False),
        )


# What retention has left to do, and nothing else.
Call.add_index(
    Call.organization, Call.created_at, where=Call.transcript.is_null(False), name="call_organization_id_has_transcript"
)


class Recording(Row):
    """The stored audio of a call; `key` names the object in the recording store, `size` is in bytes."""

    id = Id()
    organization = Belongs(Organization, index=False)
    call = Belongs(Call, unique=True)
    key = CharField(max_length=300, unique=True)
    content_type = CharField(max_length=100)
    size = BigIntegerField()
    sha256 = CharField(max_length=64)
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("organization", "created_at"), False),)


class HeldRecording(Row):
    """Audio that arrived before the call it belongs to; `id` is the id that call will have."""

    id = Id()
    organization = Belongs(Organization, index=False)
    elevenlabs_conversation_id = CharField(max_length=200)
    key = CharField(max_length=300, unique=True)
    content_type = CharField(max_length=100)
    size = BigIntegerField()
    sha256 = CharField(max_length=64)
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("organization", "elevenlabs_conversation_id"), True),)


class ContactNote(Row):
    """A note about a contact; `ai_summary` notes were written by an agent, others by a user.

    `call` is the call it was taken in. `mentions` and `attachments` are JSON lists, as they were given.
    """

    id = Id()
    organization = Belongs(Organization)
    contact = Belongs(Contact, index=False)
    user = Belongs(User, null=True)
    type = CharField(max_length=16)
    note = TextField()
    mentions = TextField(default="[]")
    attachments = TextField(default="[]")
    source_tool = CharField(max_length=32, null=True)
    elevenlabs_conversation_id = TextField(null=True)
    call = Belongs(Call, null=True)
    created_at = Moment(default=now)

    class Meta:
        indexes = (
            (("contact", "created_at", "id"), False),
            (("organization", "elevenlabs_conversation_id"), False),
        )


class Message(Row):
    """One text message and how far it got; `call` is the call it was sent in."""

    id = Id()
    organization = Belongs(Organization, index=False)
    conversation = Belongs(Conversation, index=False)
    contact = Belongs(Contact, index=False)
    direction = CharField(max_length=8)
    author = CharField(max_length=16)
    text = TextField()
    from_number = CharField(max_length=16)
    to_number = CharField(max_length=16)
    status = CharField(max_length=16)
    skip_automation = BooleanField(default=False)
    provider = CharField(max_length=16)
    provider_message_id = CharField(max_length=200, null=True)
    error = TextField(null=True)
    source_tool = CharField(max_length=32, null=True)
    elevenlabs_conversation_id = TextField(null=True)
    call = Belongs(Call, null=True)
    created_at = Moment(default=now)
    updated_at = Moment(default=now)

    class Meta:
        indexes = (
            (("conversation", "created_at", "id"), False),
            (("contact", "created_at", "id"), False),
            (("organization", "provider_message_id"), False),
            (("organization", "elevenlabs_conversation_id"), False),
            (("status", "created_at"), False),
        )


class TransferRequest(Row):
    """A caller's wish to speak to a person, tied to its call once that is known."""

    id = Id()
    organization = Belongs(Organization, index=False)
    contact = Belongs(Contact, null=True, index=False)
    call = Belongs(Call, null=True)
    elevenlabs_conversation_id = TextField(null=True)
    called_number = CharField(max_length=16, null=True)
    reason = TextField(null=True)
    requested_at = Moment(default=now)

    class Meta:
        indexes = (
            (("organization", "elevenlabs_conversation_id"), False),
            (("contact", "requested_at", "id"), False),
        )


class ToolInvocation(Row):
    """What a tool call led to, so that the same call again leads to nothing new."""

    id = Id()
    organization = Belongs(Organization, index=False)
    tool = CharField(max_length=32)
    fingerprint = CharField(max_length=64)
    result_id = CharField(max_length=24)
    invoked_at = Moment(default=now)

    class Meta:
        indexes = (
            (("organization", "fingerprint"), True),
            (("organization", "result_id"), False),
        )


class Event(Row):
    """The outbox: one row per event, in the transaction that caused it. `data` is JSON text."""

    id = AutoField()
    organization = Belongs(Organization, index=False)
    sequence = BigIntegerField()
    name = CharField(max_length=32)
    at = Moment()
    contact_id = CharField(max_length=24, null=True)
    conversation_id = CharField(max_length=24, null=True)
    data = TextField()

    class Meta:
        indexes = (
            (("organization", "sequence"), True),
            (("organization", "contact_id"), False),
        )


class AuditEntry(Row):
    """Who did what, for good: the database refuses to change or remove an entry. `details` is JSON text.

    An entry outlives what it tells about, so `user_id` and `subject` are plain ids. Only a failed attempt to sign in
    may belong to no organization. Entries of one organization are a chain: `sequence` starts at 1 and has no gaps, and
    `previous_digest` is the digest of the entry before.
    """

    id = Id()
    organization = Belongs(Organization, null=True, index=False)
    sequence = BigIntegerField(default=0)
    previous_digest = CharField(max_length=64, default="")
    at = Moment(default=now, index=True)
    action = CharField(max_length=32)
    user_id = CharField(max_length=24, null=True)
    client = CharField(max_length=64, null=True)
    request_id = CharField(max_length=128, null=True)
    subject = CharField(max_length=64, null=True)
    details = TextField(default="{}")

    class Meta:
        indexes = (
            (("organization", "at"), False),
            (("organization", "sequence"), True),
        )


class AuditChain(Row):
    """The head of the chain of audit entries that belong to no organization; the others' heads are beside them."""

    key = CharField(max_length=24, primary_key=True)
    count = BigIntegerField(default=0)
    digest = CharField(max_length=64, default="")


class SignInAttempts(Row):
    """How often somebody tried to sign in since the window began; `key` is a digest of an account or an address."""

    key = CharField(max_length=64, primary_key=True)
    count = IntegerField(default=0)
    window_ends_at = Moment(index=True)


MODELS = (
    Organization,
    User,
    KnownAddress,
    ApiKey,
    PhoneNumber,
    VoiceAiConfig,
    SmsConfig,
    Contact,
    Conversation,
    Call,
    Recording,
    HeldRecording,
    ContactNote,
    Message,
    TransferRequest,
    ToolInvocation,
    Event,
    AuditEntry,
    AuditChain,
    SignInAttempts,
)
