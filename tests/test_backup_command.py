"""`manage.py backup`, `backup verify` and `restore`, as a person runs them: processes, files and damage."""

import asyncio
import errno
import gzip
import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support import postgresql
from tests.support.audio import mp3, mp3_base64
from tests.support.object_storage import ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, bucket, plain_client, s3_server
from tests.support.processes import MANAGE, accepts, environment, run, running
from tests.support.randomness import encryption_key
from tests.support.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.processes

RECORDINGS = 3


@dataclass(frozen=True)
class House:
    """A data folder, and the environment its processes run in."""

    folder: Path
    env: dict[str, str]

    @property
    def var(self) -> Path:
        return self.folder / "var"

    @property
    def demo(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.var / "demo.json").read_text())
        return found

    def run(self, *arguments: str, **settings: str) -> CompletedProcess[str]:
        return run(*arguments, env=self.env | settings, folder=self.folder)

    def made(self, *arguments: str, **settings: str) -> str:
        done = self.run(*arguments, **settings)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def names(self) -> dict[str, bytes]:
        """Return every file below the folder with its content, but for locks."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        locks = (".in-use", ".migrating", ".backing-up")
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files if path.suffix not in locks}

    def notes(self) -> list[str]:
        with closing(sqlite3.connect(self.var / "relay.db")) as database:
            return [text for (text,) in database.execute("SELECT note FROM contact_note")]


def house(folder: Path) -> House:
    folder.mkdir(exist_ok=True)
    return House(folder, environment(folder))


def one_sentence(done: CompletedProcess[str], *words: str) -> None:
    """Insist on a failure said in one line, naming `words`."""
    said = [line for line in done.stderr.splitlines() if line.startswith("tether-relay: ")]
    assert (done.returncode, len(said)) == (1, 1), done.stderr
    for word in words:
        assert word in said[0]
    assert "Traceback" not in done.stderr


def send(demo: dict[str, str], path: str, token: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {demo[token]}"}
    return httpx.post(f"{demo['apiUrl']}{path}", json=body, headers=headers, trust_env=False, timeout=30)


def note(demo: dict[str, str], text: str) -> httpx.Response:
    body = {"phone_number": demo["contactPhone"], "note": text}
    return send(demo, "/api/webhook/elevenlabs/tools/create-note", "toolSecret", body)


def ingest(demo: dict[str, str], frames: int) -> str:
    body = {
        "direction": "inbound",
        "fromNumber": demo["contactPhone"],
        "toNumber": demo["organizationPhone"],
        "duration": 5,
        "status": "completed",
        "transcript": [{"role": "user", "message": "Hello."}],
        "summary": "Hello.",
        "recording": mp3_base64(frames),
    }
    answer = send(demo, "/api/calls/ingest", "apiKey", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["callId"])


@dataclass(frozen=True)
class Lived:
    """An installation that took calls and was backed up while it took notes; what was acknowledged when."""

    house: House
    demo: dict[str, str]
    calls: list[str]
    notes_before: list[str]
    notes_meanwhile: list[str]
    backup: Path
    said: str
    head: int


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    made = house(tmp_path_factory.mktemp("lived"))
    file = made.folder / "relay.tar.gz"
    acknowledged: list[str] = []
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            text = f"note {len(acknowledged)}"
            assert note(made.demo, text).json()["success"] is True
            acknowledged.append(text)

    with running("up", env=made.env, folder=made.folder) as up:
        up.until(lambda: "The same for scripts" in up.output)
        calls = [ingest(made.demo, 10 * (number + 1)) for number in range(RECORDINGS)]
        writer = threading.Thread(target=write)
        writer.start()
        try:
            wait_until(lambda: len(acknowledged) >= 5)
            before = list(acknowledged)
            said = made.made("backup", str(file))
            head = len(acknowledged)
            wait_until(lambda: len(acknowledged) > head)  # it was served meanwhile and is served after
        finally:
            over.set()
            writer.join(PATIENCE_SECONDS)
        demo = made.demo
        up.stop()
    return Lived(made, demo, calls, before, acknowledged, file, said, head)


@pytest.fixture
def fresh(tmp_path: Path) -> House:
    return house(tmp_path / "fresh")


# Making one, and restoring it elsewhere


def test_restored_installation_has_everything_acknowledged_before_the_backup(lived: Lived, fresh: House) -> None:
    """Made beside writers, into an empty folder; notes are a beginning of what was acknowledged, and nothing else."""
    said = fresh.made("restore", str(lived.backup))
    notes = fresh.notes()

    assert set(lived.notes_before) <= set(notes) <= set(lived.notes_meanwhile)
    assert sorted(notes, key=lambda text: int(text.split()[1])) == lived.notes_meanwhile[: len(notes)]
    assert f"{RECORDINGS} calls" in said
    assert f"{RECORDINGS} recordings written" in said
    assert "The secrets came from the backup." in said
    assert not (fresh.var / "restoring").exists()


async def test_restored_installation_is_served_with_the_same_keys(lived: Lived, fresh: House) -> None:
    """API key, tool secret, recordings behind links, listeners: all of it works after the restore."""
    fresh.made("restore", str(lived.backup))
    with running("up", env=fresh.env, folder=fresh.folder) as up:
        up.until(lambda: "Ctrl-C stops it" in up.output)
        demo = lived.demo | {"apiUrl": f"http://127.0.0.1:{fresh.env['API_PORT']}"}
        headers = {"Authorization": f"Bearer {demo['apiKey']}"}
        assert note(demo, "after").json()["success"] is True
        for number, call in enumerate(lived.calls):
            assert _audio(demo, call) == mp3(10 * (number + 1))
        async with asyncio.timeout(PATIENCE_SECONDS):
            url = f"ws://127.0.0.1:{fresh.env['REALTIME_PORT']}/v1"
            async with connect(url, additional_headers=headers) as listener:
                assert json.loads(await listener.recv())["type"] == "hello"


def _audio(demo: dict[str, str], call: str) -> bytes:
    headers = {"Authorization": f"Bearer {demo['superadminToken']}"}  # who was signed in still is
    answer = httpx.get(f"{demo['apiUrl']}/api/calls/{call}/recording", headers=headers, trust_env=False)
    assert "audioUrl" in answer.text, answer.text
    return httpx.get(answer.json()["audioUrl"], trust_env=False, timeout=30).content


def test_backup_is_read_by_tar_and_sha256sum_alone(lived: Lived, tmp_path: Path) -> None:
    """Without this program: the members, their digests, and a database that SQLite opens."""
    subprocess.run(["tar", "xzf", lived.backup, "-C", tmp_path], check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    with closing(sqlite3.connect(f"file:{tmp_path}/relay.db?mode=ro", uri=True)) as database:
        (calls,) = database.execute("SELECT COUNT(*) FROM call").fetchone()
    manifest = json.loads((tmp_path / "manifest.json").read_text())

    assert calls == RECORDINGS == manifest["database"]["rows"]["call"]
    assert (manifest["format"], manifest["version"]) == (1, (MANAGE.parent / "VERSION").read_text().strip())
    assert manifest["recordings"]["included"] is True
    assert manifest["recordings"]["count"] == len(list((tmp_path / "recordings").rglob("*.mp3"))) == RECORDINGS
    assert json.loads((tmp_path / "secrets.json").read_text()) == json.loads(
        (lived.house.var / "secrets.json").read_text()
    )


def test_backup_says_what_is_in_it_and_is_its_owners_alone(lived: Lived) -> None:
    """Counts, keys, size; and nothing of it is left in the data folder."""
    assert f"{RECORDINGS} calls" in lived.said
    assert "secrets.json is in the backup" in lived.said
    assert lived.backup.stat().st_mode & 0o777 == 0o600
    assert not list(lived.house.var.glob("*draft*"))
    assert not list(lived.house.folder.glob("*.partial"))


def test_backup_goes_to_standard_output_with_its_words_beside_it(lived: Lived, tmp_path: Path) -> None:
    """So that it can be piped to another machine."""
    file = tmp_path / "piped.tar.gz"
    with file.open("wb") as out:
        done = subprocess.run(
            [sys.executable, MANAGE, "backup", "-", "--no-secrets"],
            env=lived.house.env,
            cwd=lived.house.folder,
            stdout=out,
            stderr=subprocess.PIPE,
            check=True,
        )
    said = done.stderr.decode()
    verified = lived.house.made("backup", "verify", str(file))

    assert "The backup is whole." in verified
    assert "The keys are not in the backup." in said
    with tarfile.open(file) as tar:
        assert "secrets.json" not in tar.getnames()


def test_backup_does_not_replace_a_file_nor_back_up_nothing(lived: Lived, fresh: House) -> None:
    """An older backup stays; a folder without a database is named, and nothing is made in it."""
    before = lived.backup.read_bytes()
    one_sentence(lived.house.run("backup", str(lived.backup)), "exists already")
    one_sentence(fresh.run("backup", str(fresh.folder / "x.tar.gz")), "There is no database")

    assert lived.backup.read_bytes() == before
    assert fresh.names() == {}


def test_backup_of_an_older_schema_is_made_and_migrated_by_restoring(fresh: House, tmp_path: Path) -> None:
    """The time to back up is before an upgrade: the new program is there, and the database is not migrated yet."""
    script = (
        "import sys; from persistence import migrating; import peewee\n"
        "engine = peewee.SqliteDatabase(sys.argv[1]); migrating.runner(engine).up('0003_read_back_and_erasure')\n"
        'engine.execute_sql("INSERT INTO organization (id, name, event_sequence, created_at)'
        " VALUES ('o', 'A', 0, 'x')\")"
    )
    fresh.var.mkdir()
    subprocess.run([sys.executable, "-c", script, fresh.var / "relay.db"], cwd=MANAGE.parent, check=True)
    file = tmp_path / "old.tar.gz"
    fresh.made("backup", str(file))
    other = house(tmp_path / "other")
    said = other.made("restore", str(file))

    assert "Applied 0004_post_call" in said
    assert "A" in other.made("org", "list")


def test_recordings_removed_since_the_copy_are_named_and_the_rest_is_whole(lived: Lived, tmp_path: Path) -> None:
    """Erasing a person goes on while a backup is made."""
    copy = house(tmp_path / "copy")
    copy.made("restore", str(lived.backup))
    next((copy.var / "recordings").rglob("*.mp3")).unlink()
    said = copy.made("backup", str(tmp_path / "less.tar.gz"))
    verified = copy.made("backup", "verify", str(tmp_path / "less.tar.gz"))

    for words in (said, verified):
        assert "1 recordings were removed while the backup was made" in words


# Damage


def rewritten(source: Path, target: Path, change: Callable[[dict[str, bytes]], None], *, sums: bool = True) -> Path:
    """Write the backup anew with changed members; with `sums` their digests are stated anew too."""
    with tarfile.open(source) as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    change(members)
    if sums:
        members.pop("SHA256SUMS", None)
        members["SHA256SUMS"] = "".join(
            f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in members.items()
        ).encode()
    with tarfile.open(target, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target


def manifest_with(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | changes).encode()

    return change


def _without(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        del members[name]

    return change


def _other_recording(members: dict[str, bytes]) -> None:
    name = next(name for name in members if name.startswith("recordings/"))
    members[name] = mp3(1)


def _damaged_database(members: dict[str, bytes]) -> None:
    page = 4096
    members["relay.db"] = members["relay.db"][: 9 * page] + b"\xff" * 4 * page + members["relay.db"][13 * page :]
    manifest = json.loads(members["manifest.json"])
    manifest["database"] |= {"sha256": hashlib.sha256(members["relay.db"]).hexdigest()}
    members["manifest.json"] = json.dumps(manifest).encode()


def _other_rows(members: dict[str, bytes]) -> None:
    manifest = json.loads(members["manifest.json"])
    manifest["database"]["rows"]["call"] += 1
    members["manifest.json"] = json.dumps(manifest).encode()


def _newer_schema(members: dict[str, bytes]) -> None:
    manifest = json.loads(members["manifest.json"])
    manifest["database"]["migrations"].append("9999_of_the_future")
    members["manifest.json"] = json.dumps(manifest | {"version": "99.0.0"}).encode()


DAMAGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "cut off": (lambda old, new: new.write_bytes(old.read_bytes()[:-100]), "not a whole backup"),
    "cut off at a member's end": (
        lambda old, new: rewritten(old, new, _without("SHA256SUMS"), sums=False),
        "SHA256SUMS, its last member, is missing",
    ),
    "no backup": (lambda _, new: new.write_bytes(b"not at all" * 100), "not a whole backup"),
    "another archive": (
        lambda old, new: rewritten(old, new, _without("manifest.json")),
        "does not begin with a manifest",
    ),
    "a recording changed": (
        lambda old, new: rewritten(old, new, _other_recording, sums=False),
        "is not what SHA256SUMS says",
    ),
    "a recording exchanged": (lambda old, new: rewritten(old, new, _other_recording), "is not the one that was stored"),
    "a damaged database": (lambda old, new: rewritten(old, new, _damaged_database), "is damaged"),
    "rows missing": (lambda old, new: rewritten(old, new, _other_rows), "the rows its manifest counts"),
    "a recording of nobody": (
        lambda old, new: rewritten(
            old, new, lambda members: members.update({"recordings/org/x/calls/y/recording.mp3": mp3(1)})
        ),
        "belong to no call",
    ),
    "a newer format": (lambda old, new: rewritten(old, new, manifest_with(format=2, version="99.0.0")), "99.0.0"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_backup_is_refused_by_verify_and_restore_and_leaves_nothing(
    lived: Lived, fresh: House, tmp_path: Path, damage: Callable[[Path, Path], object], words: str
) -> None:
    """One sentence each, and the folder is as empty as before."""
    file = tmp_path / "damaged.tar.gz"
    damage(lived.backup, file)

    one_sentence(fresh.run("backup", "verify", str(file)), words)
    one_sentence(fresh.run("restore", str(file)), words)
    assert fresh.names() == {}


def test_every_flipped_byte_is_found(lived: Lived, fresh: House, tmp_path: Path) -> None:
    """Wherever it is; the container has a checksum of its own where the members' digests do not reach."""
    whole, refused = lived.backup.read_bytes(), 0
    content = gzip.decompress(whole)
    for place in range(40, len(whole), len(whole) // 12):
        file = tmp_path / f"{place}.tar.gz"
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        done = fresh.run("backup", "verify", str(file))
        if done.returncode == 0:  # another way to write the same content: a copy of other zeros
            assert gzip.decompress(file.read_bytes()) == content, place
        else:
            assert "tether-relay: " in done.stderr, place
            refused += 1
    assert refused >= 6


def test_backup_of_a_newer_schema_is_refused_by_restore(lived: Lived, fresh: House, tmp_path: Path) -> None:
    """It names the version that can."""
    file = rewritten(lived.backup, tmp_path / "newer.tar.gz", _newer_schema)

    one_sentence(fresh.run("restore", str(file)), "99.0.0", "9999_of_the_future")
    assert fresh.names() == {}


# What restoring refuses, and what it keeps


def test_database_in_use_is_not_replaced(lived: Lived, tmp_path: Path) -> None:
    """By an idle broadcaster, and by another program that merely has it open."""
    used = house(tmp_path / "used")
    used.made("restore", str(lived.backup))
    with running("broadcast", env=used.env, folder=used.folder) as process:
        process.until(lambda: "broadcast.listening" in process.errors)
        one_sentence(used.run("restore", "--replace", str(lived.backup)), "is in use")
        process.stop()
    before = used.names()
    assert not any(".before-" in name for name in before)
    with closing(sqlite3.connect(used.var / "relay.db")) as other:
        other.execute("SELECT COUNT(*) FROM call").fetchone()
        one_sentence(used.run("restore", "--replace", str(lived.backup)), "is in use")

    assert {name: content for name, content in used.names().items() if name.startswith("var/")} == {
        name: content for name, content in before.items() if name.startswith("var/")
    }


def test_process_does_not_start_on_a_database_that_is_being_restored(fresh: House) -> None:
    """It would go on with the file that is replaced, and lose what it writes."""
    fresh.made("migrate")
    holder = (
        "import sys, pathlib; from persistence import presence\n"
        "with presence.alone(pathlib.Path(sys.argv[1])): print('alone', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, fresh.var / "relay.db"],
        cwd=MANAGE.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"alone\n"
        one_sentence(fresh.run("org", "list"), "is being restored")
        process.communicate()

    assert fresh.run("org", "list").returncode == 0


def test_database_that_holds_something_is_replaced_only_when_asked_and_kept_aside(lived: Lived, fresh: House) -> None:
    """Its secrets do not fit the backup: the backup's are put in their place, in the same step."""
    fresh.made("migrate")
    fresh.made("org", "add", "Before", "--region", "CA")
    before = fresh.names()
    one_sentence(fresh.run("restore", str(lived.backup)), "is not empty", "--replace")
    assert fresh.names() == before

    said = fresh.made("restore", "--replace", str(lived.backup))
    (aside,) = fresh.var.glob("relay.db.before-*")
    with closing(sqlite3.connect(aside)) as database:
        (name,) = database.execute("SELECT name FROM organization").fetchone()

    assert name == "Before"
    assert str(aside) in said
    assert aside.stat().st_mode & 0o077 == 0
    assert fresh.made("key", "api", lived.demo["superadminEmail"]).strip() == lived.demo["apiKey"]
    assert json.loads((fresh.var / "secrets.json").read_text()) == json.loads(
        (lived.house.var / "secrets.json").read_text()
    )


def test_keys_that_do_not_open_the_secrets_are_said_before_anything_is_written(lived: Lived, fresh: House) -> None:
    """It names the fingerprint of the key that is needed; with that key the same restore works."""
    other = {"ENCRYPTION_KEYS": encryption_key(), "JWT_SECRET": "x" * 32}
    done = fresh.run("restore", str(lived.backup), **other)
    manifest = json.loads(gzip.decompress(lived.backup.read_bytes())[512:4096].split(b"\0")[0])
    (fingerprint,) = manifest["keys"]["sealing"]

    one_sentence(done, fingerprint, "ENCRYPTION_KEYS")
    assert fresh.names() == {}
    kept = json.loads((lived.house.var / "secrets.json").read_text())
    right = {"ENCRYPTION_KEYS": f"{other['ENCRYPTION_KEYS']},{kept['encryptionKeys']}", "JWT_SECRET": "x" * 32}
    fresh.made("restore", str(lived.backup), **right)
    assert not (fresh.var / "secrets.json").exists()


def test_backup_without_secrets_needs_the_keys_from_elsewhere(lived: Lived, fresh: House, tmp_path: Path) -> None:
    """A restore without them is refused instead of answering every tool call with 500."""
    file = tmp_path / "bare.tar.gz"
    lived.house.made("backup", "--no-secrets", str(file))

    one_sentence(fresh.run("restore", str(file)), "ENCRYPTION_KEYS")
    assert fresh.names() == {}


def test_log_of_a_database_that_is_gone_does_not_get_into_the_restored_one(lived: Lived, fresh: House) -> None:
    """Somebody removed relay.db and left its write-ahead log, which SQLite would read as the new database's."""
    fresh.made("migrate")
    with closing(sqlite3.connect(fresh.var / "relay.db")) as database:
        database.execute("UPDATE schema_migration SET applied = 'never'")
        database.commit()
        log = (fresh.var / "relay.db-wal").read_bytes()
    assert log
    (fresh.var / "relay.db").unlink()
    (fresh.var / "secrets.json").unlink()
    (fresh.var / "relay.db-wal").write_bytes(log)
    fresh.made("restore", str(lived.backup))

    assert fresh.made("key", "api", lived.demo["superadminEmail"]).strip() == lived.demo["apiKey"]
    assert not (fresh.var / "relay.db-wal").exists()


def many(lived: Lived, folder: Path) -> tuple[House, list[str]]:
    """Return a restored installation with more recordings, and their keys in the order of a backup."""
    big = house(folder)
    big.made("restore", str(lived.backup))
    with running("serve", env=big.env, folder=big.folder) as api:
        wait_until(lambda: accepts(big.env["API_PORT"]))
        demo = lived.demo | {"apiUrl": f"http://127.0.0.1:{big.env['API_PORT']}"}
        for _ in range(10):
            ingest(demo, 40)
        api.stop()
    with closing(sqlite3.connect(big.var / "relay.db")) as database:
        keys = [key for (key,) in database.execute("SELECT key FROM recording ORDER BY id")]
    return big, keys


def stop_at(house: House, key: str) -> Path:
    """Put a pipe in place of a recording: whoever opens it waits until the other end is opened."""
    pipe = house.var / "recordings" / key
    pipe.parent.mkdir(parents=True, exist_ok=True)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    return pipe


def let_go(pipe: Path) -> bool:
    """Open the other end of the pipe if somebody waits for it; tell whether somebody did."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_restore_that_is_ended_leaves_the_database_there_was_and_can_be_repeated(
    lived: Lived, tmp_path: Path, number: signal.Signals
) -> None:
    """Ended in the middle of the recordings; by Ctrl-C it also removes those that it has stored."""
    big, keys = many(lived, tmp_path / "big")
    file = tmp_path / "big.tar.gz"
    big.made("backup", str(file))
    target = house(tmp_path / "target")
    target.made("migrate")
    target.made("org", "add", "Before", "--region", "CA")
    pipe = stop_at(target, keys[5])
    recordings = target.var / "recordings"
    with running("restore", "--replace", str(file), env=target.env, folder=target.folder) as process:
        wait_until(lambda: (recordings / keys[4]).exists())
        process.process.send_signal(number)
        # Ctrl-C waits for the thread that may wait at the pipe.
        wait_until(lambda: process.process.poll() is not None or let_go(pipe))
        process.process.wait(PATIENCE_SECONDS)
    pipe.unlink(missing_ok=True)
    left = {key for key in keys if (recordings / key).exists()}

    assert process.process.returncode != 0
    assert "Before" in target.made("org", "list")
    assert left == (set() if number is signal.SIGINT else set(keys[:5]))
    target.made("restore", "--replace", str(file))
    assert target.made("key", "api", lived.demo["superadminEmail"]).strip() == lived.demo["apiKey"]
    assert all((recordings / key).is_file() for key in keys)
    assert not (target.var / "restoring").exists()


def test_backup_that_is_killed_leaves_no_file_of_that_name_and_can_be_repeated(lived: Lived, tmp_path: Path) -> None:
    """Nor a copy of the database in the data folder, where erased people would stay."""
    big, keys = many(lived, tmp_path / "big")
    content = (big.var / "recordings" / keys[5]).read_bytes()
    pipe = stop_at(big, keys[5])
    file = tmp_path / "big.tar.gz"
    partial = tmp_path / "big.tar.gz.partial"
    with running("backup", str(file), env=big.env, folder=big.folder) as process:
        process.until(lambda: partial.exists() and partial.stat().st_size)
        one_sentence(big.run("backup", str(tmp_path / "second.tar.gz")), "Another backup")
        process.stop(signal.SIGKILL)
    pipe.unlink()
    pipe.write_bytes(content)

    assert not file.exists()
    assert not list(big.var.glob("*draft*"))
    big.made("backup", str(file))
    assert not partial.exists()
    assert "The backup is whole." in big.made("backup", "verify", str(file))


# Buckets, and PostgreSQL


@pytest.fixture
def bucket_settings() -> Iterator[dict[str, str]]:
    with s3_server() as url, bucket(plain_client(url)) as name:
        yield {
            "R2_ENDPOINT_URL": url,
            "R2_BUCKET": name,
            "R2_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "R2_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        }


def test_backup_goes_to_the_bucket_and_comes_back_from_there(
    lived: Lived, fresh: House, tmp_path: Path, bucket_settings: dict[str, str]
) -> None:
    """Recordings in the bucket stay there; what the bucket lacks is said."""
    source = house(tmp_path / "source")
    source.made("restore", str(lived.backup), **bucket_settings)
    said = source.made("backup", "--to-bucket", "nightly.tar.gz", **bucket_settings)
    client = plain_client(bucket_settings["R2_ENDPOINT_URL"])
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    client.delete_object(Bucket=BUCKET, Key=next(key for key in keys if key.startswith("org/")))
    verified = fresh.made("backup", "verify", "--from-bucket", "nightly.tar.gz", **bucket_settings)
    restored = fresh.made("restore", "--from-bucket", "nightly.tar.gz", **bucket_settings)

    assert "backups/nightly.tar.gz" in keys
    assert len(keys) == RECORDINGS + 1
    assert "not in the backup" in said
    assert "The backup is whole." in verified
    assert "1 recordings are not in the backup, and not in the store either." in restored
    assert "0 recordings written" in restored
    one_sentence(fresh.run("restore", "--from-bucket", "weekly.tar.gz", **bucket_settings), "no backup weekly.tar.gz")


def test_bucket_that_is_not_configured_is_one_sentence(lived: Lived) -> None:
    """Instead of a backup on the disk of the installation itself."""
    one_sentence(lived.house.run("backup", "--to-bucket", "nightly.tar.gz"), "There is no bucket")


@pytest.mark.postgresql
@pytest.mark.parametrize("arguments", [("backup", "relay.tar.gz"), ("restore", "relay.tar.gz")])
def test_postgresql_is_told_what_to_do_instead(fresh: House, arguments: tuple[str, ...]) -> None:
    """One sentence that names its own tools and the page."""
    url = postgresql.create()
    secrets = {"JWT_SECRET": "x" * 32, "ENCRYPTION_KEYS": encryption_key()}
    done = fresh.run(*arguments, DATABASE_URL=url, **secrets)
    postgresql.drop(url)

    one_sentence(done, "pg_dump", "docs/back-up-and-restore.md")
