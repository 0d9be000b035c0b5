"""The command line, as real processes on free ports in an empty folder."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import jwt
import pytest
from cryptography.fernet import Fernet
from websockets.asyncio.client import connect

from tests.support.processes import Running, accepts, environment, run, running
from tests.support.randomness import encryption_key
from tests.support.waiting import PATIENCE_SECONDS, wait_until

DEMO_KEYS = {
    "apiUrl",
    "realtimeUrl",
    "superadminToken",
    "superadminEmail",
    "superadminPassword",
    "apiKey",
    "toolSecret",
    "contactPhone",
    "organizationPhone",
}
TELLTALE = "teLLtaLe"  # stands for a secret that must not be echoed


@dataclass(frozen=True)
class House:
    """A folder with an installation in it."""

    folder: Path
    env: dict[str, str]

    @property
    def demo_file(self) -> Path:
        return self.folder / "var" / "demo.json"

    @property
    def demo(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.demo_file.read_text())
        return found

    def run(self, *arguments: str, stdin: str = "", **settings: Any) -> CompletedProcess[str]:
        env = self.env | {name.upper(): str(value) for name, value in settings.items()}
        return run(*arguments, env=env, folder=self.folder, stdin=stdin)

    def start(self, *arguments: str) -> AbstractContextManager[Running]:
        return running(*arguments, env=self.env, folder=self.folder)

    def tool(self, name: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        url = f"http://127.0.0.1:{self.env['API_PORT']}/api/webhook/elevenlabs/tools/{name}"
        token = {"Authorization": f"Bearer {self.demo['toolSecret']}"}
        return httpx.post(url, json=body, headers=token | headers, trust_env=False)

    def note(self, text: str) -> httpx.Response:
        return self.tool("create-note", {"phone_number": self.demo["contactPhone"], "note": text})


def said_it_runs(up: Running) -> bool:
    """Tell whether `up` has printed all it has to say."""
    return "The same for scripts" in up.output


def assert_one_sentence(done: CompletedProcess[str], *words: str) -> None:
    """Insist on a non-zero exit that was explained in one line, naming `words`, without a secret or a traceback."""
    assert done.returncode not in (0, None)
    logged = [line for line in done.stderr.splitlines() if line.startswith("{")]
    (said,) = [line for line in done.stderr.splitlines() if line not in logged]
    assert said.startswith("tether-relay: ")
    assert done.stdout == ""
    for word in words:
        assert word in said
    for line in logged:
        assert json.loads(line)["level"] == "info"
    assert TELLTALE not in done.stderr


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, environment(tmp_path))


# Up, and down again


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Running]]:
    """One running installation for the tests that do not end it."""
    folder: Path = tmp_path_factory.mktemp("up")
    house = House(folder, environment(folder))
    with running("up", env=house.env, folder=folder, anew=True) as process:
        process.until(lambda: said_it_runs(process))
        yield house, process


def test_up_writes_the_credentials_for_its_owner_alone(up: tuple[House, Running]) -> None:
    """Exactly the promised keys, readable by nobody else, and nothing left of the draft."""
    house, _ = up
    demo = house.demo

    assert demo.keys() == DEMO_KEYS
    assert all(demo.values())
    assert stat.S_IMODE(house.demo_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((house.folder / "var" / "secrets.json").stat().st_mode) == 0o600
    assert not list((house.folder / "var").glob("*.tmp"))
    assert demo["apiUrl"] == f"http://127.0.0.1:{house.env['API_PORT']}"
    assert demo["realtimeUrl"].startswith(f"ws://127.0.0.1:{house.env['REALTIME_PORT']}")


def test_up_prints_what_can_be_pasted(up: tuple[House, Running]) -> None:
    """Every credential, a curl for each operation, and a listener; standard error is for the log alone."""
    house, process = up
    printed = process.output

    assert all(value in printed for value in house.demo.values())
    assert printed.count("curl -s") == 5
    assert "manage.py listen" in printed
    assert not any(secret in process.errors for name, secret in house.demo.items() if "Url" not in name)
    for line in process.errors.splitlines():
        assert json.loads(line)["level"] == "info"


def test_up_serves_both(up: tuple[House, Running]) -> None:
    """The printed curl commands work as they stand, and so does the listener's address."""
    house, process = up
    for path in ("healthz", "readyz", "docs/", "openapi.json", "metrics"):
        assert httpx.get(f"{house.demo['apiUrl']}/{path}", trust_env=False).status_code == 200
    answers = [_curl(block) for block in re.findall(r"curl -s (.*?)\n\n", process.output, re.DOTALL)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 201, 200]
    assert asyncio.run(_hello(house))["type"] == "hello"


