"""No verb of `persistence` gives one organization anything of another, or changes it.

Two organizations have the same of everything that comes from outside: numbers, vendors' ids, ids of calls and of
conversations. Every verb that takes an organization is called for one of them, with these words and with the ids of
each. It must return what it returns where the other does not exist, and leave the other's rows as they are. A verb
nobody has thought of fails the test.
"""

import importlib
import inspect
import pkgutil
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import peewee
import pytest

import persistence
from domain.audit import Actor, AuditAction
from domain.calls import EVERY_CALL, CallFilter
from domain.events import Event, EventName
from domain.identifiers import new_id
from domain.principals import KeyKind
from domain.statuses import MessageStatus, UserStatus
from domain.times import later
from persistence import models, units
from persistence.quotas import Own
from persistence.retention import Retention
from persistence.units import Row
from tests.support import sqlite

THEIR_NUMBER, OUR_NUMBER, OLD = "+14165550123", "+12362320246", "2020-01-01T00:00:00.000Z"
SHARED = "the same for both"
FOR_EVER = "9999-01-01T00:00:00.000Z"
ID, MOMENT = re.compile(r"[0-9a-f]{24}"), re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]{12}Z")

# What each parameter is given; the names of rows stand for the id of that row.
CALL_VALUES = {
    "source": "ingest",
    "direction": "inbound",
    "from_number": THEIR_NUMBER,
    "to_number": OUR_NUMBER,
    "status": "completed",
    "duration": 1,
    "started_at": OLD,
    "ended_at": OLD,
}
TEXT_VALUES = {
    "author": "ai",
    "text": "x",
    "from_number": OUR_NUMBER,
    "to_number": THEIR_NUMBER,
    "provider": "console",
}
WORDS: dict[str, Any] = {
    "act": lambda: "f" * 24,
    "action": AuditAction.SIGNED_IN,
    "actor": Actor(),
    "after": None,
    "address": "new@example.com",
    "agent_id": SHARED,
    "at": OLD,
    "attachments": [],
    "before": FOR_EVER,
    "call_sid": SHARED,
    "channel_identifier": OUR_NUMBER,
    "channel_type": "sms",
    "claimed": SHARED,
    "content_type": "audio/mpeg",
    "credentials_sealed": "sealed",
    "details": {},
    "email": "new@example.com",
    "elevenlabs_conversation_id": SHARED,
    "events": [Event(EventName.CONTACT_ERASED, {})],
    "external_call_id": SHARED,
    "fingerprint": SHARED,
    "first_name": "New",
    "full_name": "New",
    "is_default": True,
    "key": "a/new/key",
    "expires_at": None,
    "kind": "both",
    "label": None,
    "last_name": "Name",
    "limit": 100,
    "mentions": [],
    "name": "A name",
    "note": "x",
    "offset": 0,
    "our_number": OUR_NUMBER,
    "outcome": "connected",
    "password_hash": "x",
    "phone_number": THEIR_NUMBER,
    "previous_expires_at": FOR_EVER,
    "provider": "console",
    "reason": None,
    "retention": Retention(1, 1, 1),
    "role": "agent",
    "sealed": "sealed",
    "search": None,
    "sequence": 0,
    "sha256": "0" * 64,
    "since": None,
    "size": 1,
    "status": MessageStatus.DELIVERED,
    "subject": None,
    "tool": "send-sms",
    "tool_id": SHARED,
    "total": 100,
    "transfers": "[]",
    "until": later(60),
    "up_to": None,
    "wanted": EVERY_CALL,
    "window": 60,
}
# Where a name means something else than everywhere.
OWN_WORDS: dict[str, dict[str, Any]] = {
    "agents.update_workspace": {"values": {"secret_error": "x"}},
    "audit.newest": {"action": None},
    "availability.number_of_one": {"at": OLD},
    "availability.put": {"values": {"is_online": True, "is_available": True, "online_until": FOR_EVER}},
    "call_contexts.find": {"conversation_id": SHARED, "since": OLD},
    "call_contexts.give_to": {"number": "+14165550199"},
    "call_contexts.put": {"values": {"elevenlabs_conversation_id": "conv_new"}},
    "calls.add": {"call": models.Call(**CALL_VALUES | {"external_call_id": "new"})},
    "calls.by_conversation": {"conversation_id": SHARED},
    "calls.change": {"values": {"summary": "x"}},
    "contact_notes.change": {"values": {"note": "changed"}},
    "contacts.name_if_unknown": {"name": "A name"},
    "api_keys.add": {"kind": KeyKind.BOTH, "name": "another"},
    "api_keys.of_user": {"name": "default"},
    "default_region": {},
    "quotas.put": {"own": Own(1, 1, 1)},
    "users.set_role": {"role": "agent"},
    "users.set_status": {"status": UserStatus.DISABLED},
    "tool_secrets.end": {"secret_id": None},
    "tool_secrets.end_others": {"expires_at": FOR_EVER},
    "tool_secrets.expire": {"expires_at": FOR_EVER},
    "tool_secrets.replace": {"expires_at": FOR_EVER},
    "transfer_requests.attach_by_time": {
        "call": models.Call(id="f" * 24, contact=None, started_at=OLD, ended_at=FOR_EVER)
    },
    "organization_hours.put": {"changes": {"holidays": "[1]"}, "otherwise": {"timezone": "UTC"}},
    "organizations.set_region": {"default_region": "GB"},
    "transfer_requests.add": {"values": {"reason": "x"}},
    "voice_ai_configs.update": {"values": {"ai_voice_provider": "elevenlabs"}},
}
FILTERS: list[Callable[[dict[str, str]], CallFilter]] = [
    lambda ids: CallFilter(contact_id=ids["contact_id"]),
    lambda ids: CallFilter(user_id=ids["user_id"]),
    lambda ids: CallFilter(external_call_id=SHARED),
]


