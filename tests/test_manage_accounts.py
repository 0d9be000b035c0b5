"""Accounts and the audit log from the command line, as real processes."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx
import pytest

from tests.support.processes import MANAGE, accepts, environment, run, running

EMAIL, PASSWORD = "ann@acme.example", "correct horse"


class House:
    """A folder with an installation and one user in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.env = folder, environment(folder)
        for arguments in (["migrate"], ["org", "add", "Acme"], ["user", "add", "Acme", EMAIL, "--name", "Ann"]):
            assert self.run(*arguments).returncode == 0

    def run(self, *arguments: str, password: str = PASSWORD) -> CompletedProcess[str]:
        return run(*arguments, env=self.env | {"RELAY_PASSWORD": password}, folder=self.folder)

    def audited(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run("audit", "--json", *arguments).stdout.splitlines()]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_users_are_listed_with_what_they_may_do(house: House) -> None:
    """Of one organization or of all."""
    assert house.run("org", "add", "Other").returncode == 0
    everybody, of_acme, of_other = (house.run("user", "list", *name).stdout for name in ([], ["Acme"], ["Other"]))

    assert EMAIL in everybody
    assert "agent" in everybody
    assert of_acme == everybody
    assert EMAIL not in of_other


def test_what_the_command_line_does_to_accounts_can_be_read_in_the_audit_log(house: House) -> None:
    """Newest first, for people and for programs."""
    assert "Changed the password" in house.run("user", "password", EMAIL, password="another password").stdout
    assert "Signed ann@acme.example out" in house.run("user", "sign-out", EMAIL).stdout
    assert house.run("key", "api", EMAIL).returncode == 0
    entries = house.audited()

    assert [entry["action"] for entry in entries] == [
        "api_key.created",
        "user.signed_out",
        "user.password_changed",
        "user.created",
    ]
    assert {entry["client"] for entry in entries} == {"command line"}
    assert [entry["action"] for entry in house.audited("--action", "user.created")] == ["user.created"]
    assert house.audited("--since", "2200-01-01T00:00:00Z") == []
    assert len(house.run("audit", "--limit", "2").stdout.splitlines()) == 2
    assert house.audited("--limit", "0") == entries
    assert "user.signed_out" in house.run("audit").stdout


def test_access_is_given_and_taken_from_the_command_line(house: House) -> None:
    """Each command says what it did and what it left."""
    named = house.run("key", "api", EMAIL, "--name", "crm", "--kind", "ingest", "--expires", "2200-01-01T00:00:00Z")
    listed = house.run("key", "list", EMAIL).stdout
    kept = house.run("user", "password", EMAIL, password="another password").stdout
    revoked = house.run("key", "revoke", EMAIL, "--name", "crm").stdout
    left = house.run("user", "sign-out", EMAIL, "--keys").stdout
    for arguments in (["disable"], ["enable"], ["remove"]):
        assert house.run("user", *arguments, EMAIL).returncode == 0
    gone, removed = house.run("user", "list").stdout, house.run("user", "list", "--removed").stdout
    again = house.run("user", "add", "Acme", EMAIL, "--name", "Ann", "--role", "superadmin")
    refused = house.run("user", "role", EMAIL, "agent")
    forced = house.run("user", "role", EMAIL, "agent", "--force")

    assert named.stdout.startswith("tk_live_")
    assert "crm" in listed
    assert named.stdout.strip() not in listed
    assert "1 API key still works: crm" in kept
    assert revoked == "Revoked crm.\n"
    assert "They have no API key." in left
    assert (EMAIL in gone, "Removed user" in gone, "Removed user" in removed) == (False, False, True)
    assert again.returncode == 0
    assert (refused.returncode, "--force" in refused.stderr) == (1, True)
    assert "is now agent" in forced.stdout
    assert [entry["action"] for entry in house.audited("--oldest-first")] == [
        "user.created",
        "api_key.created",
        "user.password_changed",
        "api_key.revoked",
        "user.signed_out",
        "user.disabled",
        "user.enabled",
        "user.removed",
        "user.created",
        "user.role_changed",
    ]


@pytest.mark.parametrize(("answer", "left"), [(b"y\n", "They have no API key."), (b"\n", "1 API key still works")])
def test_a_new_password_asks_at_a_terminal_whether_to_revoke_the_keys(house: House, answer: bytes, left: str) -> None:
    """Whoever answers with nothing keeps them, and is told of them."""
    assert house.run("key", "api", EMAIL).returncode == 0
    terminal, inside = pty.openpty()
    env = house.env | {"RELAY_PASSWORD": "another password", "COLUMNS": "200"}
    command = [sys.executable, str(MANAGE), "user", "password", EMAIL]
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=env, cwd=house.folder) as process:
        os.close(inside)
        shown = read_until(terminal, b"[y/N]")
        os.write(terminal, answer)
        shown += read_until(terminal, None)
    os.close(terminal)

    assert process.returncode == 0
    assert left in shown.decode()