def _curl(block: str) -> httpx.Response:
    url, *options = (line.strip().removesuffix(" \\") for line in block.splitlines())
    headers = dict(option.removeprefix("-H ").strip("'").split(": ", 1) for option in options[:-1])
    return httpx.post(url, headers=headers, content=options[-1].removeprefix("-d ").strip("'"), trust_env=False)


async def _hello(house: House) -> Any:
    async with connect(
        house.demo["realtimeUrl"], additional_headers={"Authorization": f"Bearer {house.demo['apiKey']}"}
    ) as listener:
        return json.loads(await listener.recv())


def test_every_line_of_a_request_carries_its_id(up: tuple[House, Running]) -> None:
    """What the provider says in the middle of it, and the line at its end."""
    house, process = up
    body = {"phone_number": house.demo["contactPhone"], "message": "Here is the link, once more."}
    house.tool("send-sms", body, **{"X-Request-Id": "one-request"})
    process.until(lambda: process.errors.count('"one-request"') >= 2)
    lines = [json.loads(line) for line in process.errors.splitlines()]
    events = [line["event"] for line in lines if line.get("request_id") == "one-request"]

    assert events[-1] == "request"
    assert len(events) >= 2
    assert body["message"] not in process.errors
    assert house.demo["contactPhone"] not in process.errors


def test_a_second_up_says_that_the_port_is_taken(up: tuple[House, Running]) -> None:
    """And leaves the first one alone."""
    house, process = up
    assert_one_sentence(house.run("up"), house.env["API_PORT"], "API_PORT", "in use")

    assert process.process.poll() is None
    assert house.note("still here").json()["success"] is True


@dataclass(frozen=True)
class Rested:
    """An installation that ran, got a note, and was stopped by SIGTERM."""

    house: House
    demo: dict[str, str]
    note: str
    children: list[int]
    status: int
    errors: str


@pytest.fixture(scope="module")
def rested(tmp_path_factory: pytest.TempPathFactory) -> Rested:
    folder: Path = tmp_path_factory.mktemp("rested")
    house = House(folder, environment(folder))
    with house.start("up") as process:
        process.until(lambda: said_it_runs(process))
        note = house.note("kept").json()["note_id"]
        children = process.children()
        status = process.stop(signal.SIGTERM)
        return Rested(house, house.demo, note, children, status, process.errors)


def test_up_stops_cleanly(rested: Rested) -> None:
    """Exit 0, both ports free, nobody left behind, and nothing in the log but that it stopped."""
    assert rested.status == 0
    assert len(rested.children) == 2
    assert not any(_is_alive(child) for child in rested.children)
    assert not accepts(rested.house.env["API_PORT"])
    assert not accepts(rested.house.env["REALTIME_PORT"])
    assert {json.loads(line)["level"] for line in rested.errors.splitlines()} == {"info"}


def test_up_again_keeps_credentials_and_data(rested: Rested) -> None:
    """Only the token, which expires, is a new one; and Ctrl-C stops it as cleanly."""
    with rested.house.start("up") as process:
        process.until(lambda: said_it_runs(process))
        demo = rested.house.demo
        repeated = rested.house.note("kept").json()["note_id"]
        children = process.children()
        assert process.stop(signal.SIGINT) == 0

    assert {**demo, "superadminToken": ""} == {**rested.demo, "superadminToken": ""}
    assert repeated == rested.note
    assert not any(_is_alive(child) for child in children)
    assert "Traceback" not in process.errors


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_dies_the_other_is_stopped_and_the_exit_is_not_zero(rested: Rested, victim: int) -> None:
    """Half a house is no house; whoever supervises us starts it again."""
    with rested.house.start("up") as process:
        process.until(lambda: len(process.children()) == 2)
        children = process.children()
        os.kill(children[victim], signal.SIGKILL)
        status = process.process.wait(PATIENCE_SECONDS)

    assert status != 0
    assert not any(_is_alive(child) for child in children)