def verbs() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Find every public function that takes an organization."""
    for found in pkgutil.iter_modules(persistence.__path__):
        module = importlib.import_module(f"persistence.{found.name}")
        for name, verb in vars(module).items():
            is_ours = inspect.isfunction(verb) and verb.__module__ == module.__name__ and not name.startswith("_")
            if is_ours and "organization_id" in inspect.signature(verb).parameters:
                yield f"{found.name}.{name}", verb


VERBS = {name: verb for name, verb in verbs() if name != "pages.among"}


def calls_of(name: str, organization_id: str, ids: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield what the verb is called with for the organization, when the ids of rows are `ids`."""
    given = WORDS | ids | OWN_WORDS.get(name, {}) | {"organization_id": organization_id}
    given |= {
        "ids": sorted(ids.values()),
        "removed": sorted(ids.values()),
        "key_ids": [ids["key_id"]],
        "contact_ids": [ids["contact_id"]],
        "digest": new_id(),
    }
    if name == "messages.queue":
        given["values"] = TEXT_VALUES | {"contact": ids["contact_id"], "conversation": ids["conversation_id"]}
    parameters = inspect.signature(VERBS[name]).parameters
    missing = [parameter for parameter in parameters if parameter not in given and parameter not in ("error",)]
    assert not missing, f"{name} takes {missing}; say what the walk is to give it"
    yield {parameter: given[parameter] for parameter in parameters if parameter in given}
    if "wanted" in parameters:
        for make in FILTERS:
            yield {parameter: given[parameter] for parameter in parameters} | {"wanted": make(ids)}


