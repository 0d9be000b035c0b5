"""The list of writing units in `actions/README.md` names every write of the room, and says truly how it is ordered."""

import ast
from collections.abc import Iterator
from pathlib import Path

ACTIONS = Path(__file__).parents[2] / "actions"


def writes_of(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield module, function and whether it is ordered by the organization, for every `database.write` of a module."""
    tree = ast.parse(path.read_text())
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            if ast.unparse(call.func).endswith("database.write") and not _is_inner(call, function):
                yield path.stem, function.name, any(keyword.arg == "of" for keyword in call.keywords)


def _is_inner(call: ast.Call, function: ast.AST) -> bool:
    inner = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(call in ast.walk(one) for one in inner if one is not function)


def listed() -> set[tuple[str, str, bool]]:
    rows = [line.strip("| ").split("|") for line in (ACTIONS / "README.md").read_text().splitlines()]
    cells = [[cell.strip(" `") for cell in row] for row in rows if len(row) == 4 and "`" in row[0]]
    return {(module, function, ordered == "the organization") for module, function, _, ordered in cells}


def test_list_of_units_is_the_code() -> None:
    """A write that is new, gone, or ordered otherwise fails here until the list is changed."""
    written = {found for path in sorted(ACTIONS.glob("*.py")) for found in writes_of(path)}

    assert listed() == written


def test_every_unit_that_reads_a_person_is_ordered_by_the_organization() -> None:
    """What the list says it reads decides: a contact, a call, a message or a recording."""
    rows = [line.strip("| ").split("|") for line in (ACTIONS / "README.md").read_text().splitlines()]
    cells = [[cell.strip() for cell in row] for row in rows if len(row) == 4 and "`" in row[0]]
    person = ("contact", "call", "message", "recording", "note")
    loose = [f"{row[0]} {row[1]}" for row in cells if row[2].startswith(person) and row[3] != "the organization"]

    assert len(cells) > 20
    assert loose == []
