"""Tool secrets: how long each replaced one works, how many at once, when it was last used, and how it is ended."""

import pytest

from actions import administer
from domain.errors import NotFound
from domain.times import later
from persistence import tool_secrets
from persistence.models import AuditEntry, ToolSecret
from tests.support.api import Api

NOTE = {"phone_number": "+14165550100", "note": "Wants a callback."}


async def rotate(api: Api) -> str:
    return str((await api.configure({"generateToolSecret": True})).json()["elevenlabsToolSecret"])


async def opens(api: Api, secret: str) -> bool:
    response = await api.post("/api/webhook/elevenlabs/tools/create-note", NOTE, secret)
    return response.status_code == 200


async def test_every_replaced_secret_works_until_its_own_end(api: Api) -> None:
    """A save that is repeated neither ends the secret that live agents use, nor lengthens the life of an old one."""
    in_use = api.demo.tool_secret.get_secret_value()
    newer = [await rotate(api) for _ in range(3)]
    works = [await opens(api, secret) for secret in (in_use, *newer)]
    ended = later(-1)
    (oldest, *_) = sorted(await administer.list_tool_secrets(api.relay, api.organization_id), key=lambda one: one.id)
    await api.relay.database.write(
        lambda: ToolSecret.update(expires_at=ended).where(ToolSecret.id == oldest.id).execute()
    )
    after = [await opens(api, secret) for secret in (in_use, *newer)]
    newest = await rotate(api)

    assert works == [True] * 4
    assert after == [False, True, True, True]
    assert [await opens(api, secret) for secret in (in_use, *newer, newest)] == [False, True, True, True, True]


async def test_no_more_than_ten_replaced_secrets_work(api: Api) -> None:
    """One more ends the oldest, and nothing of it is kept."""
    secrets = [api.demo.tool_secret.get_secret_value()]
    secrets += [await rotate(api) for _ in range(tool_secrets.MAX_REPLACED + 1)]
    works = [await opens(api, secret) for secret in secrets]

    assert works == [False] + [True] * (tool_secrets.MAX_REPLACED + 1)
    assert await api.read(lambda: ToolSecret.select().count()) == tool_secrets.MAX_REPLACED + 1


async def test_replaced_secrets_are_ended_by_command(api: Api) -> None:
    """All of them, or one by its id; the newest works on, and the audit log says so."""
    old, *_, newest = [await rotate(api) for _ in range(3)]
    ended = await administer.end_tool_secrets(api.relay, api.organization_id)
    works = [await opens(api, secret) for secret in (old, newest)]
    (last,) = await administer.list_tool_secrets(api.relay, api.organization_id)
    await administer.end_tool_secrets(api.relay, api.organization_id, last.id)
    audited = await api.read(lambda: AuditEntry.select().where(AuditEntry.action == "tool_secret.ended").count())

    assert (ended, works) == (3, [False, True])
    assert not await opens(api, newest)
    assert audited == 2
    with pytest.raises(NotFound):
        await administer.end_tool_secrets(api.relay, api.organization_id, last.id)


async def test_secret_of_another_organization_is_not_ended(api: Api) -> None:
    """Neither by its id nor with all the others."""
    other = await administer.create_organization(api.relay, "Other", "CA")
    await administer.new_tool_secret(api.relay, other.id)
    (theirs,) = await administer.list_tool_secrets(api.relay, other.id)
    with pytest.raises(NotFound):
        await administer.end_tool_secrets(api.relay, api.organization_id, theirs.id)
    await administer.end_tool_secrets(api.relay, api.organization_id)

    assert len(await administer.list_tool_secrets(api.relay, other.id)) == 1


async def test_last_use_is_kept_to_the_minute(api: Api) -> None:
    """The first use is recorded, and one within the same minute costs no write."""
    secret = api.demo.tool_secret.get_secret_value()
    (before,) = await administer.list_tool_secrets(api.relay, api.organization_id)
    await opens(api, secret)
    await api.relay.background.settle()
    (used,) = await administer.list_tool_secrets(api.relay, api.organization_id)
    await opens(api, secret)
    await api.relay.background.settle()
    (again,) = await administer.list_tool_secrets(api.relay, api.organization_id)

    assert before.last_used_at is None
    assert used.last_used_at is not None
    assert again.last_used_at == used.last_used_at