def test_credentials_of_another_database_do_not_stand_in_the_way(rested: Rested, tmp_path: Path) -> None:
    """A database of one's own is served beside the demo's file, which is left as it is."""
    env = rested.house.env | {"DATABASE_URL": f"sqlite:///{tmp_path}/own.db"}
    before = rested.house.demo_file.read_bytes()
    for words in (("migrate",), ("org", "add", "Own", "--region", "CA")):
        assert run(*words, env=env, folder=rested.house.folder).returncode == 0
    with running("up", env=env, folder=rested.house.folder) as process:
        process.until(lambda: "Tether Relay is running at" in process.output)
        assert process.stop(signal.SIGTERM) == 0

    assert rested.house.demo_file.read_bytes() == before


def test_when_the_supervisor_is_killed_nobody_is_left_behind(rested: Rested) -> None:
    """What could not be told to stop stops by itself, and the ports are free for the next start."""
    with rested.house.start("up") as process:
        process.until(lambda: said_it_runs(process))
        process.stop(signal.SIGKILL)
        ports = [rested.house.env[name] for name in ("API_PORT", "REALTIME_PORT")]
        wait_until(lambda: not any(map(accepts, ports)), "everybody stopped without the supervisor")


def test_a_signal_before_everything_runs_stops_it_all_the_same(rested: Rested) -> None:
    """Nobody is left behind by a hasty Ctrl-C."""
    with rested.house.start("up") as process:
        process.until(lambda: len(process.children()) == 2)
        children = process.children()
        assert process.stop(signal.SIGTERM) == 0

    assert not any(_is_alive(child) for child in children)


def test_it_runs_on_ipv6_and_on_every_address(rested: Rested) -> None:
    """What is printed can be reached."""
    env = rested.house.env | {"API_HOST": "::1", "REALTIME_HOST": "0.0.0.0"}
    with running("up", env=env, folder=rested.house.folder) as process:
        process.until(lambda: said_it_runs(process))
        demo = rested.house.demo
        assert httpx.get(f"{demo['apiUrl']}/healthz", trust_env=False).is_success
        assert asyncio.run(_hello(rested.house))["type"] == "hello"

    assert demo["apiUrl"] == f"http://[::1]:{env['API_PORT']}"
    assert demo["realtimeUrl"].startswith(f"ws://127.0.0.1:{env['REALTIME_PORT']}")


@pytest.mark.parametrize("words", ["", "serve", "broadcast", "contract"])
def test_each_part_of_the_command_line_is_loaded_by_a_new_interpreter(house: House, words: str) -> None:
    """The other tests fork a process that has loaded everything, which would hide that something cannot be."""
    done = run(*words.split(), "--help", env=house.env, folder=house.folder, anew=True)

    assert done.returncode == 0, done.stderr
    assert f"Usage: manage.py {words}".strip() in done.stdout


# What cannot start says why


@pytest.mark.parametrize("name", ["API", "REALTIME"])
@pytest.mark.parametrize("command", ["up", "single"])
def test_a_taken_port_is_one_sentence(house: House, name: str, command: str) -> None:
    """Which port it was, and which setting changes it; nothing was started or created for it."""
    port = f"{name}_PORT"
    single = "serve" if name == "API" else "broadcast"
    with socket.create_server(("127.0.0.1", int(house.env[port]))):
        done = house.run("up" if command == "up" else single)

    assert_one_sentence(done, house.env[port], port)
    assert not house.demo_file.exists()


