"""What commands print: whatever is stored, nothing of it commands the terminal or forges a line."""

import ast
import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from websockets.asyncio.server import ServerConnection, serve

import manage
from commands import contract, demo, terminal
from config import load_settings
from domain.identifiers import new_id
from domain.times import now
from openapi.generating.differences import Change, Severity
from openapi.schemas import Schemas
from tests.support.contract import CONTRACT
from tests.support.processes import environment, run, running

ROOT = Path(__file__).parents[1]
# Ends a line, forges another, colours, clears, rings, writes a link and a title, turns the writing, and is markup.
HOSTILE = (
    "a\nforged 2026-01-01 user.signed_in\r\x1b[2J\x1b]0;title\x07\x9b31m\x85\u2028\u2029\u202e\u2066\u200f\ufeff"
    "\x1b]8;;http://x\x1b\\ \x7f\x08[red]markup[/red] [link=http://x]z"
)
STYLES = re.compile(r"\x1b\[[0-9;]*m")


def assert_harmless(printed: str) -> None:
    """Insist that every line of `printed` is visible characters, and that the hostile text was there."""
    for line in STYLES.sub("", printed).split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith("forged")


class House:
    """An installation whose database holds the hostile text wherever a text may stand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = environment(folder) | {"COLUMNS": "5000"}
        for words in (
            ("migrate",),
            ("org", "add", "Acme", "--region", "CA"),
            ("org", "number", "Acme", "+14155550123"),
        ):
            assert self.run(*words).returncode == 0, words
        assert self.run("user", "add", "Acme", "a@x.example", "--name", "A", "--role", "admin").returncode == 0
        self.plant()

    def run(self, *words: str) -> CompletedProcess[str]:
        return run(*words, env=self.env | {"RELAY_PASSWORD": "correct horse"}, folder=self.folder)

    def plant(self) -> None:
        database = sqlite3.connect(self.folder / "var" / "relay.db")
        with database:
            # An earlier version did not limit lengths here, so a database may hold such texts.
            guards = database.execute("SELECT name FROM sqlite_master WHERE name LIKE 'length_of_%'").fetchall()
            for (guard,) in guards:
                database.execute(f'DROP TRIGGER "{guard}"')
            database.execute("UPDATE organization SET name = ?, default_region = ?", (HOSTILE, HOSTILE))
            database.execute("UPDATE user SET email = ?, full_name = ?, role = ?", (HOSTILE, HOSTILE, HOSTILE))
            database.execute("UPDATE phone_number SET number = ?, label = ?", (HOSTILE, HOSTILE))
            (organization,) = database.execute("SELECT id FROM organization").fetchone()
            values = {
                "id": new_id(),
                "organization_id": organization,
                "at": now(),
                "action": HOSTILE,
                "user_id": HOSTILE,
                "client": HOSTILE,
                "request_id": HOSTILE,
                "subject": HOSTILE,
                "details": json.dumps({HOSTILE: HOSTILE}),
                "sequence": 1_000_000,
                "previous_digest": HOSTILE,
            }
            names = ", ".join(values)
            marks = ", ".join("?" * len(values))
            database.execute(f"INSERT INTO audit_entry ({names}) VALUES ({marks})", tuple(values.values()))
            old = {"id": new_id(), "organization_id": organization, "tool": HOSTILE, "fingerprint": HOSTILE}
            old |= {"result_id": new_id(), "invoked_at": "2020-01-01T00:00:00.000Z"}
            names, marks = ", ".join(old), ", ".join("?" * len(old))
            database.execute(f"INSERT INTO tool_invocation ({names}) VALUES ({marks})", tuple(old.values()))
        database.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize(
    "words",
    [
        ("audit",),
        ("audit", "--json"),
        ("org", "list"),
        ("org", "retention", HOSTILE),
        ("user", "list"),
        ("user", "list", HOSTILE),
        ("retention",),
        ("retention", "--apply"),
        ("sweep",),
        ("org", "number", HOSTILE, "+14155550199"),
        ("org", "sms", HOSTILE, "console"),
        ("org", "region", HOSTILE, "GB"),
    ],
    ids=lambda words: " ".join(word for word in words if word != HOSTILE),
)
def test_a_command_prints_nothing_that_commands_the_terminal(house: House, words: tuple[str, ...]) -> None:
    """On either stream, whatever the database holds."""
    done = house.run(*words)

    assert done.returncode == 0, done.stderr
    assert_harmless(done.stdout)
    assert_harmless(done.stderr)
    if words[-1] not in ("sweep", "GB", "console", "+14155550199") and words[:2] != ("org", "retention"):
        assert "\\u001b[2J" in done.stdout
        assert "[red]markup[/red]" in done.stdout


@pytest.mark.parametrize(
    "words", [("org", "retention", f"no {HOSTILE}"), ("user", "token", HOSTILE + "?"), ("org", "add", HOSTILE)]
)
def test_an_error_quotes_nothing_that_commands_the_terminal(house: House, words: tuple[str, ...]) -> None:
    """It is one line."""
    done = house.run(*words)

    assert done.returncode == 1
    assert_harmless(done.stderr)
    assert done.stderr.count("\n") == 1


def test_json_for_programs_is_still_the_same_json(house: House) -> None:
    """What was written out is read back as it was."""
    entries = [json.loads(line) for line in house.run("audit", "--json").stdout.splitlines()]

    assert {HOSTILE: HOSTILE} in [entry["details"] for entry in entries]


async def _frames(connection: ServerConnection) -> None:
    for frame in (
        {"type": "hello", "sequence": 0, "since": 0, "heartbeatSeconds": 20, "reconnect": {}, "note": HOSTILE},
        {"type": "event", "seq": 1, "event": HOSTILE, "at": HOSTILE, "data": {HOSTILE: HOSTILE}},
        {"type": "event", "seq": 2, "event": "the_end", "at": now(), "data": {}},
    ):
        await connection.send(json.dumps(frame))
    await connection.wait_closed()


@pytest.fixture
async def stream() -> AsyncIterator[str]:
    async with serve(_frames, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/v1"


@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_a_listener_prints_nothing_that_commands_the_terminal(
    tmp_path: Path, stream: str, form: list[str]
) -> None:
    """Whatever a broadcaster sends."""
    words = ("listen", "--url", stream, "--token", "x", *form)
    with running(*words, env=environment(tmp_path), folder=tmp_path) as listener:
        await asyncio.to_thread(listener.until, lambda: "the_end" in listener.output)
        assert_harmless(listener.output)
        assert "\\u001b[2J" in listener.output


def test_a_report_about_the_contract_prints_nothing_that_commands_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A published document is somebody else's."""
    contract._print_changes([Change(Severity.BREAKING, HOSTILE, HOSTILE, HOSTILE)])
    contract._print_list("Orphans", [HOSTILE])
    terminal.show_json({HOSTILE: HOSTILE}, indent=2)

    assert_harmless(capsys.readouterr().out)


