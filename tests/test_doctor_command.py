"""`manage.py doctor`: each thing that can be wrong is made wrong, and named; start-up says what is cheap to see."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from actions.examine import examine
from app import open_relay
from config import load_settings
from tests.support import postgresql
from tests.support.faulty_http import Reply
from tests.support.processes import accepts, environment, run, running
from tests.support.randomness import encryption_key
from tests.support.vendors import FakeElevenLabs, FakeTwilio

pytestmark = pytest.mark.processes

Lines = dict[str, list[tuple[str, str]]]


def furnish(env: dict[str, str], folder: Path) -> None:
    for arguments in (
        ("migrate",),
        ("org", "add", "Acme", "--region", "CA"),
        ("user", "add", "Acme", "ann@acme.example", "--name", "Ann", "--role", "superadmin"),
        ("key", "api", "ann@acme.example"),
    ):
        done = run(*arguments, env=env | {"RELAY_PASSWORD": "correct horse"}, folder=folder)
        assert done.returncode == 0, done.stderr


def examined(env: dict[str, str], folder: Path, *arguments: str) -> tuple[int, Lines]:
    """Return the exit status, and verdict and words of every line by its subject."""
    done = run("doctor", "--json", *arguments, env=env, folder=folder)
    assert "Traceback" not in done.stderr, done.stderr
    lines: Lines = {}
    for finding in map(json.loads, done.stdout.splitlines()):
        lines.setdefault(finding["subject"], []).append((finding["verdict"], finding["what"]))
    return done.returncode, lines


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    made = environment(tmp_path)
    furnish(made, tmp_path)
    return made


def test_installation_in_order_has_nothing_broken_and_is_left_as_it_was(env: dict[str, str], tmp_path: Path) -> None:
    """Every line is ok but for the address that is not set; what was written to try the store is gone."""
    status, lines = examined(env, tmp_path)
    told = run("doctor", env=env, folder=tmp_path)

    assert status == 0
    assert {verdict for found in lines.values() for verdict, _ in found} == {"ok", "look"}
    assert [subject for subject, found in lines.items() if found[0][0] == "look"] == ["settings"]
    assert {"version", "database", "keys", "recordings", "disk", "clock", "descriptors"} <= lines.keys()
    assert not [path for path in (tmp_path / "var" / "recordings").rglob("*") if path.is_file()]
    assert told.stdout.splitlines()[0].startswith("ok     version: ")
    assert "0 broken." in told.stderr


def test_nothing_is_made_where_there_is_nothing(tmp_path: Path) -> None:
    """Neither a database nor secrets: those would stand in the way of the right ones."""
    status, lines = examined(environment(tmp_path), tmp_path)

    assert (status, lines["database"][0][0]) == (1, "broken")
    assert not (tmp_path / "var").exists()


def test_missing_secrets_are_broken_and_are_not_made_anew(env: dict[str, str], tmp_path: Path) -> None:
    """A restore that left secrets.json behind."""
    (tmp_path / "var" / "secrets.json").unlink()
    status, lines = examined(env, tmp_path)

    assert status == 1
    assert lines["keys"][0][0] == "broken"
    assert "backup" in lines["keys"][0][1]
    assert not (tmp_path / "var" / "secrets.json").exists()


def test_secret_that_no_key_opens_is_broken_and_named(env: dict[str, str], tmp_path: Path) -> None:
    """By table and column; and the process that serves says it at start and is not ready."""
    lost = env | {"ENCRYPTION_KEYS": encryption_key()}
    status, lines = examined(lost, tmp_path)
    with running("serve", env=lost, folder=tmp_path) as api:
        api.until(lambda: accepts(lost["API_PORT"]))
        ready = httpx.get(f"http://127.0.0.1:{lost['API_PORT']}/readyz", trust_env=False, timeout=30)
        logged = [json.loads(line) for line in api.errors.splitlines()]

    assert status == 1
    assert lines["keys"][0][0] == "broken"
    assert "api_key.sealed" in lines["keys"][0][1]
    assert ready.status_code == 503
    assert "1 of 1 stored secrets" in ready.json()["checks"]["secrets"]
    assert [line["level"] for line in logged if line["event"] == "stored_secrets.unopened"] == ["error"]


def test_one_lost_secret_among_many_is_said_and_everybody_else_is_served(env: dict[str, str], tmp_path: Path) -> None:
    """One organization's credentials are no reason to take no traffic."""
    other = environment(tmp_path / "other")
    (tmp_path / "other").mkdir()
    furnish(other, tmp_path / "other")
    with closing(sqlite3.connect(tmp_path / "other" / "var" / "relay.db")) as database:
        (sealed,) = database.execute("SELECT sealed FROM api_key").fetchone()
    with closing(sqlite3.connect(tmp_path / "var" / "relay.db", isolation_level=None)) as database:
        (organization,) = database.execute("SELECT id FROM organization").fetchone()
        database.execute("INSERT INTO sms_config VALUES (?, 'console', ?, 'x')", (organization, sealed))
    status, lines = examined(env, tmp_path)
    with running("serve", env=env, folder=tmp_path) as api:
        api.until(lambda: accepts(env["API_PORT"]))
        ready = httpx.get(f"http://127.0.0.1:{env['API_PORT']}/readyz", trust_env=False, timeout=30)

    assert status == 1
    assert "1 of 2" in lines["keys"][0][1]
    assert lines["texts of Acme"][0][0] == "broken"
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert "1 of 2" in ready.json()["checks"]["secrets"]


