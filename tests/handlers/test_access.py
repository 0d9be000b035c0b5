"""Keeping people out again: users that are disabled or removed, roles, and the API keys they had."""

import re
from typing import Any

import pytest
from pydantic import SecretStr

from actions import administer, control_access
from actions.authenticate import identify, revoked
from domain.errors import InvalidRequest, NotFound, Unauthenticated
from domain.principals import Role
from persistence import users
from persistence.models import ApiKey, AuditEntry, Call, ContactNote, KnownAddress, User
from tests.handlers.test_auth import LOGIN, PASSWORD, VERIFY, add_user, get, login
from tests.handlers.test_calls import missed
from tests.support.api import INGEST, Api
from tests.support.reading import contact_of

EMAIL = "sam@example.com"


async def audited(api: Api, user_id: str) -> list[str]:
    """Return the actions the audit log has about the user, in order."""

    def unit() -> list[str]:
        mine = AuditEntry.select().where(AuditEntry.subject == user_id)
        return [entry.action for entry in mine.order_by(AuditEntry.sequence)]

    return await api.read(unit)


async def key_of(api: Api, user: User) -> str:
    return (await administer.api_key_of(api.relay, api.organization_id, user.id)).get_secret_value()


async def statuses(api: Api, token: str, key: str) -> list[int]:
    """Return how signing in, the token and the API key are answered."""
    return [
        (await login(api, EMAIL)).status_code,
        (await get(api, VERIFY, token)).status_code,
        (await api.post(INGEST, missed(), key)).status_code,
    ]


async def test_a_disabled_user_gets_in_by_no_way(api: Api) -> None:
    """Password, token, API key and what listens with them; enabling brings password and key back, not the token."""
    user = await add_user(api)
    token, key = (await login(api, EMAIL)).json()["token"], await key_of(api, user)
    listening = [await identify(api.relay, each) for each in (token, key)]
    assert await revoked(api.relay, listening) == []

    await control_access.disable_user(api.relay, EMAIL)
    wrong = await login(api, EMAIL, "not the password")
    assert await statuses(api, token, key) == [401, 401, 401]
    assert (await login(api, EMAIL)).content == wrong.content
    assert await revoked(api.relay, listening) == listening
    for each in (token, key):
        with pytest.raises(Unauthenticated):
            await identify(api.relay, each)

    await control_access.enable_user(api.relay, EMAIL)
    assert await statuses(api, token, key) == [200, 401, 201]
    assert [action for action in await audited(api, user.id) if "abled" in action] == ["user.disabled", "user.enabled"]


async def test_a_removed_user_is_gone_and_what_they_wrote_stays(api: Api) -> None:
    """Calls, notes and the audit log keep their rows; name, address, password, keys and known addresses go."""
    user = await add_user(api)
    token, key = (await login(api, EMAIL)).json()["token"], await key_of(api, user)
    note = {"contactId": await contact_of(api), "note": "Written by Sam."}
    assert (await api.post("/api/contact-notes", note, token)).status_code == 201
    assert (await api.post(INGEST, missed(), key)).status_code == 201
    before = len(await audited(api, user.id))

    assert await control_access.remove_user(api.relay, EMAIL) == 1
    assert await statuses(api, token, key) == [401, 401, 401]
    row = await api.read(lambda: User.get_by_id(user.id))
    notes = await api.read(lambda: ContactNote.select().where(ContactNote.user == user.id).count())
    caller = await api.read(lambda: Call.get().user_id)

    assert (row.status, row.full_name, row.password_hash) == ("removed", "Removed user", "")
    assert "sam" not in row.email
    assert (notes, caller) == (1, user.id)
    assert await api.read(lambda: ApiKey.select().where(ApiKey.user == user.id).count()) == 0
    assert await api.read(lambda: KnownAddress.select().where(KnownAddress.user == user.id).count()) == 0
    assert (await audited(api, user.id))[before:] == ["api_key.revoked", "user.removed"]
    assert (await api.post(LOGIN, {"email": row.email, "password": PASSWORD}, None)).status_code == 401
    for refused in (control_access.enable_user(api.relay, row.email), administer.issue_token(api.relay, row.email, 60)):
        with pytest.raises(NotFound):
            await refused

    again = await add_user(api)
    assert again.id != user.id
    assert (await login(api, EMAIL)).status_code == 200


