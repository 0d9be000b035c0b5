"""Connexion 3 as its documentation shows it, and peewee: default validators, responses validated too."""

import hashlib
import os
import threading
from typing import Any

import connexion
import orjson
from peewee import (
    AutoField,
    BigIntegerField,
    BooleanField,
    CharField,
    Model,
    SqliteDatabase,
    TextField,
)

from bench.questions import CREATE_NOTE
from domain.errors import InvalidRequest
from domain.identifiers import new_id
from domain.phones import to_e164
from domain.times import later, now
from openapi import document

database = SqliteDatabase(
    os.environ["BENCH_DATABASE"],
    pragmas={"journal_mode": "wal", "synchronous": "full", "foreign_keys": 1, "cache_size": -16_000},
)
_lock = threading.Lock()


class Table(Model):
    class Meta:
        database = database
        legacy_table_names = False


class Organization(Table):
    id = CharField(primary_key=True)
    default_region = CharField(null=True)
    event_sequence = BigIntegerField()


class ToolSecret(Table):
    id = CharField(primary_key=True)
    organization_id = CharField()
    digest = CharField()
    expires_at = CharField(null=True)


class Contact(Table):
    id = CharField(primary_key=True)
    organization_id = CharField()
    phone_number = CharField()


class ContactNote(Table):
    id = CharField(primary_key=True, default=new_id)
    organization_id = CharField()
    contact_id = CharField()
    type = CharField()
    note = TextField()
    source_tool = CharField(null=True)
    elevenlabs_conversation_id = TextField(null=True)
    mentions = TextField(default="[]")
    attachments = TextField(default="[]")
    reactions = TextField(default="[]")
    is_edited = BooleanField(default=False)
    created_at = CharField(default=now)


class ToolInvocation(Table):
    id = CharField(primary_key=True, default=new_id)
    organization_id = CharField()
    tool = CharField()
    fingerprint = CharField()
    result_id = CharField()
    invoked_at = CharField()


class Event(Table):
    id = AutoField()
    organization_id = CharField()
    sequence = BigIntegerField()
    name = CharField()
    at = CharField()
    contact_id = CharField(null=True)
    data = TextField()


def by_tool_secret(token: str) -> dict[str, Any] | None:
    digest, secret = hashlib.sha256(token.encode()).hexdigest(), ToolSecret
    found = secret.get_or_none(secret.digest == digest, secret.expires_at.is_null() | (secret.expires_at > now()))
    return {"sub": found.organization_id} if found else None


def create_note(body: dict[str, Any], user: str) -> tuple[dict[str, Any], int]:
    text = body["note"].strip()
    if not text:
        return {"success": False, "error": "The note is empty, so nothing was saved."}, 200
    with _lock, database.atomic("IMMEDIATE"):
        note_id = _save(user, body["phone_number"], text, body.get("conversation_id"))
    if note_id is None:
        sentence = "No contact with that phone number was found, so the note was not saved."
        return {"success": False, "error": sentence}, 200
    return {"success": True, "note_id": note_id}, 200


def _save(organization_id: str, phone: str, text: str, conversation: str | None) -> str | None:
    organization = Organization.get_by_id(organization_id)
    try:
        number = to_e164(phone, organization.default_region)
    except InvalidRequest:
        return None
    contact = Contact.get_or_none(Contact.organization_id == organization_id, Contact.phone_number == number)
    if contact is None:
        return None
    fingerprint = hashlib.sha256(orjson.dumps(["create-note", conversation, number, text])).hexdigest()
    mine = (ToolInvocation.organization_id == organization_id) & (ToolInvocation.fingerprint == fingerprint)
    note_id, at = new_id(), now()
    values = {"result_id": note_id, "invoked_at": at}
    claimed = (
        ToolInvocation.insert(organization_id=organization_id, tool="create-note", fingerprint=fingerprint, **values)
        .on_conflict(
            conflict_target=[ToolInvocation.organization_id, ToolInvocation.fingerprint],
            update=values,
            where=ToolInvocation.invoked_at <= later(-30),
        )
        .as_rowcount()
        .execute()
    )
    if not claimed:
        result: str = ToolInvocation.get(mine).result_id
        return result
    note = ContactNote.create(
        id=note_id, organization_id=organization_id, contact_id=contact.id, type="ai_summary", note=text,
        source_tool="create-note", elevenlabs_conversation_id=conversation, created_at=at,
    )  # fmt: skip
    _append(organization_id, note)
    return note_id


def _append(organization_id: str, note: Any) -> None:
    this = Organization.id == organization_id
    Organization.update(event_sequence=Organization.event_sequence + 1).where(this).execute()
    sequence = Organization.select(Organization.event_sequence).where(this).scalar()
    source = {"tool": "create-note", "conversationId": note.elevenlabs_conversation_id}
    data = {
        "noteId": note.id, "contactId": note.contact_id, "type": "ai_summary", "note": note.note,
        "createdAt": note.created_at, "source": {name: value for name, value in source.items() if value},
    }  # fmt: skip
    Event.create(
        organization_id=organization_id, sequence=sequence, name="note_created", at=now(), contact_id=note.contact_id,
        data=orjson.dumps(data).decode(),
    )  # fmt: skip


def _invalid(request: Any, error: Any) -> Any:
    del request, error
    return connexion.lifecycle.ConnexionResponse(200, body='{"success":false,"error":"Invalid"}')


def _unauthorized(request: Any, error: Any) -> Any:
    del request, error
    return connexion.lifecycle.ConnexionResponse(401, body='{"success":false,"error":"Unauthorized"}')


def build() -> Any:
    """Only create-note is served; the published document, its security and its schemas are used as they are."""
    served = document.load().served
    specification = {**served, "paths": {CREATE_NOTE: served["paths"][CREATE_NOTE]}}
    scheme = specification["components"]["securitySchemes"]["bearerAuth"]
    scheme["x-bearerInfoFunc"] = "bench.peers.connexion_default.by_tool_secret"
    app = connexion.AsyncApp(__name__)
    app.add_api(specification, validate_responses=True, resolver=connexion.Resolver(lambda _: create_note))
    app.add_error_handler(connexion.exceptions.BadRequestProblem, _invalid)
    app.add_error_handler(connexion.exceptions.Unauthorized, _unauthorized)
    return app
