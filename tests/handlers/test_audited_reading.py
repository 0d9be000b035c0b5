"""With AUDIT_READS=on, who looked at what is in the audit log, and what cannot be written down is not shown."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from persistence.models import AuditEntry
from tests.support.api import Api, running_api, unwritable
from tests.support.contract import CONTRACT
from tests.test_tenancy import Tenants, _call, _leave_something_of_every_kind

# Reading operations that show nothing of a person, with the reason.
EXEMPT = {
    "get_auth_verify_token": "the caller's own account",
    "get_user_api_key": "audited always, as api_key.read",
    "get_user_api_keys": "the caller's own keys, without their secrets",
    "get_organization_usage": "figures",
    "get_organizations_business_hours": "a schedule",
    "get_recordings_audio": "opened by a link instead of a token; see below",
}

EXPECTED = {
    "get_contacts": ("contacts.listed", None),
    "get_contacts_contact": ("contact.read", "contactId"),
    "get_contacts_timeline": ("timeline.read", "contactId"),
    "get_contact_notes": ("notes.read", "contactId"),
    "get_calls_history": ("calls.listed", "contactId"),
    "get_calls_call": ("call.read", "callId"),
    "get_calls_recording": ("recording.listened", "recordingId"),
    "post_contacts_phone_number": ("contact.read", "contactId"),
    "get_conversation_all": ("conversations.listed", "contactId"),
    "post_conversation_all": ("conversations.listed", "contactId"),
    "get_conversation": ("conversation.read", "conversationId"),
    "get_conversation_messages": ("messages.read", "conversationId"),
    "get_events": ("events.read", None),
    "get_calls_statistics": ("statistics.read", None),
    "get_calls_voice_ai_config": ("config.read", None),
}

READING = [one for one in CONTRACT.operations if one.id not in EXEMPT and (one.method == "GET" or one.id in EXPECTED)]


@pytest.fixture
async def audited(tmp_path: Path) -> AsyncIterator[Tenants]:
    async with running_api(tmp_path / "var", audit_reads="on") as api:
        ids = await _leave_something_of_every_kind(api)
        yield Tenants(api, ids, {}, set())


async def entries(api: Api) -> list[AuditEntry]:
    return await api.read(lambda: list(AuditEntry.select().order_by(AuditEntry.sequence)))


async def test_every_operation_that_shows_a_person_is_audited_once(audited: Tenants) -> None:
    """Who, what, from where and in which request; an operation nobody has thought of fails the test."""
    api = audited.api
    assert {one.id for one in READING} == set(EXPECTED)
    for operation in READING:
        before = await entries(api)
        answer = await _call(audited, operation, api.superadmin_token)
        (entry,) = (await entries(api))[len(before) :]
        action, subject = EXPECTED[operation.id]

        assert answer.status_code == 200, answer.text
        assert (entry.action, entry.subject) == (action, subject and audited.ids[subject]), operation.id
        assert (entry.organization_id, entry.user_id) == (api.organization_id, audited.ids["userId"])
        assert (entry.client, entry.request_id) == ("127.0.0.1", answer.headers["x-request-id"])


async def test_an_entry_holds_nothing_of_whom_it_is_about(audited: Tenants) -> None:
    """Ids and figures: a search for a name does not put the name into a log that is never erased."""
    await audited.api.http.get(
        "/api/contacts?search=Zebediah", headers={"Authorization": f"Bearer {audited.api.superadmin_token}"}
    )
    stored = str([entry.__data__ for entry in await entries(audited.api)])

    assert '"isSearch":true' in stored
    assert "Zebediah" not in stored


async def test_what_is_not_there_or_not_theirs_is_no_reading(audited: Tenants) -> None:
    """404 and 401 show nothing."""
    before = await entries(audited.api)
    nobodys = Tenants(audited.api, dict.fromkeys(audited.ids, "0" * 24), {}, set())
    operation = next(one for one in READING if one.id == "get_contacts_contact")
    answers = [await _call(nobodys, operation, audited.api.superadmin_token), await _call(audited, operation, None)]

    assert [answer.status_code for answer in answers] == [404, 401]
    assert len(await entries(audited.api)) == len(before)


@pytest.mark.parametrize("operation", READING, ids=lambda operation: operation.id)
async def test_what_cannot_be_written_down_is_not_shown(audited: Tenants, operation: Any) -> None:
    """503 with Retry-After in the operation's envelope, and nothing of the person in it."""
    with unwritable(audited.api):
        answer = await _call(audited, operation, audited.api.superadmin_token)

    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert "Zebediah" not in answer.text


async def test_reading_leaves_no_trace_unless_it_is_audited(tmp_path: Path) -> None:
    """By default a read writes nothing; the link to a recording is audited always."""
    async with running_api(tmp_path / "var") as api:
        quiet = Tenants(api, await _leave_something_of_every_kind(api), {}, set())
        before = await entries(api)
        answers: list[httpx.Response] = [await _call(quiet, operation, api.superadmin_token) for operation in READING]
        after = await entries(api)

    assert {answer.status_code for answer in answers} == {200}
    assert [entry.action for entry in after[len(before) :]] == ["recording.listened"]


async def test_each_fetch_behind_a_link_is_audited_with_where_it_came_from(audited: Tenants) -> None:
    """The link was handed out to a user; who it was passed on to shows by the address, whatever part they fetch."""
    api, url = audited.api, await _link(audited)
    before = await entries(api)
    answers = [await api.http.get(url), await api.http.get(url, headers={"Range": "bytes=1-2"})]
    added = (await entries(api))[len(before) :]
    forged = await api.http.get(re.sub("signature=[^&]{8}", "signature=00000000", url))
    outside = await api.http.get(url, headers={"Range": "bytes=99999999-"})

    assert [answer.status_code for answer in (*answers, forged, outside)] == [200, 206, 401, 416]
    assert [(one.action, one.subject, one.user_id, one.client) for one in added] == [
        ("recording.fetched", audited.ids["recordingId"], None, "127.0.0.1")
    ] * 2
    assert [one.request_id for one in added] == [answer.headers["x-request-id"] for answer in answers]
    assert len(await entries(api)) == len(before) + 2


async def test_audio_whose_fetch_cannot_be_written_down_is_not_sent(audited: Tenants) -> None:
    """As everything else."""
    url = await _link(audited)
    with unwritable(audited.api):
        answer = await audited.api.http.get(url)

    assert (answer.status_code, answer.json()["success"]) == (503, False)


async def _link(audited: Tenants) -> str:
    operation = next(one for one in READING if one.id == "get_calls_recording")
    url: str = (await _call(audited, operation, audited.api.superadmin_token)).json()["audioUrl"]
    return url.partition("https://relay.example")[2]
