"""The types of the clients: what people write with them compiles, and what they must not write does not."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import assert_type

import pytest

from clients.python.tether_relay_client import EVENT_NAMES, Event
from clients.python.tether_relay_client.events import CallEndedData
from domain.events import EventName
from openapi.generating import event_code
from openapi.references import InvalidDocument
from tests.support import npm, published_events

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
JAVASCRIPT = ROOT / "clients" / "javascript"
PYTHON = ROOT / "clients" / "python"
TOOLS = Path(__file__).with_name("npm")


def test_the_types_are_what_the_document_makes_them() -> None:
    """They are generated; `contract check` says the same."""
    typescript, python = event_code.render(published_events.document())

    assert (JAVASCRIPT / "events.d.ts").read_text() == typescript
    assert (PYTHON / "tether_relay_client" / "events.py").read_text() == python


def test_a_schema_without_a_name_is_not_written_as_a_type() -> None:
    """Otherwise generators would have to invent one."""
    document = json.loads(json.dumps(published_events.document()))
    document["components"]["messages"]["pong"]["payload"] = {"type": "object"}

    with pytest.raises(InvalidDocument, match="no name of its own"):
        event_code.render(document)


def test_both_clients_know_every_event() -> None:
    """In the order of the document."""
    (listed,) = re.findall(r"EVENT_NAMES = \[(.*?)\]", (JAVASCRIPT / "index.js").read_text(), re.DOTALL)

    assert re.findall(r'"(\w+)"', listed) == list(EVENT_NAMES) == [name.value for name in EventName]


def test_what_people_write_in_typescript_compiles() -> None:
    """Under `--strict`, and each mistake that it expects is one."""
    npm.install(TOOLS)
    options = ["--strict", "--noEmit", "--target", "es2022", "--lib", "es2022,dom"]
    command = ["node_modules/.bin/tsc", *options, "--module", "nodenext", "--moduleResolution", "nodenext", "usage.ts"]
    done = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def spoken(event: Event) -> float:
    """Narrow an event by its name; `mypy` checks this."""
    if event["event"] == "call_ended":
        assert_type(event["data"], CallEndedData)
        return event["data"]["duration"]
    return 0


def test_an_event_is_narrowed_by_its_name() -> None:
    """What runs is what was typed."""
    event: Event = published_events.document()["components"]["messages"]["callEnded"]["examples"][0]["payload"]

    assert spoken(event) == 123


def test_the_python_client_works_as_a_copied_folder(tmp_path: Path) -> None:
    """Nothing of the relay is near it."""
    (tmp_path / "tether_relay_client").symlink_to(PYTHON / "tether_relay_client")
    wrong = "from tether_relay_client import follow; follow('nonsense', token='x')"
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {wrong}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert "OptionError: url must be the address of the broadcaster" in done.stderr


def test_the_python_client_can_be_installed(tmp_path: Path) -> None:
    """From its folder, with its types, and as the version that npm gets."""
    command = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", str(PYTHON), str(source)], check=True)
    subprocess.run([sys.executable, *command, "--target", str(tmp_path / "site"), str(source)], check=True)
    project = tomllib.loads((PYTHON / "pyproject.toml").read_text())["project"]

    assert {path.name for path in (tmp_path / "site" / "tether_relay_client").glob("*.*")} >= {"py.typed", "follow.py"}
    assert project["version"] == json.loads((JAVASCRIPT / "package.json").read_text())["version"]


def test_the_javascript_client_can_be_packed_and_installed(tmp_path: Path) -> None:
    """What npm puts into a package is what its entry points name."""
    packed = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", str(tmp_path)],
        cwd=JAVASCRIPT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    folder = tmp_path / "node_modules" / "tether-relay-client"
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-xzf", str(tmp_path / packed), "--strip-components=1", "-C", str(folder)], check=True)
    program = "import { follow } from 'tether-relay-client'; follow({ url: 'nonsense' });"
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert {path.name for path in folder.iterdir()} == {
        "README.md", "events.d.ts", "index.d.ts", "index.js", "package.json",
    }  # fmt: skip
    assert "TypeError: url must be the address of the broadcaster" in done.stderr


@pytest.mark.parametrize("kind", ["javascript", "python"])
def test_every_option_is_explained(kind: str) -> None:
    """The two tables say the same, each in its own spelling."""
    said = (ROOT / "clients" / kind / "README.md").read_text()
    (options,) = re.findall(r"const OPTIONS = \{(.*?)\n\};", (JAVASCRIPT / "index.js").read_text(), re.DOTALL)
    for name in re.findall(r"^  (\w+): \[", options, re.MULTILINE):
        if kind == "python" and name in ("WebSocket", "fetch", "onEvent"):
            continue
        spelled = re.sub("([A-Z])", r"_\1", name).lower() if kind == "python" else name
        assert f"`{spelled}" in said, spelled
