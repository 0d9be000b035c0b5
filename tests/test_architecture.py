"""What ARCHITECTURE.md says of the rooms, held against what they import."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
DOORS = {path.stem for path in ROOT.glob("*.py")}


def table() -> dict[str, str]:
    """Return what each room may use, in the page's words."""
    rows = re.findall(r"^\| `(\w+)/` \| .+ \| (.+) \|$", PAGE, re.MULTILINE)
    return dict(rows)


ROOMS = table()


def imported(room: str) -> Iterator[tuple[str, str]]:
    """Yield each module the room imports when it runs, and the file that does."""
    for path in sorted((ROOT / room).rglob("*.py")):
        name = str(path.relative_to(ROOT / room))
        for node in running(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((alias.name, name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module, name


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node but those that only a type checker sees."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from running(child)


def test_the_page_names_every_room() -> None:
    """A room is a folder of the product that Python imports from."""
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench", "drills"}

    assert set(ROOMS) == folders | {"clients"}


@pytest.mark.parametrize("room", [room for room in ROOMS if ROOMS[room] != "everything"])
def test_room_imports_exactly_the_rooms_the_page_allows(room: str) -> None:
    """No more, and nothing that is allowed goes unused, doors included."""
    allowed = set(re.findall(r"`([\w.]+)`", ROOMS[room].replace("`wire.py`", "")))
    ours = {module for module, _ in imported(room) if module.partition(".")[0] in {*ROOMS, *DOORS} - {room}}
    used = {module if module in allowed else module.partition(".")[0] for module in ours}

    assert used == allowed


def test_only_one_module_of_the_handlers_names_rows() -> None:
    """It is the one the page says, so whoever looks for a field on the wire looks there."""
    assert {path for module, path in imported("handlers") if module == "persistence.models"} == {"wire.py"}


def test_domain_imports_what_the_page_allows() -> None:
    """Words and rules need little, and nothing that does I/O."""
    outside = {module.partition(".")[0] for module, _ in imported("domain")} - set(sys.stdlib_module_names) - {"domain"}

    assert outside == set(re.findall(r"\w+", ROOMS["domain"])) - {"the", "standard", "library"}
