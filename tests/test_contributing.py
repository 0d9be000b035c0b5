"""CONTRIBUTING.md, followed to the letter on a copy of this repository."""

import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tree import ROOT, Tree, copy_tree

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
# A sentence that tells to do something, and the block that follows one which needs it.
DONE = re.compile(
    r"(?P<verb>Append to|Create|Change) `(?P<path>[^`]+)`:\n(?P<blocks>(?:\n *```(?:.|\n)*?\n *```\n)+)"
    r"|Run `(?P<command>[^`]+)`"
)
BLOCK = re.compile(r"^ *```\w+\n(.*?)\n *```$", re.MULTILINE | re.DOTALL)


def recipes() -> dict[str, str]:
    """Return the text of each recipe by its heading."""
    part = PAGE.partition("\n## Recipes\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^### (.+)\n((?:.|\n)+?)(?=^### |\Z)", part, re.MULTILINE))


def blocks(text: str) -> Iterator[str]:
    """Yield what stands in each block, without the indentation of the list it is in."""
    yield from BLOCK.findall(textwrap.dedent(text))


def follow(tree: Tree, recipe: str) -> set[str]:
    """Do what the recipe says, in its order; return the files it touched."""
    touched = set()
    for step in DONE.finditer(recipe):
        if step["command"]:
            run = tree.run(*step["command"].split())
            assert run.code == 0, run.out + run.err
            continue
        path = tree.root / step["path"]
        for block in blocks(step["blocks"]):
            if step["verb"] == "Change":
                change(path, block)
            else:
                assert path.exists() == (step["verb"] == "Append to"), path
                path.write_text((path.read_text() if path.exists() else "") + block + "\n")
        touched.add(step["path"])
    return touched


def change(path: Path, diff: str) -> None:
    """Replace the lines a block shows to be found, which are there once."""
    lines = diff.splitlines()
    before = "\n".join(line[1:] for line in lines if line[:1] != "+")
    after = "\n".join(line[1:] for line in lines if line[:1] != "-")
    text = path.read_text()
    assert text.count(before) == 1, f"{path.name} holds {text.count(before)} times:\n{before}"
    path.write_text(text.replace(before, after))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A copy in which every recipe was followed, one after the other."""
    tree = copy_tree(tmp_path_factory.mktemp("contributing") / "tree")
    shutil.copy2(ROOT / ".env.example", tree.root)
    for name, recipe in recipes().items():
        assert follow(tree, recipe), name
    return tree


def test_contract_is_in_order_after_the_recipes(tree: Tree) -> None:
    """No stub, no drift; and the new operation asks for a token."""
    checked = tree.contract("check")
    asked = tree.request("GET", "/api/organization/contacts", "none")

    assert checked.code == 0, checked.out
    assert asked.out.startswith("401 "), asked
    assert tree.run("-c", "import openapi.models as m; print(m.OrganizationContactsResponse.__name__)").code == 0


def test_code_is_in_order_after_the_recipes(tree: Tree) -> None:
    """In style and form, as `make check` looks at them."""
    tools = Path(shutil.which("ruff") or ROOT / ".venv" / "bin" / "ruff").parent
    environment = os.environ | {"PYTHONPATH": str(tree.root)}
    for tool, *arguments in (["ruff", "check", "--no-cache", "."], ["ruff", "format", "--no-cache", "--check", "."]):
        command = [str(tools / tool), *arguments]
        done = subprocess.run(command, cwd=tree.root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_types_fit_after_the_recipes(tree: Tree, tmp_path: Path) -> None:
    """What the recipes write is held against the generated types and the rows."""
    left = ROOT / ".mypy_cache"
    if left.is_dir():
        shutil.copytree(left, tmp_path / "cache")
    rooms = ("handlers", "actions", "providers", "app.py", "config.py")
    done = tree.run("-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "--no-error-summary", *rooms)

    assert done.code == 0, done.out


def test_the_new_provider_is_chosen_by_its_name(tree: Tree) -> None:
    """And its address is a setting that the example lists."""
    made = tree.run(
        "-c",
        "import app, config; s = config.Settings(_env_file='.env.example'); "
        "print(app._text_providers(s, None)['acme']({'api_key': 'k'}).name, s.acme_url)",
    )

    assert made.out == "acme https://api.acme.example\n", made.err


def test_the_clients_know_the_new_event(tree: Tree) -> None:
    """Both of them, in the words of the product."""
    python = tree.run(
        "-c",
        "from clients.python.tether_relay_client import EVENT_NAMES; from domain.events import EventName; "
        "print(list(EVENT_NAMES) == [one.value for one in EventName], 'call_flagged' in EVENT_NAMES)",
    )
    (listed,) = re.findall(
        r"EVENT_NAMES = \[(.*?)\]", (tree.root / "clients/javascript/index.js").read_text(), re.DOTALL
    )

    assert python.out == "True True\n", python.err
    assert "call_flagged" in re.findall(r'"(\w+)"', listed)


def test_the_page_names_only_what_exists() -> None:
    """Targets, and files that no recipe makes."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    made = {step["path"] for step in DONE.finditer(PAGE) if step["verb"] == "Create"}
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|yaml|toml|example|js))`", PAGE)) - made

    assert set(re.findall(r"`make ([a-z-]+)", PAGE)) <= targets
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
