"""The tables. Times are ISO 8601 text in UTC, ids 24 hex digits; every row belongs to an organization."""

from collections.abc import Callable
from typing import Literal, TypeVar, overload

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

from domain.epochs import new_epoch
from domain.identifiers import new_id
from domain.lengths import LENGTHS
from domain.times import now
from persistence.units import Row

M = TypeVar("M", bound=Row)


def Id() -> "CharField[str]":  # noqa: N802 - it stands where a field class would
    """The primary key of a noun."""
    return CharField(max_length=LENGTHS["id"], primary_key=True, default=new_id)


@overload
def Moment(*, null: Literal[True], index: bool = ...) -> "CharField[str | None]": ...
@overload
def Moment(*, default: Callable[[], str] | None = ..., index: bool = ...) -> "CharField[str]": ...
def Moment(  # noqa: N802
    *, null: bool = False, default: Callable[[], str] | None = None, index: bool = False
) -> "CharField[str] | CharField[str | None]":
    """A moment in wire form."""
    if null:
        return CharField(max_length=LENGTHS["timestamp"], null=True, default=default, index=index)
    return CharField(max_length=LENGTHS["timestamp"], default=default, index=index)


def Belongs(  # noqa: N802
    model: type[M], *, null: bool = False, index: bool = True, unique: bool = False, primary_key: bool = False
) -> "ForeignKeyField[M]":
    """A reference that keeps the row it points at from vanishing; its value is read as `<name>_id`."""
    reference = ForeignKeyField(
        model, on_delete="RESTRICT", lazy_load=False, index=index, unique=unique, primary_key=primary_key
    )
    reference.null = null
    return reference


class Organization(Row):
    """A tenant. `event_sequence` is the sequence of its newest event, `call_count` the number of its calls.

    `epoch` is the identity of its log of events.

    `recording_bytes` is the size of its recordings, those that wait for their call included. `audit_count` and
    `audit_digest` are the length of its audit log and the digest of the newest entry. The limit columns are quotas of
    its own; None is everybody's.

    The retention columns say for how many days something is kept; None keeps recordings and transcripts for good, and
    events as long as the broadcaster keeps everybody's.
    """

    id = Id()
    name = CharField(max_length=LENGTHS["name"])
    default_region = CharField(max_length=LENGTHS["region"], null=True)
    event_sequence = BigIntegerField(default=0)
    epoch = CharField(max_length=LENGTHS["id"], default=new_epoch)
    call_count = BigIntegerField(default=0)
    recording_bytes = BigIntegerField(default=0)
    audit_count = BigIntegerField(default=0)
    audit_digest = CharField(max_length=LENGTHS["digest"], default="")
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
    organization_id: str
    email = CharField(max_length=LENGTHS["email"], unique=True)
    full_name = CharField(max_length=LENGTHS["name"])
    password_hash = CharField(max_length=LENGTHS["name"])
    role = CharField(max_length=LENGTHS["word"])
    status = CharField(max_length=LENGTHS["word"], default="active")
    token_version = IntegerField(default=0)
    created_at = Moment(default=now)


class KnownAddress(Row):
    """An address a user has signed in from; `digest` is of user and address together."""

    id = Id()
    organization = Belongs(Organization)
    organization_id: str
    user = Belongs(User, index=False)
    user_id: str
    digest = CharField(max_length=LENGTHS["digest"])
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
    organization_id: str
    user = Belongs(User, index=False)
    user_id: str
    name = CharField(max_length=LENGTHS["label"], default="default")
    kind = CharField(max_length=LENGTHS["word"], default="both")
    digest = CharField(max_length=LENGTHS["digest"], unique=True)
    sealed = TextField()
    previous_digest = CharField(max_length=LENGTHS["digest"], null=True, index=True)
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
    organization_id: str
    number = CharField(max_length=LENGTHS["phoneNumber"])
    label = CharField(max_length=LENGTHS["label"], null=True)
    is_default = BooleanField(default=False)
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("organization", "number"), True),)


