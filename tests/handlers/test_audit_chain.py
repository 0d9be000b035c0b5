"""The audit log is a chain: what was changed, removed or slipped in shows, at its end too."""

import asyncio
import hashlib
import itertools
import json
from collections.abc import Callable
from typing import Any

import peewee
import pytest

from actions import administer, read_audit
from actions.apply_retention import set_retention
from actions.quotas import set_own_limits
from actions.read_audit import audit_entries
from actions.verify_audit import verify_audit
from domain.audit import Actor, AuditAction
from persistence import audit, units
from persistence.models import AuditEntry, Organization
from persistence.quotas import Own
from persistence.retention import Retention
from tests.support.api import Api


async def write(api: Api, count: int, organization_id: str | None = None) -> None:
    """Write entries, as many at once."""
    chosen = organization_id or api.organization_id

    def unit() -> None:
        audit.record(chosen, AuditAction.CONTACT_READ, Actor("a" * 24, "127.0.0.1"), subject="b" * 24)

    await asyncio.gather(*(api.relay.database.write(unit, of=chosen) for _ in range(count)))


async def problems(api: Api, expected: tuple[str, ...] = ()) -> dict[str, str]:
    return {one.name: one.problem for one in await verify_audit(api.relay, expected) if one.problem}


async def tamper(api: Api, change: Callable[[], Any]) -> None:
    """Do as somebody with full access to the database might: switch the guard off and change something."""

    def unit() -> None:
        engine = units.engine()
        if isinstance(engine, peewee.SqliteDatabase):
            for name in ("audit_entry_UPDATE", "audit_entry_DELETE"):
                engine.execute_sql(f"DROP TRIGGER IF EXISTS {name}")
        else:
            engine.execute_sql("ALTER TABLE audit_entry DISABLE TRIGGER ALL")
        change()

    await api.relay.database.write(unit)


async def test_entries_written_at_once_are_one_chain(api: Api) -> None:
    """Numbered without gaps, in each organization for itself, and verified whole."""
    other = await administer.create_organization(api.relay, "Other")
    before = await api.read(lambda: audit.head(api.organization_id).length)
    await asyncio.gather(write(api, 40), write(api, 20, other.id))
    ours = await api.read(lambda: audit.after(api.organization_id, 0, 1000))
    verified = {one.name: (one.entries, one.problem) for one in await verify_audit(api.relay)}

    assert [entry.sequence for entry in ours] == list(range(1, before + 41))
    assert all(one.previous_digest == audit.digest_of(last) for last, one in itertools.pairwise(ours))
    assert verified == {"Demo": (before + 40, None), "Other": (20, None), "(no organization)": (0, None)}


async def test_entries_of_nobody_are_a_chain_too(api: Api) -> None:
    """Failed attempts to sign in to accounts that do not exist."""
    for n in range(3):
        await api.post("/api/auth/login", {"email": f"n{n}@example.com", "password": "guess"}, None)
    verified = {one.name: (one.entries, one.problem) for one in await verify_audit(api.relay)}

    assert verified["(no organization)"] == (3, None)
    await tamper(
        api, lambda: AuditEntry.delete().where(AuditEntry.organization.is_null(), AuditEntry.sequence == 3).execute()
    )
    assert await problems(api) == {"(no organization)": "entry 3 is missing"}


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "changed": (lambda mine: AuditEntry.update(user_id="c" * 24).where(mine, AuditEntry.sequence == 6), "entry 6 was"),
    "the last changed": (
        lambda mine: AuditEntry.update(at="2020-01-01T00:00:00.000Z").where(mine, AuditEntry.sequence == 12),
        "entry 12 was changed",
    ),
    "removed": (lambda mine: AuditEntry.delete().where(mine, AuditEntry.sequence == 6), "entry 6 is missing"),
    "the first removed": (lambda mine: AuditEntry.delete().where(mine, AuditEntry.sequence == 1), "entry 1 is missing"),
    "cut off": (lambda mine: AuditEntry.delete().where(mine, AuditEntry.sequence > 9), "entries 10 to 12 are missing"),
    "emptied": (lambda mine: AuditEntry.delete().where(mine), "entries 1 to 12 are missing"),
}


@pytest.mark.parametrize("how", CHANGES)
async def test_what_was_done_to_the_log_shows(api: Api, how: str) -> None:
    """Which entry it is, and nothing about other organizations."""
    other = await administer.create_organization(api.relay, "Other")
    await write(api, 12, other.id)
    change, found = CHANGES[how]
    await tamper(api, lambda: change(AuditEntry.organization == other.id).execute())

    assert list(await problems(api)) == ["Other"]
    assert found in (await problems(api))["Other"]