def read_until(terminal: int, mark: bytes | None) -> bytes:
    """Read what is shown until the mark, or (None) until the process has gone."""
    shown = b""
    # On Linux a terminal nobody holds any more is an error to read from.
    with contextlib.suppress(OSError):
        while mark is None or mark not in shown:
            shown += os.read(terminal, 4096)
    return shown


def test_limits_and_a_whole_audit_log_are_shown(house: House) -> None:
    """The head that is printed can be asked for later; another one is missed."""
    shown = house.run("org", "limits", "Acme", "--recordings", "5000", "--sockets", "0").stdout
    reset = house.run("org", "limits", "Acme", "--reset").stdout
    verified = house.run("audit", "verify")
    (head,) = [line.split()[-1] for line in verified.stdout.splitlines() if line.startswith("Acme")]
    assert house.run("org", "region", "Acme", "CA").returncode == 0
    known, unknown = house.run("audit", "verify", "--expect", head), house.run("audit", "verify", "--expect", "0" * 64)
    (line,) = house.audited("--limit", "1")

    assert "5000 bytes, 0 are used" in shown
    assert "sockets     no limit" in shown
    assert "1099511627776 bytes" in reset
    assert (verified.returncode, known.returncode, unknown.returncode) == (0, 0, 1)
    assert "0" * 64 in unknown.stdout
    assert line["previous_digest"] == head
    assert line.keys() == {
        *("at", "action", "organization_id", "who", "user_id", "client", "request_id", "subject", "details"),
        *("id", "sequence", "previous_digest", "digest"),
    }


def test_a_reader_that_has_enough_ends_the_command_quietly(house: House) -> None:
    """As `head` does."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, str(MANAGE), "audit", "--json", "--limit", "0"]
    done = subprocess.run(command, env=house.env, cwd=house.folder, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)

    assert (done.returncode, done.stderr) == (1, "")


IMPOSSIBLE: list[tuple[list[str], str]] = [
    (["user", "password", "nobody@acme.example"], "nobody@acme.example"),
    (["user", "sign-out", "nobody@acme.example"], "nobody@acme.example"),
    (["user", "list", "Nobody"], "Nobody"),
    (["user", "disable", "nobody@acme.example"], "nobody@acme.example"),
    (["key", "revoke", EMAIL, "--name", "crm"], "crm"),
    (["key", "revoke", EMAIL], "--all"),
    (["key", "api", EMAIL, "--kind", "ingest"], "--name"),
    (["audit", "--organization", "Nobody"], "Nobody"),
    (["audit", "--since", "yesterday"], "yesterday"),
]


def test_what_cannot_be_done_is_one_sentence(house: House, subtests: pytest.Subtests) -> None:
    """It names what was not found or not understood."""
    for arguments, word in IMPOSSIBLE:
        with subtests.test(arguments=repr(arguments)[:60]):
            done = house.run(*arguments)

            assert done.returncode == 1
            assert done.stdout == ""
            assert done.stderr.startswith("tether-relay: ")
            assert word in done.stderr


def test_a_password_that_is_too_short_is_refused(house: House) -> None:
    """The old one stays."""
    done = house.run("user", "password", EMAIL, password="short")

    assert done.returncode == 1
    assert "8" in done.stderr
    assert [entry["action"] for entry in house.audited()] == ["user.created"]


@pytest.mark.parametrize(
    ("trusted", "come_from"), [("127.0.0.1/32,::1/128", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")]
)
def test_only_a_trusted_proxy_says_where_a_request_comes_from(house: House, trusted: str, come_from: str) -> None:
    """Otherwise anybody could sign in from everywhere, and guess on from there."""
    house.env["TRUSTED_PROXIES"] = trusted
    port = int(house.env["API_PORT"])
    with running("serve", env=house.env, folder=house.folder) as server:
        server.until(lambda: accepts(port))
        answer = httpx.post(
            f"http://127.0.0.1:{port}/api/auth/login",
            json={"email": EMAIL, "password": PASSWORD},
            headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"},
            trust_env=False,
        )
    (entry,) = house.audited("--action", "user.signed_in")

    assert answer.status_code == 200
    assert (entry["client"], entry["who"]) == (come_from, EMAIL)