class ToolSecret(Row):
    """A tool secret of an organization, as its SHA-256; a replaced one has an `expires_at`.

    While ElevenLabs has not confirmed the newest, the one before it has no end either.
    """

    id = Id()
    organization = Belongs(Organization)
    organization_id: str
    digest = CharField(max_length=LENGTHS["digest"], unique=True)
    expires_at = Moment(null=True)
    last_used_at = Moment(null=True)
    created_at = Moment(default=now)


class VoiceAiConfig(Row):
    """How an organization's voice AI is set up; sealed columns hold encrypted text.

    `webhook_wanted` counts the saves that ask for the webhook to be set up, and `webhook_done` is the count at the
    start of the last set-up that ended. While they differ, the status is pending.
    """

    organization = Belongs(Organization, primary_key=True)
    organization_id: str
    ai_voice_provider = TextField(null=True)
    elevenlabs_api_key_sealed = TextField(null=True)
    sinch_est_key_id = TextField(null=True)
    sinch_est_key_secret_sealed = TextField(null=True)
    sinch_est_project_id = TextField(null=True)
    sinch_est_trunk_id = TextField(null=True)
    sinch_est_trunk_domain = TextField(null=True)
    webhook_status = CharField(max_length=LENGTHS["word"], default="not_configured")
    webhook_wanted = IntegerField(default=0)
    webhook_done = IntegerField(default=0)
    webhook_warning = TextField(null=True)
    webhook_id = CharField(max_length=LENGTHS["vendorId"], null=True)
    webhook_url = TextField(null=True)
    webhook_secret_sealed = TextField(null=True)
    webhook_error = TextField(null=True)
    webhook_checked_at = Moment(null=True)
    webhook_claimed_until = Moment(null=True)
    updated_at = Moment(default=now)


class AgentWorkspace(Row):
    """What the relay keeps in an organization's ElevenLabs workspace for its voice agents.

    `secret_id` names the workspace secret that holds the tool secret, `secret_sealed` a value that has to be written
    there and `secret_digest` the value that was written last. `secret_wanted` counts the values that were made, and
    `secret_done` is the count of the last one whose writing ended. `transfer_text` is what the transfer tool answers
    once an agent has a real transfer; None is the default text. One process at a time works on the workspace, until
    `claimed_until`.
    """

    organization = Belongs(Organization, primary_key=True)
    organization_id: str
    secret_id = CharField(max_length=LENGTHS["vendorId"], null=True)
    secret_sealed = TextField(null=True)
    secret_digest = CharField(max_length=LENGTHS["digest"], null=True)
    secret_wanted = IntegerField(default=0)
    secret_done = IntegerField(default=0)
    secret_error = TextField(null=True)
    secret_stored_at = Moment(null=True)
    transfer_text = TextField(null=True)
    claimed_until = Moment(null=True)
    claim = CharField(max_length=LENGTHS["id"], null=True)


class AgentTool(Row):
    """A tool that was made in the organization's ElevenLabs workspace; `name` is the contract's, `tool_id` theirs."""

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    name = CharField(max_length=LENGTHS["label"])
    tool_id = CharField(max_length=LENGTHS["vendorId"])
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("organization", "name"), True),)


class ConnectedAgent(Row):
    """A voice agent that was given the organization's tools; `transfers` is the JSON list of those we set for it."""

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    agent_id = CharField(max_length=LENGTHS["vendorId"])
    name = TextField(default="")
    transfers = TextField(default="[]")
    connected_at = Moment(default=now)

    class Meta:
        indexes = ((("organization", "agent_id"), True),)


class SmsConfig(Row):
    """Which provider sends an organization's texts, and with which (sealed) credentials."""

    organization = Belongs(Organization, primary_key=True)
    organization_id: str
    provider = CharField(max_length=LENGTHS["word"])
    credentials_sealed = TextField()
    updated_at = Moment(default=now)


class OrganizationHours(Row):
    """When an organization is open, in the contract's words; None in `week` stands for the default hours.

    `week` is a JSON object by day, `holidays` and `exceptional` are JSON lists.
    """

    organization = Belongs(Organization, primary_key=True)
    organization_id: str
    timezone = CharField(max_length=LENGTHS["timezone"])
    week = TextField(null=True)
    holidays = TextField(default="[]")
    exceptional = TextField(default="[]")
    allow_user_override = BooleanField(default=False)
    updated_at = Moment(default=now)


