from collections.abc import Callable
from typing import Any

import httpx
import peewee
import pytest
from pydantic import SecretStr

from actions import administer
from actions.read_audit import AuditLine, audit_entries
from domain.audit import COMMAND_LINE, Actor, AuditAction, mask_email
from domain.errors import InvalidRequest, NotFound
from domain.principals import Role
from domain.times import later
from persistence import audit, users
from persistence.models import AuditEntry
from tests.support.api import Api

pytestmark = pytest.mark.any_engine

EMAIL = "superadmin@demo.example"


async def lines(api: Api, *actions: AuditAction) -> list[AuditLine]:
    """Return the entries of those kinds, oldest first, without those of the demo's making."""
    found = await audit_entries(api.relay, limit=1000)
    return [line for line in reversed(found) if line.action in actions and line.client != COMMAND_LINE.client]


async def superadmin_id(api: Api) -> str:
    user = await api.read(lambda: users.by_email(EMAIL))
    assert user is not None
    return str(user.id)


def told(line: AuditLine) -> tuple[str | None, str | None, str | None]:
    return line.organization_id, line.who, line.client


async def test_a_change_of_the_configuration_names_its_fields_and_not_their_values(api: Api) -> None:
    """Who, from where, in which request, and what was touched; a fresh tool secret is an entry of its own."""
    given = {"sinchEstKeySecret": "very secret", "sinchEstTrunkDomain": "x.example", "generateToolSecret": True}
    response = await api.configure(given, headers={"X-Request-Id": "audited-1"})
    rotated, changed = sorted(
        await lines(api, AuditAction.CONFIG_CHANGED, AuditAction.TOOL_SECRET_ROTATED),
        key=lambda line: line.action,
        reverse=True,
    )

    assert response.status_code == 200
    assert changed.details == {"fields": ["sinch_est_key_secret_sealed", "sinch_est_trunk_domain"]}
    assert rotated.details == {}
    for line in (changed, rotated):
        assert told(line) == (api.organization_id, EMAIL, "127.0.0.1")
        assert line.request_id == "audited-1"
    entries = await api.read(lambda: str(list(AuditEntry.select().dicts())))
    assert "very secret" not in entries
    assert response.json()["elevenlabsToolSecret"] not in entries


async def test_a_change_that_was_refused_is_no_change(api: Api) -> None:
    """Nothing is written down of what did not happen."""
    await api.configure({"aiVoiceProvider": 5})
    await api.post("/api/calls/voice-ai/config", {}, api.demo.api_key.get_secret_value())

    assert await lines(api, AuditAction.CONFIG_CHANGED) == []


async def test_a_key_is_written_down_when_it_is_made_read_and_replaced(api: Api) -> None:
    """In order, for the user it belongs to, and never the key."""
    await administer.create_user(
        api.relay,
        api.organization_id,
        email="sam@example.com",
        full_name="Sam",
        password=SecretStr("correct horse"),
        role=Role.AGENT,
    )
    token = (await administer.issue_token(api.relay, "sam@example.com", 60)).get_secret_value()
    headers = {"Authorization": f"Bearer {token}"}
    answers = [await api.http.get("/api/user/api-key", headers=headers) for _ in range(2)]
    answers.append(await api.http.post("/api/user/api-key/regenerate", headers=headers))
    found = await lines(api, AuditAction.API_KEY_CREATED, AuditAction.API_KEY_READ, AuditAction.API_KEY_REGENERATED)

    assert [line.action for line in found] == ["api_key.created", "api_key.read", "api_key.regenerated"]
    assert {told(line) for line in found} == {(api.organization_id, "sam@example.com", "127.0.0.1")}
    entries = await api.read(lambda: str(list(AuditEntry.select().dicts())))
    assert not any(answer.json()["data"]["apiKey"] in entries for answer in answers)