def populate(name: str, invoked_at: str) -> dict[str, str]:
    """Make an organization that has one row of every kind; return its ids by the names of parameters."""
    organization = models.Organization.create(name=name, event_sequence=2, call_count=1).id
    mine: dict[str, Any] = {"organization": organization}
    user = models.User.create(**mine, email=f"{name}@example.com", full_name=name, password_hash="x", role="agent").id
    key = models.ApiKey.create(**mine, user=user, digest=f"key of {name}", sealed="x").id
    models.PhoneNumber.create(**mine, number=OUR_NUMBER, is_default=True)
    models.PhoneNumber.create(**mine, number=f"+1 {name}")
    models.ToolSecret.create(**mine, digest=f"replaced secret of {name}", expires_at=FOR_EVER)
    models.ToolSecret.create(**mine, digest=f"secret of {name}")
    models.VoiceAiConfig.create(**mine, webhook_secret_sealed=name, webhook_wanted=1)
    models.SmsConfig.create(**mine, provider="console", credentials_sealed=name)
    models.AgentWorkspace.create(**mine, secret_id=name, claim=SHARED, claimed_until=OLD)
    there = {"is_online": True, "is_available": True, "online_until": FOR_EVER, "transfer_number": THEIR_NUMBER}
    models.UserAvailability.create(**mine, user=user, **there)
    models.CallContext.create(
        **mine,
        elevenlabs_conversation_id=SHARED,
        call_sid=SHARED,
        caller_number="+14165550199",
        created_at="2021-01-01T00:00:00.000Z",
    )
    models.AgentTool.create(**mine, name="create_note", tool_id=SHARED)
    models.ConnectedAgent.create(**mine, agent_id=SHARED, name=name, transfers="[1]")
    contact = models.Contact.create(**mine, phone_number=THEIR_NUMBER, name="x", name_is_placeholder=True).id
    models.ContactEmail.create(**mine, contact=contact, address=f"{name}@example.org", is_primary=True)
    models.OrganizationHours.create(**mine, timezone="UTC")
    erased = models.Contact.create(**mine, phone_number="-1", name="", erased_at=OLD).id
    conversation = models.Conversation.create(
        **mine, contact=contact, channel_type="sms", channel_identifier=OUR_NUMBER
    ).id
    spoken = {"contact": contact, "elevenlabs_conversation_id": SHARED}
    call = models.Call.create(
        **mine,
        **spoken,
        **CALL_VALUES,
        user=user,
        conversation=conversation,
        external_call_id=SHARED,
        transcript="[]",
        created_at=OLD,
    ).id
    audio = {"content_type": "audio/mpeg", "size": 1, "sha256": "x", "created_at": OLD}
    recording = models.Recording.create(**mine, **audio, call=call, key=f"{name}/1").id
    held = models.HeldRecording.create(**mine, **audio, elevenlabs_conversation_id=SHARED, key=f"{name}/2").id
    # What an erasure of an earlier version left.
    left = CALL_VALUES | {"external_call_id": "left", "elevenlabs_conversation_id": "left"}
    orphan = models.Call.create(**mine, **left, created_at=OLD).id
    models.Recording.create(**mine, **audio, call=orphan, key=f"{name}/3")
    models.HeldRecording.create(**mine, **audio, elevenlabs_conversation_id="left", key=f"{name}/4")
    note = models.ContactNote.create(**mine, **spoken, user=user, type="note", note="x", source_tool="send-sms").id
    message = models.Message.create(
        **mine, **spoken, **TEXT_VALUES, conversation=conversation, status="sent", direction="outbound"
    ).id
    wish = models.TransferRequest.create(**mine, elevenlabs_conversation_id=SHARED, contact=contact).id
    models.TransferRequest.create(**mine, elevenlabs_conversation_id=SHARED)
    models.TransferRequest.create(**mine, call=call, contact=contact)
    models.ToolInvocation.create(**mine, tool="send-sms", fingerprint=SHARED, result_id=message, invoked_at=invoked_at)
    for sequence in (1, 2):
        models.Event.create(**mine, sequence=sequence, name="call_ended", at=OLD, contact_id=contact, data="{}")
    models.AuditEntry.create(**mine, action="user.signed_in", sequence=1)
    return {
        "organization_id": organization,
        "user_id": user,
        "key_id": key,
        "contact_id": contact,
        "erased_id": erased,
        "conversation_id": conversation,
        "call_id": call,
        "recording_id": recording,
        "held_id": held,
        "note_id": note,
        "number": f"+1 {name}",
        "message_id": message,
        "provider_message_id": SHARED,
        "wish_id": wish,
        "request_id": wish,
    }


@dataclass(frozen=True)
class Pair:
    """The organization that asks, the other one, and a copy of the database in which there is no other one."""

    asking: dict[str, str]
    other: dict[str, str]
    both: Any
    alone: Any