class UserAvailability(Row):
    """Whether a user is at a client that says so, and takes calls.

    `online_until` is when the last heartbeat ends. `is_online` is what the listeners were last told. Calls are
    transferred to `transfer_number`, in E.164, if there is one.
    """

    user = Belongs(User, primary_key=True)
    user_id: str
    organization = Belongs(Organization, index=False)
    organization_id: str
    is_online = BooleanField()
    is_available = BooleanField()
    online_until = Moment()
    transfer_number = CharField(max_length=LENGTHS["phoneNumber"], null=True)

    class Meta:
        indexes = (
            (("organization", "online_until"), False),
            (("is_online", "online_until"), False),
        )


class Contact(Row):
    """A person on the far side of a call or a text; unique by number within the organization.

    `name` is the whole name. `first_name` and `last_name` are set once somebody told them apart. `search` is what a
    search looks at: name and number, in one case. A contact with an `erased_at` is on its way out and has neither any
    more.
    """

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    phone_number = CharField(max_length=LENGTHS["phoneNumber"])
    name = TextField()
    first_name = CharField(max_length=LENGTHS["firstName"], null=True)
    last_name = CharField(max_length=LENGTHS["lastName"], null=True)
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


class ContactEmail(Row):
    """An email address of a contact, as it was given; the first one is primary, and a later one replaces none."""

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    contact = Belongs(Contact, index=False)
    contact_id: str
    address = CharField(max_length=LENGTHS["email"])
    is_primary = BooleanField()
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("contact", "address"), True),)


class CallContext(Row):
    """What was known of a call when it connected, for a day: who called which number, in which conversation.

    The conversation and `call_sid` are the voice agent's own ids; at least one of them is there.
    """

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    contact = Belongs(Contact, null=True)
    contact_id: str | None
    elevenlabs_conversation_id = CharField(max_length=LENGTHS["conversationId"], null=True)
    call_sid = CharField(max_length=LENGTHS["vendorId"], null=True)
    agent_id = CharField(max_length=LENGTHS["vendorId"], null=True)
    caller_number = CharField(max_length=LENGTHS["phoneNumber"], null=True)
    called_number = CharField(max_length=LENGTHS["phoneNumber"], null=True)
    created_at = Moment(default=now, index=True)

    class Meta:
        indexes = (
            (("organization", "elevenlabs_conversation_id"), True),
            (("organization", "call_sid"), True),
            (("organization", "caller_number"), False),
        )


class Conversation(Row):
    """One thread with a contact, over one channel and one of our numbers; `resolved_by` is the id of a user."""

    id = Id()
    organization = Belongs(Organization)
    organization_id: str
    contact = Belongs(Contact, index=False)
    contact_id: str
    channel_type = CharField(max_length=LENGTHS["word"])
    channel_identifier = CharField(max_length=LENGTHS["phoneNumber"])
    last_message_at = Moment(null=True)
    resolved_at = Moment(null=True)
    resolved_by = CharField(max_length=LENGTHS["id"], null=True)
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("contact", "channel_type", "channel_identifier"), True),)


