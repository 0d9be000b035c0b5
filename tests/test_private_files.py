"""What lies in the data folder, and who may read it."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.support.audio import mp3_base64
from tests.support.processes import Running, environment, run, running

CALL = {
    "direction": "inbound",
    "fromNumber": "+14165550100",
    "toNumber": "+12362320246",
    "duration": 5,
    "status": "completed",
    "transcript": [{"role": "user", "message": "Hello."}],
    "summary": "Hello.",
    "recording": mp3_base64(),
}


@contextmanager
def no_umask() -> Iterator[None]:
    """Have what is started inside make files as wide as it asks for."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """Return the mode of everything below `folder`."""
    return {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}


def open_to_others(folder: Path) -> dict[str, str]:
    return {name: oct(mode) for name, mode in modes(folder).items() if mode & 0o077}


def ingest(data_dir: Path, up: Running) -> None:
    demo = json.loads((data_dir / "demo.json").read_text())
    headers = {"Authorization": f"Bearer {demo['apiKey']}"}
    answer = httpx.post(f"{demo['apiUrl']}/api/calls/ingest", json=CALL, headers=headers, trust_env=False)
    assert answer.status_code == 201, (answer.text, up.errors)


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder for what goes to the temporary one; a socket's path may have a hundred bytes, which pytest's uses up."""
    with TemporaryDirectory(prefix="relay-") as folder:
        yield Path(folder)


def test_everything_is_its_owners_alone_whatever_the_umask(tmp_path: Path, sockets: Path) -> None:
    """Also in a folder that was there and is open, which is said; and what an earlier version left open is closed."""
    data_dir = tmp_path / "var"
    data_dir.mkdir(mode=0o755)
    data_dir.chmod(0o755)
    theirs = data_dir / "theirs.txt"
    theirs.write_text("not ours")
    theirs.chmod(0o644)
    env = environment(tmp_path) | {"TMPDIR": str(sockets)}
    with no_umask(), running("up", env=env, folder=tmp_path) as up:
        up.until(lambda: "The same for scripts" in up.output)
        up.until(lambda: len(modes(sockets)) == 2)  # the folder of the wake-ups, and the broadcaster's own
        ingest(data_dir, up)
        made, socket_modes = modes(data_dir), modes(sockets)
        warnings = [json.loads(line) for line in up.errors.splitlines() if "open_to_others" in line]

    assert {"relay.db", "relay.db-wal", "relay.db-shm", "secrets.json", "demo.json", "demo.env"} <= made.keys()
    assert any(name.endswith("recording.mp3") for name in made)
    assert {name: oct(mode) for name, mode in made.items() if mode & 0o077} == {"theirs.txt": "0o644"}
    assert [oct(mode) for mode in socket_modes.values() if mode & 0o077] == []
    assert len(warnings) == 2  # the API and the broadcaster
    assert (warnings[0]["level"], warnings[0]["mode"]) == ("warning", "0755")
    assert warnings[0]["remedy"] == f"chmod 700 {data_dir}"

    for path in [data_dir, *data_dir.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert run("org", "list", env=env, folder=tmp_path).returncode == 0
    assert open_to_others(data_dir) == {"theirs.txt": "0o644"}


def test_a_folder_that_is_closed_is_not_spoken_of(tmp_path: Path) -> None:
    """And one that is made on first use is closed."""
    env = environment(tmp_path)
    with no_umask(), running("up", env=env, folder=tmp_path) as up:
        up.until(lambda: "The same for scripts" in up.output)

        assert "open_to_others" not in up.errors
        assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700