def test_recordings_that_are_not_in_the_store_are_broken(env: dict[str, str], tmp_path: Path) -> None:
    """A database that was restored without them, or with the wrong bucket."""
    with closing(sqlite3.connect(tmp_path / "var" / "relay.db", isolation_level=None)) as database:
        (organization,) = database.execute("SELECT id FROM organization").fetchone()
        database.execute(
            "INSERT INTO call (id, organization_id, source, direction, from_number, to_number, status, duration,"
            " started_at, ended_at, provider_metadata, payload_digests, created_at)"
            " VALUES ('c', ?, 'ingest', 'inbound', '+1', '+2', 'completed', 1, 'x', 'x', '{}', '{}', 'x')",
            (organization,),
        )
        database.execute(
            "INSERT INTO recording (id, organization_id, call_id, key, content_type, size, sha256, created_at)"
            " VALUES ('r', ?, 'c', 'org/o/calls/c/recording.mp3', 'audio/mpeg', 1, 'x', 'x')",
            (organization,),
        )
    status, lines = examined(env, tmp_path)

    assert status == 1
    assert ("broken", "1 of the newest 1 are not in the store: check R2_BUCKET and DATA_DIR, or restore them") in lines[
        "recordings"
    ]


def test_store_that_cannot_be_written_is_broken(env: dict[str, str], tmp_path: Path) -> None:
    """A file where the folder should be."""
    shutil.rmtree(tmp_path / "var" / "recordings", ignore_errors=True)
    (tmp_path / "var" / "recordings").write_text("")
    status, lines = examined(env, tmp_path)

    assert (status, lines["recordings"][0][0]) == (1, "broken")


def test_data_folder_that_is_open_to_others_is_worth_a_look(env: dict[str, str], tmp_path: Path) -> None:
    """With the command that closes it."""
    (tmp_path / "var").chmod(0o755)
    status, lines = examined(env, tmp_path)

    assert status == 0
    assert any("chmod 700" in what for _, what in lines["settings"])


@pytest.mark.parametrize("setting", [{"API_PORT": "no"}, {"DATABASE_URL": "postgresql://127.0.0.1:1/relay"}])
def test_setting_or_database_that_cannot_be_used_is_a_line_and_not_an_end(
    env: dict[str, str], tmp_path: Path, setting: dict[str, str]
) -> None:
    """Whoever reads the JSON finds the reason there too."""
    keys = {"JWT_SECRET": "x" * 32, "ENCRYPTION_KEYS": encryption_key()}
    status, lines = examined(env | keys | setting, tmp_path)

    assert status == 1
    assert "broken" in {verdict for found in lines.values() for verdict, _ in found}


@pytest.mark.postgresql
def test_postgresql_is_examined_with_its_clock(tmp_path: Path) -> None:
    """Size, migrations and time are the server's."""
    url = postgresql.create(postgresql.migrated())
    keys = {"JWT_SECRET": "x" * 32, "ENCRYPTION_KEYS": encryption_key()}
    try:
        status, lines = examined(environment(tmp_path, database_url=url) | keys, tmp_path)
    finally:
        postgresql.drop(url)

    assert status == 0
    assert lines["clock"] == [("ok", "agrees with the database's")]
    assert lines["database"][0][0] == "ok"


