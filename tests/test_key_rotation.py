"""`manage.py key rotate-encryption` and its neighbours: processes, kills, and rows that change meanwhile."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import SecretStr

from actions.stored_secrets import look_at_secrets, rotate_secrets
from app import open_relay
from config import load_settings
from domain.errors import RelayError
from keyring.vault import Vault
from persistence import organizations, sealed_columns, sms_configs
from tests.support.processes import MANAGE, environment, run, running
from tests.support.randomness import encryption_key
from tests.support.waiting import wait_until


def sealed_texts(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [text for (text,) in database.execute("SELECT credentials_sealed FROM sms_config")]


async def many(database_url: str, ring: str, count: int) -> None:
    """Store so many sealed credentials, one an organization."""
    settings = load_settings(_env_file=None, database_url=database_url, jwt_secret="x" * 32, encryption_keys=ring)
    async with open_relay(settings) as relay:

        def unit() -> None:
            for number in range(count):
                organization = organizations.add(f"Acme {number}", "CA")
                sealed = relay.vault.seal_document({"number": number})
                sms_configs.put(organization.id, provider="console", credentials_sealed=sealed)

        await relay.database.write(unit)


async def test_every_secret_is_sealed_anew_and_opens_with_the_new_key_alone(database_url: str) -> None:
    """More than a batch; what no key opens is left as it is and counted."""
    old, new, lost = encryption_key(), encryption_key(), encryption_key()
    await many(database_url, old, 450)
    await many(database_url, lost, 1)
    keys = {"_env_file": None, "database_url": database_url, "jwt_secret": "x" * 32}
    async with open_relay(load_settings(**keys, encryption_keys=f"{new},{old}")) as relay:
        before = await look_at_secrets(relay)
        counts = [count async for count in rotate_secrets(relay)]
        after = await look_at_secrets(relay)
        again = [count async for count in rotate_secrets(relay)]
    async with open_relay(load_settings(**keys, encryption_keys=new)) as relay:
        alone = await look_at_secrets(relay)

    assert list(before.by_key.values()) == [0, 450]
    assert (sum(counts), len(counts) > 1) == (450, True)
    assert (list(after.by_key.values()), len(after.unopened)) == ([450, 0], 1)
    assert after.spare_keys == Vault(SecretStr(old)).fingerprints
    assert again == []
    assert (list(alone.by_key.values()), len(alone.unopened)) == ([450], 1)


async def test_secret_that_is_stored_anew_meanwhile_is_kept(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process saves other credentials with the old key after they were read: those are kept, sealed anew."""
    old, new = encryption_key(), encryption_key()
    await many(database_url, old, 3)
    keys = {"_env_file": None, "database_url": database_url, "jwt_secret": "x" * 32}
    settings = load_settings(**keys, encryption_keys=f"{new},{old}")
    saved, replace = list[str](), sealed_columns.replace

    def slow(sealed: sealed_columns.Sealed, text: str) -> bool:
        if not saved:
            saved.append(sealed.key)
            changed = Vault(SecretStr(old)).seal_document({"number": "changed"})
            sms_configs.put(sealed.key, provider="console", credentials_sealed=changed)
        return replace(sealed, text)

    monkeypatch.setattr("persistence.sealed_columns.replace", slow)
    async with open_relay(settings) as relay:
        counts = [count async for count in rotate_secrets(relay)]
        config = await relay.database.read(lambda: sms_configs.get(saved[0]))
        assert config is not None
        opened = relay.vault.open_document(config.credentials_sealed)
        found = await look_at_secrets(relay)

    assert opened == {"number": "changed"}
    assert (sum(counts), found.of_older_keys) == (3, 0)