async def test_a_role_counts_from_the_next_request_on(api: Api) -> None:
    """A token that is out already has the new role, and the change is audited with both."""
    user = await add_user(api)
    token = (await login(api, EMAIL)).json()["token"]
    before = (await api.post("/api/calls/voice-ai/config", {}, token)).status_code
    await control_access.change_role(api.relay, EMAIL, Role.SUPERADMIN)
    after = (await api.post("/api/calls/voice-ai/config", {}, token)).status_code
    details = await api.read(lambda: AuditEntry.get(AuditEntry.action == "user.role_changed").details)

    assert (before, after) == (401, 200)
    assert details == '{"from":"agent","to":"superadmin"}'
    assert (await audited(api, user.id))[-1] == "user.role_changed"


@pytest.mark.parametrize(
    "change",
    [
        control_access.disable_user,
        control_access.remove_user,
        lambda relay, email, **force: control_access.change_role(relay, email, Role.ADMIN, **force),
    ],
    ids=["disable", "remove", "demote"],
)
async def test_the_last_active_superadmin_stays_unless_it_is_forced(api: Api, change: Any) -> None:
    """A disabled superadmin does not count as another one, and an organization's count is its own."""
    other = await administer.create_organization(api.relay, "Other")
    for organization_id, email in ((other.id, "o@example.com"), (api.organization_id, "d@example.com")):
        await administer.create_user(
            api.relay,
            organization_id,
            email=email,
            full_name="Another",
            password=SecretStr(PASSWORD),
            role=Role.SUPERADMIN,
        )
    await control_access.disable_user(api.relay, "d@example.com")
    last = api.demo.superadmin_email

    with pytest.raises(InvalidRequest, match="last active superadmin"):
        await change(api.relay, last)
    assert (await get(api, VERIFY, api.superadmin_token)).status_code == 200

    await control_access.enable_user(api.relay, "d@example.com")
    await change(api.relay, last)
    with pytest.raises(InvalidRequest):
        await change(api.relay, "d@example.com")
    await change(api.relay, "d@example.com", force=True)
    assert await api.read(lambda: users.active_with_role(api.organization_id, "superadmin")) == 0


async def test_a_new_password_revokes_the_keys_when_asked_to_and_says_what_it_left(api: Api) -> None:
    """By itself it leaves them, because a machine may depend on them."""
    user = await add_user(api)
    key = await key_of(api, user)
    await control_access.named_key(api.relay, EMAIL, "crm")
    kept = await administer.change_password(api.relay, EMAIL, SecretStr("another password"))
    ingested = (await api.post(INGEST, missed(), key)).status_code
    left = await administer.change_password(api.relay, EMAIL, SecretStr(PASSWORD), revoke_keys=True)

    assert (kept, ingested, left) == (["default", "crm"], 201, [])
    assert (await api.post(INGEST, missed(), key)).status_code == 401
    assert (await audited(api, user.id))[-3:] == ["user.password_changed", "api_key.revoked", "api_key.revoked"]


async def test_signing_out_with_the_keys_leaves_nothing(api: Api) -> None:
    """Every token and every key."""
    user = await add_user(api)
    token, key = (await login(api, EMAIL)).json()["token"], await key_of(api, user)
    left = await administer.sign_out_user(api.relay, EMAIL, revoke_keys=True)

    assert left == []
    assert await statuses(api, token, key) == [200, 401, 401]


async def test_one_key_is_revoked_by_its_name(api: Api) -> None:
    """The others go on; a name nobody has is not found."""
    user = await add_user(api)
    first, named = await key_of(api, user), await control_access.named_key(api.relay, EMAIL, "crm")
    assert await control_access.revoke_keys(api.relay, EMAIL, "crm") == ["crm"]
    keys = (named.secret.get_secret_value(), first)

    assert re.fullmatch(r"tk_live_[0-9a-f]{36}", keys[0])
    assert [(await api.post(INGEST, missed(), key)).status_code for key in keys] == [401, 201]
    with pytest.raises(NotFound):
        await control_access.revoke_keys(api.relay, EMAIL, "crm")