# Vendors and the outside


async def doctor(env: dict[str, str], folder: Path, *arguments: str) -> tuple[int, Lines]:
    return await asyncio.to_thread(examined, env, folder, *arguments)


async def configured(env: dict[str, str], folder: Path, **vendors: Any) -> None:
    """Give the organization Twilio's credentials and an ElevenLabs key."""
    credentials = folder / "twilio.json"
    credentials.write_text(json.dumps(vendors["twilio"].credentials))
    words = ("org", "sms", "Acme", "twilio", "--credentials", str(credentials))
    done = await asyncio.to_thread(run, *words, env=env, folder=folder)
    assert done.returncode == 0, done.stderr
    script = await asyncio.to_thread(run, "user", "token", "ann@acme.example", env=env, folder=folder)
    with running("serve", env=env, folder=folder) as api:
        await asyncio.to_thread(api.until, lambda: accepts(env["API_PORT"]))
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            answer = await http.post(
                f"http://127.0.0.1:{env['API_PORT']}/api/calls/voice-ai/config",
                json={"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": vendors["elevenlabs"].api_key},
                headers={"Authorization": f"Bearer {script.stdout.strip()}"},
            )
            assert answer.status_code == 200, answer.text


async def test_vendors_are_asked_whether_they_accept_the_credentials(tmp_path: Path) -> None:
    """In order first; then Twilio's token was changed there, and the webhook switched off. Nothing is sent."""
    async with FakeTwilio() as twilio, FakeElevenLabs() as elevenlabs:
        env = environment(
            tmp_path, twilio_url=twilio.url, elevenlabs_url=elevenlabs.url, public_url="https://relay.invalid"
        )
        await asyncio.to_thread(furnish, env, tmp_path)
        await configured(env, tmp_path, twilio=twilio, elevenlabs=elevenlabs)
        _, before = await doctor(env, tmp_path)
        twilio.auth_token = "another"
        (webhook,) = elevenlabs.webhooks.values()
        webhook["is_auto_disabled"] = True
        status, after = await doctor(env, tmp_path)
        quiet, without = await doctor(env, tmp_path, "--no-vendors")
        methods = {request.method for request in twilio.requests}

    assert before["texts of Acme"] == [("ok", "twilio accepts the credentials")]
    assert before["ElevenLabs of Acme"] == [("ok", "accepts the API key, and its webhook leads here")]
    assert before["public address"][0][0] == "look"
    assert status == 1
    assert after["texts of Acme"][0][0] == "broken"
    assert "switched our webhook off" in after["ElevenLabs of Acme"][0][1]
    assert quiet == 0
    assert not any(" of Acme" in subject for subject in without)
    assert methods == {"GET"}


class Elsewhere(FakeTwilio):
    """A server that is not ours."""

    def answer(self, request: Any) -> Reply:
        """Answer everything alike."""
        del request
        return Reply(200, {"hello": "there"})


async def test_public_address_that_leads_elsewhere_is_broken(env: dict[str, str], tmp_path: Path) -> None:
    """And one that leads here is ok."""
    async with Elsewhere() as other:
        status, lines = await doctor(env | {"PUBLIC_URL": other.url}, tmp_path)
    with running("serve", env=env, folder=tmp_path) as api:
        await asyncio.to_thread(api.until, lambda: accepts(env["API_PORT"]))
        ours = {"PUBLIC_URL": f"http://127.0.0.1:{env['API_PORT']}"}
        right, found = await doctor(env | ours, tmp_path)

    assert (status, lines["public address"][0][0]) == (1, "broken")
    assert (right, found["public address"][0][0]) == (0, "ok")


@pytest.mark.parametrize(("left", "verdict"), [(50, "broken"), (500, "look"), (5000, "ok")])
async def test_disk_is_told_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, verdict: str
) -> None:
    """What the operating system says is left, in megabytes, makes the verdict."""
    usage = shutil.disk_usage(tmp_path)._replace(free=left * 1024 * 1024)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    settings = load_settings(_env_file=None, data_dir=tmp_path / "var")
    async with open_relay(settings) as relay:
        relay.database.migrate()
        database = settings.data_dir / "relay.db"
        found = [one async for one in examine(relay, database, settings.data_dir, vendors=False)]

    assert [one.verdict for one in found if one.subject == "disk"] == [verdict]