async def test_process_that_keeps_sealing_with_the_old_key_is_said(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of a rotation without end."""
    old, new = encryption_key(), encryption_key()
    await many(database_url, old, 1)
    keys = {"_env_file": None, "database_url": database_url, "jwt_secret": "x" * 32}
    monkeypatch.setattr("persistence.sealed_columns.replace", lambda *_: False)
    async with open_relay(load_settings(**keys, encryption_keys=f"{new},{old}")) as relay:
        with pytest.raises(RelayError, match="Restart them"):
            async for _ in rotate_secrets(relay):
                pass


@pytest.mark.processes
def test_rotation_that_is_killed_is_finished_by_the_next_run(tmp_path: Path) -> None:
    """Killed after its first batch: everything opens at all times, and nothing is done twice."""
    env = environment(tmp_path)
    assert run("migrate", env=env, folder=tmp_path).returncode == 0
    database = tmp_path / "var" / "relay.db"
    kept = json.loads((tmp_path / "var" / "secrets.json").read_text())["encryptionKeys"]
    asyncio.run(many(f"sqlite:///{database}", kept, 450))
    assert "2 keys" in run("key", "rotate-encryption", "--add", env=env, folder=tmp_path).stdout
    script = (
        "import asyncio, os, signal; from app import open_relay; from config import load_settings\n"
        "from actions.stored_secrets import rotate_secrets\n"
        "async def main():\n"
        "    async with open_relay(load_settings()) as relay:\n"
        "        async for _ in rotate_secrets(relay): os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], env=env, cwd=MANAGE.parent, check=False)
    newest, older = json.loads((tmp_path / "var" / "secrets.json").read_text())["encryptionKeys"].split(",")
    halfway = [Vault(SecretStr(f"{newest},{older}")).sealed_by(text) for text in sealed_texts(database)]
    done = run("key", "rotate-encryption", env=env, folder=tmp_path)
    dropped = run("key", "rotate-encryption", "--drop", env=env, folder=tmp_path)
    ring = json.loads((tmp_path / "var" / "secrets.json").read_text())["encryptionKeys"]

    assert killed.returncode == -9
    assert None not in halfway
    assert {halfway.count(fingerprint) for fingerprint in set(halfway)} == {200, 250}
    assert "Sealed 250 secrets anew" in done.stdout
    assert "may go" in done.stdout
    assert dropped.returncode == 0, dropped.stderr
    assert ring == newest
    assert all(Vault(SecretStr(newest)).sealed_by(text) for text in sealed_texts(database))


@pytest.mark.processes
def test_running_processes_are_served_while_keys_are_rotated(tmp_path: Path) -> None:
    """They have both keys; the API key that is shown on request opens at every instant."""
    env = environment(tmp_path)
    with running("up", env=env, folder=tmp_path) as up:
        up.until(lambda: "The same for scripts" in up.output)
        assert run("key", "rotate-encryption", "--add", env=env, folder=tmp_path).returncode == 0
        up.stop()
    with running("up", env=env, folder=tmp_path) as up:
        up.until(lambda: "The same for scripts" in up.output)
        demo = json.loads((tmp_path / "var" / "demo.json").read_text())
        shown, over = list[tuple[int, str]](), threading.Event()

        def ask() -> None:
            headers = {"Authorization": f"Bearer {demo['superadminToken']}"}
            while not over.is_set():
                answer = httpx.get(f"{demo['apiUrl']}/api/user/api-key", headers=headers, trust_env=False, timeout=30)
                shown.append((answer.status_code, answer.text))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            wait_until(lambda: len(shown) > 3)
            rotated = run("key", "rotate-encryption", env=env, folder=tmp_path)
            count = len(shown)
            wait_until(lambda: len(shown) > count + 3)
        finally:
            over.set()
            asking.join()
        up.stop()

    assert rotated.returncode == 0, rotated.stderr
    assert len(set(shown)) == 1
    assert shown[0][0] == 200
    assert demo["apiKey"] in shown[0][1]


@pytest.mark.processes
def test_keys_are_listed_by_fingerprint_with_what_each_opens(tmp_path: Path) -> None:
    """For people and as JSON; the keys themselves are never shown."""
    env = environment(tmp_path)
    assert run("migrate", env=env, folder=tmp_path).returncode == 0
    kept = json.loads((tmp_path / "var" / "secrets.json").read_text())["encryptionKeys"]
    asyncio.run(many(f"sqlite:///{tmp_path}/var/relay.db", kept, 2))
    asyncio.run(many(f"sqlite:///{tmp_path}/var/relay.db", encryption_key(), 1))
    told = run("key", "list-encryption", env=env, folder=tmp_path).stdout
    lines = run("key", "list-encryption", "--json", env=env, folder=tmp_path).stdout.splitlines()
    (fingerprint,) = Vault(SecretStr(kept)).fingerprints

    assert kept not in told
    assert "put their key back" in told
    assert [json.loads(line) for line in lines] == [
        {"fingerprint": fingerprint, "secrets": 2, "isNewest": True},
        {"fingerprint": None, "secrets": 1, "isNewest": False},
    ]


@pytest.mark.processes
def test_keys_that_are_set_elsewhere_are_changed_there(tmp_path: Path) -> None:
    """A file that nobody reads would not be the new key."""
    env = environment(tmp_path, encryption_keys=encryption_key(), jwt_secret="x" * 32)
    assert run("migrate", env=env, folder=tmp_path).returncode == 0
    done = run("key", "rotate-encryption", "--add", env=env, folder=tmp_path)

    assert done.returncode == 1
    assert "ENCRYPTION_KEYS" in done.stderr
    assert not (tmp_path / "var" / "secrets.json").exists()


@pytest.mark.processes
def test_keys_that_are_made_can_be_used(tmp_path: Path) -> None:
    """A secret of JWT_SECRET's length, an RSA key in PEM, a Fernet key; each a fresh one."""
    env = environment(tmp_path)
    first, second = (run("key", "jwt", env=env, folder=tmp_path).stdout.strip() for _ in range(2))
    pem = run("key", "jwt", "--rsa", env=env, folder=tmp_path).stdout
    loaded = load_pem_private_key(pem.encode(), password=None)

    assert first != second
    assert len(bytes.fromhex(first)) == 32
    assert isinstance(loaded, RSAPrivateKey)
    assert loaded.key_size >= 2048
    assert Fernet(run("key", "encryption", env=env, folder=tmp_path).stdout.strip())
    assert not (tmp_path / "var").exists()