class Call(Row):
    """A finished call. `external_call_id` is the caller's own id and unique within the organization.

    `user` is the owner of the API key that pushed it in. `recording_removed_at` is when retention removed its
    recording; audio delivered after that is not stored again. A call without a contact is what erasing one leaves: it
    keeps its external id, so that the same call does not come back, and nothing of the person.
    """

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    contact = Belongs(Contact, null=True)
    contact_id: str | None
    conversation = Belongs(Conversation, null=True)
    conversation_id: str | None
    user = Belongs(User, null=True)
    user_id: str | None
    external_call_id = TextField(null=True)
    elevenlabs_conversation_id = CharField(max_length=LENGTHS["conversationId"], null=True)
    source = CharField(max_length=LENGTHS["word"])
    direction = CharField(max_length=LENGTHS["direction"])
    from_number = CharField(max_length=LENGTHS["phoneNumber"])
    to_number = CharField(max_length=LENGTHS["phoneNumber"])
    status = CharField(max_length=LENGTHS["word"])
    duration = DoubleField()
    started_at = Moment()
    ended_at = Moment()
    summary = TextField(null=True)
    transcript = TextField(null=True)
    agent_name = TextField(null=True)
    caller_name = TextField(null=True)
    provider_metadata = TextField(default="{}")
    payload_digests = TextField(default="{}")
    recording_removed_at = Moment(null=True)
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
    organization_id: str
    call = Belongs(Call, unique=True)
    call_id: str
    key = CharField(max_length=LENGTHS["objectKey"], unique=True)
    content_type = CharField(max_length=LENGTHS["mediaType"])
    size = BigIntegerField()
    sha256 = CharField(max_length=LENGTHS["digest"])
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("organization", "created_at"), False),)


class HeldRecording(Row):
    """Audio that arrived before the call it belongs to; `id` is the id that call will have."""

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    elevenlabs_conversation_id = CharField(max_length=LENGTHS["conversationId"])
    key = CharField(max_length=LENGTHS["objectKey"], unique=True)
    content_type = CharField(max_length=LENGTHS["mediaType"])
    size = BigIntegerField()
    sha256 = CharField(max_length=LENGTHS["digest"])
    created_at = Moment(default=now)

    class Meta:
        indexes = ((("organization", "elevenlabs_conversation_id"), True),)


class ContactNote(Row):
    """A note about a contact; `ai_summary` notes were written by an agent, others by a user.

    `call` is the call it was taken in. `mentions` and `attachments` are JSON lists, as they were given. `reactions` is
    a JSON list of objects with `emoji` and the ids of `users`.
    """

    id = Id()
    organization = Belongs(Organization)
    organization_id: str
    contact = Belongs(Contact, index=False)
    contact_id: str
    user = Belongs(User, null=True)
    user_id: str | None
    type = CharField(max_length=LENGTHS["word"])
    note = TextField()
    mentions = TextField(default="[]")
    attachments = TextField(default="[]")
    reactions = TextField(default="[]")
    is_edited = BooleanField(default=False)
    source_tool = CharField(max_length=LENGTHS["tool"], null=True)
    elevenlabs_conversation_id = TextField(null=True)
    call = Belongs(Call, null=True)
    call_id: str | None
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
    organization_id: str
    conversation = Belongs(Conversation, index=False)
    conversation_id: str
    contact = Belongs(Contact, index=False)
    contact_id: str
    direction = CharField(max_length=LENGTHS["direction"])
    author = CharField(max_length=LENGTHS["word"])
    text = TextField()
    from_number = CharField(max_length=LENGTHS["phoneNumber"])
    to_number = CharField(max_length=LENGTHS["phoneNumber"])
    status = CharField(max_length=LENGTHS["word"])
    skip_automation = BooleanField(default=False)
    provider = CharField(max_length=LENGTHS["word"])
    provider_message_id = CharField(max_length=LENGTHS["vendorId"], null=True)
    error = TextField(null=True)
    source_tool = CharField(max_length=LENGTHS["tool"], null=True)
    elevenlabs_conversation_id = TextField(null=True)
    call = Belongs(Call, null=True)
    call_id: str | None
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
    """A caller's wish to speak to a person, tied to its call once that is known.

    `outcome` is one of `domain.statuses.TransferOutcome`, known once the call was reported; `outcome_reason` is the
    vendor's word for it.
    """

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    contact = Belongs(Contact, null=True, index=False)
    contact_id: str | None
    call = Belongs(Call, null=True)
    call_id: str | None
    elevenlabs_conversation_id = TextField(null=True)
    called_number = CharField(max_length=LENGTHS["phoneNumber"], null=True)
    reason = TextField(null=True)
    requested_at = Moment(default=now)
    outcome = CharField(max_length=LENGTHS["word"], null=True)
    outcome_reason = TextField(null=True)

    class Meta:
        indexes = (
            (("organization", "elevenlabs_conversation_id"), False),
            (("contact", "requested_at", "id"), False),
            (("organization", "called_number", "requested_at"), False),
        )