async def test_signing_in_failing_to_and_signing_out_are_written_down(api: Api) -> None:
    """A failure says whose account it was, masked, and belongs to nobody when there is no such account."""
    password = api.demo.superadmin_password.get_secret_value()

    async def login(email: str, given: str) -> httpx.Response:
        return await api.post("/api/auth/login", {"email": email, "password": given}, None)

    await login(EMAIL, "wrong")
    await login("nobody@example.com", "wrong")
    token = (await login(EMAIL, password)).json()["token"]
    await api.post("/api/auth/sign-out", b"", token)
    failed, unknown, signed_in, signed_out = await lines(
        api, AuditAction.SIGN_IN_FAILED, AuditAction.SIGNED_IN, AuditAction.SIGNED_OUT
    )

    assert told(failed) == (api.organization_id, None, "127.0.0.1")
    assert (failed.subject, failed.details) == (await superadmin_id(api), {"email": "s•••@demo.example"})
    assert told(unknown) == (None, None, "127.0.0.1")
    assert (unknown.subject, unknown.details) == (None, {"email": "•••"})
    assert told(signed_in) == told(signed_out) == (api.organization_id, EMAIL, "127.0.0.1")


async def test_the_command_line_is_written_down_too(api: Api) -> None:
    """Users made, passwords changed, people signed out, keys and secrets made by whoever sits at the machine."""
    await administer.change_password(api.relay, EMAIL, SecretStr("another password"))
    await administer.sign_out_user(api.relay, EMAIL)
    entries = await audit_entries(api.relay, "Demo")

    assert {line.client for line in entries} == {"command line"}
    assert [line.action for line in entries] == [
        "user.signed_out",
        "user.password_changed",
        "tool_secret.rotated",
        "api_key.created",
        "sms.changed",
        "number.added",
        "number.added",
        "user.created",
    ]


CHANGES: dict[str, Callable[[], Any]] = {
    "changed": lambda: AuditEntry.update(action="nothing").execute(),
    "removed": lambda: AuditEntry.delete().execute(),
}


@pytest.mark.parametrize("change", ["changed", "removed"])
@pytest.mark.each_engine
async def test_an_entry_can_be_neither_changed_nor_removed(api: Api, change: str) -> None:
    """The database itself refuses, whatever asks it to, and what stood there stays."""
    before = await api.read(lambda: list(AuditEntry.select().dicts()))
    with pytest.raises(peewee.IntegrityError):
        await api.relay.database.write(CHANGES[change])

    assert before
    assert await api.read(lambda: list(AuditEntry.select().dicts())) == before


@pytest.mark.each_engine
async def test_an_entry_shares_the_fate_of_what_it_tells_about(api: Api) -> None:
    """A unit that fails takes its entry with it."""

    def unit() -> None:
        audit.record(api.organization_id, AuditAction.CONTACT_ERASED, Actor("a" * 24), subject="b" * 24)
        raise InvalidRequest("No")

    with pytest.raises(InvalidRequest):
        await api.relay.database.write(unit)

    assert await lines(api, AuditAction.CONTACT_ERASED) == []


@pytest.mark.each_engine
async def test_the_log_is_read_newest_first_by_organization_kind_and_time(api: Api) -> None:
    """And an organization's log holds nothing of another's."""
    other = await administer.create_organization(api.relay, "Other")
    for organization_id in (api.organization_id, other.id):
        await api.relay.database.write(
            lambda organization_id=organization_id: audit.record(  # type: ignore[misc]
                organization_id, AuditAction.RECORDING_LISTENED, Actor(), subject="c" * 24, details={"seconds": 3}
            )
        )
    ours = await audit_entries(api.relay, "Demo", action=AuditAction.RECORDING_LISTENED)
    theirs = await audit_entries(api.relay, other.id)
    everything = await audit_entries(api.relay, limit=1000)

    assert [(line.organization_id, line.details) for line in ours] == [(api.organization_id, {"seconds": 3})]
    assert [line.organization_id for line in theirs] == [other.id]
    assert [line.at for line in everything] == sorted((line.at for line in everything), reverse=True)
    assert await audit_entries(api.relay, since=later(60)) == []
    assert await audit_entries(api.relay, since=later(-3600), limit=1) == everything[:1]
    with pytest.raises(NotFound):
        await audit_entries(api.relay, "Nobody")
    with pytest.raises(InvalidRequest):
        await audit_entries(api.relay, since="yesterday")


@pytest.mark.parametrize("engine", ["sqlite"])
@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("alex@example.com", "a•••@example.com"),
        (" a@b ", "a•••@b"),
        ("no address", "•••"),
        ("", "•••"),
        ("a@b@example.com", "a•••@example.com"),
        ("@example.com", "•••@example.com"),
    ],
)
def test_a_masked_address_can_be_recognised_and_not_written_to(address: str, masked: str) -> None:
    """One letter and the host are left of it."""
    assert mask_email(address) == masked