def _below_a_file(folder: Path) -> dict[str, Any]:
    (folder / "file").write_text("")
    return {"data_dir": folder / "file" / "var"}


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], tuple[str, ...]]] = {
    "a data folder below a file": (_below_a_file, ("file/var", "DATA_DIR", "Not a directory")),
    "a data folder that cannot be": (lambda _: {"data_dir": "/proc/relay"}, ("/proc/relay", "DATA_DIR")),
    "a port in words": (lambda _: {"api_port": "abc"}, ("API_PORT", "integer")),
    "a port out of range": (lambda _: {"realtime_port": 65536}, ("REALTIME_PORT",)),
    "a level nobody knows": (lambda _: {"log_level": "loud"}, ("LOG_LEVEL", "'info'")),
    "a network that is none": (
        lambda _: {"download_allowed_networks": "10.0.0.0/8, x"},
        ("DOWNLOAD_ALLOWED_NETWORKS ",),
    ),
    "an address that is none": (lambda _: {"public_url": "ftp://x.example"}, ("PUBLIC_URL",)),
    "time without end": (lambda _: {"sms_timeout_seconds": "inf"}, ("SMS_TIMEOUT_SECONDS",)),
    "a shared database without secrets": (
        lambda _: {"database_url": f"postgresql://relay:{TELLTALE}@db.example/relay"},
        ("JWT_SECRET", "ENCRYPTION_KEYS"),
    ),
    "an unreachable database": (
        lambda _: {
            "database_url": f"postgresql://relay:{TELLTALE}@127.0.0.1:1/relay",
            "jwt_secret": TELLTALE * 4,
            "encryption_keys": encryption_key(),
        },
        ("DATABASE_URL", "127.0.0.1"),
    ),
    "a database nobody knows": (
        lambda _: {
            "database_url": f"mongodb://relay:{TELLTALE}@db.example/relay",
            "jwt_secret": TELLTALE * 4,
            "encryption_keys": encryption_key(),
        },
        ("DATABASE_URL", "mongodb"),
    ),
    "half of the object storage": (
        lambda _: {"r2_bucket": "recordings", "r2_secret_access_key": TELLTALE},
        ("R2_ENDPOINT_URL", "R2_ACCESS_KEY_ID"),
    ),
    "encryption keys that are none": (lambda _: {"encryption_keys": TELLTALE}, ("ENCRYPTION_KEYS", "Fernet")),
    "one encryption key that is none": (
        lambda _: {"encryption_keys": f"{encryption_key()},{TELLTALE}é"},
        ("ENCRYPTION_KEYS",),
    ),
    "a signing secret that can be guessed": (lambda _: {"jwt_secret": TELLTALE}, ("JWT_SECRET", "32")),
    "a host that is none": (lambda _: {"api_host": "a" * 80}, ("API_HOST",)),
}


@pytest.mark.parametrize(("settings", "words"), BAD.values(), ids=BAD)
def test_a_bad_setting_is_one_sentence(
    house: House, settings: Callable[[Path], dict[str, Any]], words: tuple[str, ...]
) -> None:
    """It names the setting, never the value of a secret, and nothing is started."""
    assert_one_sentence(house.run("up", **settings(house.folder)), *words)
    assert not house.demo_file.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("secrets.json", b"{"),
        ("secrets.json", b"\xff"),
        ("secrets.json", b"[]"),
        ("secrets.json", b'{"jwtSecret": "' + TELLTALE.encode() * 4 + b'"}'),
        ("demo.json", b"{"),
        ("demo.json", b"\xff"),
        ("demo.json", b"[]"),
        ("demo.json", b'{"superadminPassword": "' + TELLTALE.encode() + b'"}'),
        ("relay.db", b"this is no database, and it is long enough to be seen as such" * 20),
    ],
)
def test_a_broken_file_is_one_sentence(house: House, name: str, content: bytes) -> None:
    """It names the file, which stays as it is for whoever can repair it."""
    file = house.folder / "var" / name
    file.parent.mkdir()
    file.write_bytes(content)
    assert_one_sentence(house.run("up"), name)

    assert file.read_bytes() == content


def test_a_database_that_was_never_migrated_is_one_sentence(house: House) -> None:
    """It says which command is missing."""
    assert_one_sentence(house.run("org", "list"), "manage.py migrate")


def test_a_settings_file_that_is_no_text_is_one_sentence(house: House) -> None:
    """The `.env` of the folder it is started in."""
    (house.folder / ".env").write_bytes(b"API_PORT=\xff\xfe")

    assert_one_sentence(house.run("up"), ".env")