class ToolInvocation(Row):
    """What a tool call led to, so that the same call again leads to nothing new."""

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    tool = CharField(max_length=LENGTHS["tool"])
    fingerprint = CharField(max_length=LENGTHS["digest"])
    result_id = CharField(max_length=LENGTHS["id"])
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
    organization_id: str
    sequence = BigIntegerField()
    name = CharField(max_length=LENGTHS["eventName"])
    at = Moment()
    contact_id = CharField(max_length=LENGTHS["id"], null=True)
    conversation_id = CharField(max_length=LENGTHS["id"], null=True)
    data = TextField()

    class Meta:
        indexes = (
            (("organization", "sequence"), True),
            (("organization", "contact_id"), False),
        )


class LogCheckpoint(Row):
    """What a broadcaster wrote down to recognise the database by. It belongs to this database and is never copied.

    `mark` is new at every writing, and only the broadcaster knows it; `place` says where the database was.
    """

    id = Id()
    mark = CharField(max_length=LENGTHS["id"])
    place = CharField(max_length=LENGTHS["digest"])
    written_at = Moment(default=now)


class AuditEntry(Row):
    """Who did what, for good: the database refuses to change or remove an entry. `details` is JSON text.

    An entry outlives what it tells about, so `user_id` and `subject` are plain ids. Only a failed attempt to sign in
    may belong to no organization. Entries of one organization are a chain: `sequence` starts at 1 and has no gaps, and
    `previous_digest` is the digest of the entry before.
    """

    id = Id()
    organization = Belongs(Organization, null=True, index=False)
    organization_id: str | None
    sequence = BigIntegerField(default=0)
    previous_digest = CharField(max_length=LENGTHS["digest"], default="")
    at = Moment(default=now, index=True)
    action = CharField(max_length=LENGTHS["auditAction"])
    user_id = CharField(max_length=LENGTHS["id"], null=True)
    client = CharField(max_length=LENGTHS["client"], null=True)
    request_id = CharField(max_length=LENGTHS["requestId"], null=True)
    subject = CharField(max_length=LENGTHS["digest"], null=True)
    details = TextField(default="{}")

    class Meta:
        indexes = (
            (("organization", "at"), False),
            (("organization", "sequence"), True),
        )


class AuditChain(Row):
    """The head of the chain of audit entries that belong to no organization; the others' heads are beside them."""

    key = CharField(max_length=LENGTHS["id"], primary_key=True)
    count = BigIntegerField(default=0)
    digest = CharField(max_length=LENGTHS["digest"], default="")


class SignInAttempts(Row):
    """How often somebody tried to sign in since the window began; `key` is a digest of an account or an address."""

    key = CharField(max_length=LENGTHS["digest"], primary_key=True)
    count = IntegerField(default=0)
    window_ends_at = Moment(index=True)


class OpenSockets(Row):
    """How many sockets the organization has open at one broadcaster; counts until `ends_at`.

    `broadcaster` is an id of the process, `place` a digest of where it listens.
    """

    id = Id()
    organization = Belongs(Organization, index=False)
    organization_id: str
    broadcaster = CharField(max_length=LENGTHS["id"], index=True)
    place = CharField(max_length=LENGTHS["digest"])
    count = IntegerField()
    ends_at = Moment()

    class Meta:
        indexes = ((("organization", "broadcaster"), True),)


MODELS = (
    Organization,
    User,
    KnownAddress,
    ApiKey,
    PhoneNumber,
    ToolSecret,
    VoiceAiConfig,
    AgentWorkspace,
    AgentTool,
    ConnectedAgent,
    SmsConfig,
    OrganizationHours,
    UserAvailability,
    Contact,
    ContactEmail,
    CallContext,
    Conversation,
    Call,
    Recording,
    HeldRecording,
    ContactNote,
    Message,
    TransferRequest,
    ToolInvocation,
    Event,
    LogCheckpoint,
    AuditEntry,
    AuditChain,
    SignInAttempts,
    OpenSockets,
)