async def test_an_entry_slipped_in_at_the_end_shows(api: Api) -> None:
    """The head counts how many there are."""
    other = await administer.create_organization(api.relay, "Other")
    await write(api, 3, other.id)

    def slip_in() -> None:
        values = {"organization": other.id, "sequence": 4, "previous_digest": "x", "action": "contact.read"}
        AuditEntry.create(**values)

    await tamper(api, slip_in)
    assert await problems(api) == {"Other": "entries 4 to 4 were added past the end"}


async def test_a_log_written_anew_shows_against_a_head_that_was_kept(api: Api) -> None:
    """A head from yesterday is still that of an entry today, unless somebody rewrote everything."""
    other = await administer.create_organization(api.relay, "Other")
    await write(api, 3, other.id)
    (kept,) = [one.digest for one in await verify_audit(api.relay) if one.name == "Other"]
    await write(api, 2, other.id)
    grown = {digest for one in await verify_audit(api.relay, [kept]) for digest in one.found}

    def write_anew() -> None:
        AuditEntry.delete().where(AuditEntry.organization == other.id).execute()
        Organization.update(audit_count=0, audit_digest="").where(Organization.id == other.id).execute()
        for _ in range(5):
            audit.record(other.id, AuditAction.SIGNED_OUT, Actor("d" * 24))

    await tamper(api, write_anew)
    found = {digest for one in await verify_audit(api.relay, [kept]) for digest in one.found}

    assert grown == {kept}
    assert await problems(api) == {}
    assert found == set()


async def test_a_reader_elsewhere_can_verify_the_chain(api: Api) -> None:
    """The digest is of JSON that any language writes: nothing but the exported lines is needed."""
    await write(api, 3)
    await api.http.get("/api/user/api-key", headers={"Authorization": f"Bearer {api.superadmin_token}"})
    await administer.add_phone_number(api.relay, api.organization_id, "+14165550199", label="Empfang „Süd“")
    lines = await audit_entries(api.relay, "Demo", oldest_first=True, limit=1000)
    assert {line.who for line in lines} > {None, "superadmin@demo.example"}
    previous = ""
    for sequence, line in enumerate(sorted(lines, key=lambda line: line.sequence), 1):
        details = json.dumps(line.details, separators=(",", ":"), ensure_ascii=False)
        covered = [line.organization_id, sequence, previous, line.id, line.at, line.action]
        covered += [line.user_id, line.client, line.request_id, line.subject, details]
        text = json.dumps(covered, separators=(",", ":"), ensure_ascii=False)
        assert line.previous_digest == previous
        assert line.digest == hashlib.sha256(text.encode()).hexdigest()
        previous = line.digest
    assert [line.at for line in lines] == sorted(line.at for line in lines)


@pytest.mark.parametrize("oldest_first", [True, False])
async def test_the_log_is_read_in_pages_that_neither_miss_nor_repeat_an_entry(
    api: Api, monkeypatch: pytest.MonkeyPatch, *, oldest_first: bool
) -> None:
    """Also where entries are of the same moment, as here; the memory used does not grow with the log."""
    await write(api, 25)
    lines = await audit_entries(api.relay, limit=1000, oldest_first=oldest_first)
    monkeypatch.setattr(read_audit, "PAGE", 4)
    pages = [page async for page in read_audit.audit_pages(api.relay, oldest_first=oldest_first)]
    some = [page async for page in read_audit.audit_pages(api.relay, limit=10, oldest_first=oldest_first)]

    assert len(lines) > 25
    assert [line for page in pages for line in page] == lines
    assert {len(page) for page in pages[:-1]} == {4}
    assert [len(page) for page in some] == [4, 4, 2]
    assert [line for page in some for line in page] == lines[:10]


async def test_changes_of_what_an_organization_is_reached_by_are_audited(api: Api) -> None:
    """Numbers, SMS credentials, region, retention and limits; names of fields and never a secret."""
    before = len(await audit_entries(api.relay, "Demo", limit=1000))
    credentials: dict[str, object] = {"account_sid": "AC" + "0" * 32, "auth_token": "very-secret-token"}
    await administer.add_phone_number(api.relay, api.organization_id, "+14165550199", label="Desk")
    await administer.configure_sms(api.relay, api.organization_id, "twilio", credentials)
    await administer.set_default_region(api.relay, api.organization_id, "GB")
    await set_retention(api.relay, api.organization_id, Retention(recordings=90))
    await set_own_limits(api.relay, api.organization_id, Own(1000, None, 5))
    lines = (await audit_entries(api.relay, "Demo", limit=1000))[:-before][::-1]

    assert [(line.action, line.details) for line in lines] == [
        ("number.added", {"number": "+14165550199", "label": "Desk", "isDefault": False}),
        ("sms.changed", {"provider": "twilio", "fields": ["account_sid", "auth_token"]}),
        ("region.changed", {"region": "GB"}),
        ("retention.changed", {"recordings": 90, "transcripts": None, "events": None}),
        ("limits.changed", {"recording_bytes": 1000, "requests_per_minute": None, "sockets": 5}),
    ]
    assert "very-secret" not in str(lines)