@pytest.fixture(params=["the other one came first", "the other one came last"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    sqlite.create(tmp_path)
    path, copy = tmp_path / "relay.db", tmp_path / "alone.db"
    both = peewee.SqliteDatabase(str(path), pragmas={"foreign_keys": 1})
    with units.running_on(both), both.atomic():
        made = [populate(name, later(-1)) for name in ("first", "last")]
    asking, other = made[::-1] if "first" in request.param else made
    with closing(sqlite3.connect(copy)) as target:
        both.connection().backup(target)
        for (trigger,) in target.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            target.execute(f"DROP TRIGGER {trigger}")
        for table, column in whose():
            target.execute(f"DELETE FROM {table} WHERE {column} = ?", (other["organization_id"],))
        target.commit()
    alone = peewee.SqliteDatabase(str(copy), pragmas={"foreign_keys": 1})
    yield Pair(asking, other, both, alone)
    both.close()
    alone.close()


def whose() -> list[tuple[str, str]]:
    """Return every table with the column that says whose a row is."""
    fields = [(model, model._meta.fields.get("organization")) for model in models.MODELS]
    owned = [(model._meta.table_name, field.column_name) for model, field in fields if field]
    return [*owned, (models.Organization._meta.table_name, "id")]


def rows_of(engine: Any, organization_id: str) -> list[Any]:
    """Return every row of the organization."""
    return [
        engine.execute_sql(f"SELECT * FROM {table} WHERE {column} = ? ORDER BY 1", (organization_id,)).fetchall()
        for table, column in whose()
    ]


def outcome(pair: Pair, engine: Any, name: str, arguments: dict[str, Any]) -> tuple[Any, bool]:
    """Call the verb and undo what it did; return what it returned, and whether the other's rows are as they were."""
    with units.running_on(engine), engine.atomic() as undone:
        before = rows_of(engine, pair.other["organization_id"])
        try:
            # Whatever is made a moment later differs between the two; it is not what is compared.
            result = plain(VERBS[name](**arguments), {*pair.asking.values(), *pair.other.values()})
        except (peewee.IntegrityError, peewee.DoesNotExist) as error:
            result = type(error)
        is_unchanged = rows_of(engine, pair.other["organization_id"]) == before
        undone.rollback()
    return result, is_unchanged


def plain(value: Any, known: set[str]) -> Any:
    """Return the value in a form that can be compared: ids and moments that were made just now are alike."""
    if isinstance(value, str):
        is_new = (ID.fullmatch(value) and value not in known) or (MOMENT.fullmatch(value) and value > OLD)
        return "new" if is_new else value
    if isinstance(value, Row):
        return type(value).__name__, plain(value.__data__, known)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), known)
    if isinstance(value, dict):
        return {key: plain(each, known) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, known) for each in value]
    return sorted(value) if isinstance(value, set) else value


def test_no_verb_gives_or_changes_anything_of_another_organization(pair: Pair) -> None:
    """Whether outside words are the same for both, or a row of the other is named."""
    holes = []
    for name in VERBS:
        for ids in (pair.asking, pair.other):
            for arguments in calls_of(name, pair.asking["organization_id"], ids):
                there, is_unchanged = outcome(pair, pair.both, name, arguments)
                alone, _ = outcome(pair, pair.alone, name, arguments)
                # What refers to a row that does not exist fails; where it exists, to look it up is the caller's part.
                if not is_unchanged or (alone is not peewee.IntegrityError and there != alone):
                    holes.append((name, "its own ids" if ids is pair.asking else "the other's ids", there, alone))

    assert holes == []


def test_the_walk_finds_what_it_asks_for(pair: Pair) -> None:
    """With the ids of its own rows the organization gets them, so the walk asks for things that are there."""
    empty = set()
    for name in VERBS:
        for arguments in calls_of(name, pair.asking["organization_id"], pair.asking):
            result, _ = outcome(pair, pair.both, name, arguments)
            if result in ([], {}, None) and inspect.signature(VERBS[name]).return_annotation is not None:
                empty.add(name)

    assert empty == set()