def test_the_demo_prints_nothing_that_commands_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its file may have been written by anybody who could."""
    folder = tmp_path / "with\nnew \x1b[31mlines"
    settings = load_settings(_env_file=None, data_dir=folder)
    names = demo._DEMO_KEYS | {"apiUrl", "realtimeUrl", "superadminToken"}
    demo.show(dict.fromkeys(names, HOSTILE), settings)
    printed = capsys.readouterr().out

    assert_harmless(printed)
    assert "\\u001b[2J" in printed


def test_an_unexpected_error_prints_nothing_that_commands_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its traceback is plain, and quotes what it quotes written out."""

    def fail(_: list[str]) -> None:
        raise RuntimeError(HOSTILE.replace("\n", " "))

    monkeypatch.setattr(manage, "_run", fail)
    with pytest.raises(SystemExit):
        manage.main()
    printed = capsys.readouterr().err

    assert_harmless(printed)
    assert "RuntimeError: a forged" in printed


def test_a_name_for_progress_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The bars are on standard error."""
    with terminal.progress() as bars:
        bars.add_task(HOSTILE, total=1)

    assert_harmless(capsys.readouterr().err)


_DOORS = [ROOT / "manage.py", ROOT / "app.py", ROOT / "supervisor.py", ROOT / "config.py"]
_PRINTING = {"print", "echo", "secho", "Console", "Table", "Progress", "stdout", "stderr"}
# An SMS provider, and how far copying a database has come.
_NAMESAKES = {("app.py", "Console"), ("copy_database.py", "Progress")}


def test_nothing_is_printed_past_the_terminal() -> None:
    """No other module of the commands, and no room they are made of, knows another way to it."""
    rooms = ("commands", "openapi", "handlers", "actions", "keyring", "domain", "persistence", "providers", "realtime")
    files = [*_DOORS, *(path for room in rooms for path in (ROOT / room).rglob("*.py"))]
    found = []
    for path in files:
        if path == ROOT / "commands" / "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = _called(node) if isinstance(node, ast.Call) else getattr(node, "attr", "")
            if name in _PRINTING and (path.name, name) not in _NAMESAKES:
                found.append(f"{path.relative_to(ROOT)}: {name}")

    assert len(files) > 100
    assert found == []


def _called(call: ast.Call) -> str:
    return str(getattr(call.func, "id", "") or getattr(call.func, "attr", ""))


# E-mail addresses, which end up in the audit log


def test_no_address_that_could_sign_in_is_refused_and_no_control_character_accepted() -> None:
    """Whatever may be stored (one printable line) may be sent, and nothing that moves a cursor or turns the writing."""
    schema = CONTRACT.served["components"]["schemas"]["AuthLoginRequest"]
    validator = Schemas(CONTRACT.served).compile(schema, "request")
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    stored = "".join(char for char in characters if char.isprintable())
    longest = schema["properties"]["email"]["maxLength"]
    refused = [
        text
        for text in (stored[start : start + longest] for start in range(0, len(stored), longest))
        if not validator.is_valid({"email": text, "password": "x"})
    ]
    hostile = [*map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)])]
    accepted = [char for char in hostile if validator.is_valid({"email": f"a{char}@x.example", "password": "x"})]

    assert refused == []
    assert accepted == []