# Organizations, users, keys


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A migrated database with one organization and one user."""
    folder: Path = tmp_path_factory.mktemp("settled")
    house = House(folder, environment(folder))
    assert house.run("migrate").stdout.startswith("Applied 0001_initial")
    assert house.run("org", "add", "Acme [bold]& Söhne[/]", "--region", "gb").returncode == 0
    added = house.run(
        "user", "add", ACME, "Ann@Acme.example", "--name", "Ann", "--role", "superadmin", relay_password="correct horse"
    )
    assert added.stdout.startswith("Created ann@acme.example with the id ")
    return house


ACME = "Acme [bold]& Söhne[/]"


def test_migrating_twice_changes_nothing(settled: House) -> None:
    """It says so."""
    assert settled.run("migrate").stdout == "The database is up to date.\n"


def test_an_organization_is_set_up_from_the_command_line(settled: House) -> None:
    """Region, numbers, contact and SMS provider, read back in the list as they were written."""
    settled.run("org", "number", ACME, "020 7183 8752")
    number = settled.run("org", "number", ACME, "020 7183 8750", "--label", "Front [desk]", "--default")
    contact = settled.run("org", "contact", ACME, "020 7183 8751", "Alex [x]")
    region = settled.run("org", "region", ACME, "ca")
    provider = settled.run("org", "sms", ACME, "console")
    listed = settled.run("org", "list", columns=200)

    assert number.stdout == "Added +442071838750.\n"
    assert re.fullmatch(r"Added Alex \[x\] with the id [0-9a-f]{24}\.\n", contact.stdout)
    assert region.stdout == "National numbers are now read as numbers of CA.\n"
    assert provider.stdout == "Texts now go through console.\n"
    assert ACME in listed.stdout
    assert "+442071838750" in listed.stdout
    with sqlite3.connect(settled.folder / "var" / "relay.db") as database:
        numbers = database.execute("SELECT number, label, is_default FROM phone_number WHERE number LIKE '+44%'")
        assert set(numbers) == {("+442071838750", "Front [desk]", 1), ("+442071838752", None, 0)}


def test_credentials_come_from_a_file_or_standard_input(settled: House) -> None:
    """Never from the arguments, which everybody on the machine can see; nothing of them is shown."""
    credentials = json.dumps({"account_sid": "AC" + "0" * 32, "auth_token": TELLTALE})
    file = settled.folder / "twilio.json"
    file.write_text(credentials)
    by_file = settled.run("org", "sms", ACME, "twilio", "--credentials", str(file))
    by_stdin = settled.run("org", "sms", ACME, "twilio", "--credentials", "-", stdin=credentials)

    for done in (by_file, by_stdin):
        assert (done.returncode, done.stdout, done.stderr) == (0, "Texts now go through twilio.\n", "")
    assert TELLTALE.encode() not in (settled.folder / "var" / "relay.db").read_bytes()


def test_a_token_and_keys_are_printed_alone(settled: House) -> None:
    """So that a script can take them; the API key stays the same until it is renewed."""
    token = settled.run("user", "token", "ann@acme.example", "--days", "0.5").stdout
    first, same = (settled.run("key", "api", "ANN@acme.example").stdout for _ in range(2))
    renewed = settled.run("key", "api", "ann@acme.example", "--renew").stdout
    tool = settled.run("key", "tool", ACME).stdout
    encryption = settled.run("key", "encryption").stdout

    claims = jwt.decode(token.strip(), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 12 * 3600
    assert re.fullmatch(r"eyJ[\w-]+\.[\w-]+\.[\w-]+\n", token)
    assert re.fullmatch(r"tk_live_[0-9a-f]{36}\n", first)
    assert first == same != renewed
    assert re.fullmatch(r"[0-9a-f]{64}\n", tool)
    assert Fernet(encryption.strip())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["org", "add", " "], ("name",)),
        (["org", "add", "x" * 201], ("name",)),
        (["org", "add", "two\nlines"], ("name",)),
        (["org", "add", ACME], ("already",)),
        (["org", "add", "New", "--region", "ZZ"], ("ZZ", "region")),
        (["org", "number", "Nobody", "+442071838750"], ("Nobody", "org list")),
        (["org", "number", ACME, "soon"], ("phone number",)),
        (["org", "contact", ACME, "soon", "Alex"], ("phone number",)),
        (["org", "region", ACME, "Atlantis"], ("Atlantis",)),
        (["org", "sms", ACME, "pigeon"], ("pigeon", "twilio")),
        (["org", "sms", ACME, "twilio"], ("twilio", "account_sid")),
        (["org", "sms", ACME, "twilio", "--credentials", "missing.json"], ("missing.json",)),
        (["org", "sms", ACME, "twilio", "--credentials", "-"], ("cannot be read",)),
        (["user", "token", "nobody@acme.example"], ("nobody@acme.example",)),
        (["user", "add", ACME, "ann@acme.example", "--name", "Ann"], ("already",)),
        (["user", "add", ACME, "nonsense", "--name", "Ann"], ("nonsense", "address")),
        (["user", "add", "Nobody", "x@acme.example", "--name", "X"], ("Nobody",)),
        (["key", "api", "nobody@acme.example"], ("nobody@acme.example",)),
        (["key", "tool", "Nobody"], ("Nobody",)),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_sentence(settled: House, arguments: list[str], words: tuple[str, ...]) -> None:
    """It names what was not found or not understood."""
    assert_one_sentence(settled.run(*arguments, relay_password=TELLTALE), *words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["org", "fly"],
        ["user", "token", "ann@acme.example", "--days", "inf"],
        ["user", "token", "ann@acme.example", "--days", "-1"],
        ["user", "add", ACME, "x@acme.example", "--name", "X", "--role", "king"],
    ],
)
def test_a_command_that_was_mistyped_is_explained(settled: House, arguments: list[str]) -> None:
    """With the usage, and exit 2 as everywhere."""
    done = settled.run(*arguments, relay_password=TELLTALE)

    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage:" in done.stderr
    assert TELLTALE not in done.stderr


def test_a_user_is_not_made_without_a_password(settled: House) -> None:
    """Without RELAY_PASSWORD it is asked for, and somebody has to answer."""
    done = settled.run("user", "add", ACME, "x@acme.example", "--name", "X")

    assert done.returncode != 0
    assert settled.run("key", "api", "x@acme.example").returncode != 0


def test_help_tells_of_every_command(settled: House) -> None:
    """One line each."""
    printed = settled.run("--help", columns=120).stdout

    for command in ("up", "serve", "broadcast", "listen", "migrate", "org", "user", "key"):
        assert re.search(rf"\W{command} +\w", printed)


# Listening


def test_listen_prints_events_as_they_happen(up: tuple[House, Running]) -> None:
    """For people, with nothing in them that would command the terminal."""
    house, _ = up
    with house.start("listen") as listener:
        listener.until(lambda: "hello" in listener.output)
        house.note("Wants \x9b31m [red]a callback[/] \x1b[31m\u202e é")
        listener.until(lambda: "note_created" in listener.output)
        printed = listener.output
        assert listener.stop(signal.SIGINT) == 0

    assert "[red]a callback[/]" in printed
    assert "é" in printed
    assert all(char.isprintable() or char == "\n" for char in re.sub(r"\x1b\[[0-9;]*m", "", printed))


def test_listen_prints_json_and_survives_a_restart_of_the_broadcaster(rested: Rested) -> None:
    """One frame a line; what happened while the broadcaster was away comes afterwards, once and in order."""
    house = rested.house
    with house.start("serve") as api, contextlib.ExitStack() as stack:
        api.until(lambda: accepts(house.env["API_PORT"]))
        with house.start("broadcast") as first:
            # It waits longer after each attempt, so it begins once there is somebody to connect to.
            first.until(lambda: accepts(house.env["REALTIME_PORT"]))
            listener = stack.enter_context(house.start("listen", "--json"))
            listener.until(lambda: '"hello"' in listener.output)
            house.note("one")
            listener.until(lambda: len(_events(listener)) == 1)
        house.note("two")
        with house.start("broadcast"):
            house.note("three")
            listener.until(lambda: len(_events(listener)) == 3)
        assert listener.stop(signal.SIGINT) == 0
        events = _events(listener)

    assert [event["data"]["note"] for event in events] == ["one", "two", "three"]
    assert [event["seq"] - events[0]["seq"] for event in events] == [0, 1, 2]
    assert "trying again in" in listener.errors


def _events(listener: Running) -> list[dict[str, Any]]:
    frames = [json.loads(line) for line in listener.output.splitlines()]
    return [frame for frame in frames if frame["type"] == "event"]


def test_listen_begins_where_it_is_told_and_prints_what_it_is_asked_for(up: tuple[House, Running]) -> None:
    """What happened before it was started, and about one contact alone."""
    house, _ = up
    token = {"Authorization": f"Bearer {house.demo['superadminToken']}"}
    found = httpx.get(f"{house.demo['apiUrl']}/api/contacts", headers=token, trust_env=False).json()
    (contact_id,) = [
        one["_id"] for one in found["data"]["contacts"] if one["phoneNumber"][0]["value"] == house.demo["contactPhone"]
    ]
    house.tool("transfer", {"reason": "About nobody in particular"})
    house.note("Before anybody listened")
    with house.start("listen", "--json", "--since", "0", "--contact", contact_id) as listener:
        listener.until(lambda: "Before anybody listened" in listener.output)
        assert listener.stop(signal.SIGINT) == 0
        names = {event["event"] for event in _events(listener)}

    assert "note_created" in names
    assert "transfer_requested" not in names


def test_listen_says_what_it_cannot_do(up: tuple[House, Running], tmp_path: Path) -> None:
    """Without a token, with a wrong one, and at an address that is none."""
    house, _ = up
    nobody = House(tmp_path, environment(tmp_path))
    assert_one_sentence(nobody.run("listen"), "RELAY_TOKEN")
    assert_one_sentence(house.run("listen", relay_token=TELLTALE))
    assert_one_sentence(house.run("listen", "--url", "gopher://x"), "gopher://x")
