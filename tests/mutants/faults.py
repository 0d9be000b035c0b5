"""The list of planted faults: one file a room, and whether each fault can still be planted.

[[fault]]
name = "the recording of an unknown commit is discarded"     unique
file = "actions/record_call.py"
reason = "What breaks for whom if nobody notices."
find = '''text that occurs exactly once in the file'''
replace = '''what stands there instead'''
tests = ["tests/handlers/test_calls.py::test_…[sqlite]"]     every one of them may be the one that fails
hangs = true                                                 optional: the fault is noticed by a test without end
equivalent = "Why no test can tell."                         optional: in place of `tests`
"""

import ast
import builtins
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROOMS = (
    *(
        "doors",
        "openapi",
        "handlers",
        "actions",
        "keyring",
        "commands",
        "persistence",
        "providers",
        "realtime",
        "domain",
    ),
    "clients",
)
LEAST = 120

_NEEDED = {"name", "file", "reason", "find", "replace"}
_OPTIONAL = {"tests", "equivalent", "hangs"}


@dataclass(frozen=True)
class Fault:
    """One small change that breaks a promise, and the tests that notice it."""

    room: str
    name: str
    file: str
    reason: str
    find: str
    replace: str
    tests: tuple[str, ...] = ()
    equivalent: str = ""
    hangs: bool = False

    def __str__(self) -> str:
        return f"{self.room}: {self.name}"

    def planted(self, text: str) -> str:
        """Return the file's text with the fault in it."""
        return text.replace(self.find, self.replace)


def read(folder: Path = HERE) -> list[Fault]:
    """Read the list.

    Raises:
        ValueError: if an entry lacks a field or has one that is unknown.
    """
    return [
        _fault(path, entry)
        for path in sorted(folder.glob("*.toml"))
        for entry in tomllib.loads(path.read_text("utf-8"))["fault"]
    ]


def _fault(path: Path, entry: dict[str, Any]) -> Fault:
    missing, unknown = _NEEDED - entry.keys(), entry.keys() - _NEEDED - _OPTIONAL
    if missing or unknown:
        raise ValueError(
            f"{path.name}: {entry.get('name')!r} lacks {sorted(missing)}, and {sorted(unknown)} is unknown"
        )
    return Fault(room=path.stem, **entry | {"tests": tuple(entry.get("tests", ()))})


# Whether the list still fits the code


def complaints(faults: Sequence[Fault], root: Path = ROOT) -> Iterator[str]:
    """Yield what is wrong with the list, one sentence each."""
    if len(faults) < LEAST:
        yield f"There are {len(faults)} faults; at least {LEAST} are needed."
    rooms = Counter(fault.room for fault in faults)
    yield from (f"The room {room} has no fault." for room in ROOMS if not rooms[room])
    yield from (f"{room}.toml is named after no room." for room in rooms.keys() - set(ROOMS))
    names = Counter(fault.name for fault in faults)
    yield from (f"The name {name!r} is used {count} times." for name, count in names.items() if count > 1)
    for fault in faults:
        yield from (f"{fault}: {complaint}" for complaint in _misfits(fault, root))


def _misfits(fault: Fault, root: Path) -> Iterator[str]:
    if _room_of(fault.file) != fault.room:
        yield f"{fault.file} belongs to another room."
    if bool(fault.tests) == bool(fault.equivalent):
        yield "give either the tests that must fail, or why none can."
    yield from _misplanted(fault, root)
    for test in fault.tests:
        if not _exists(root, test):
            yield f"there is no test {test}."


def _room_of(file: str) -> str:
    return file.partition("/")[0] if "/" in file else "doors"


def _misplanted(fault: Fault, root: Path) -> Iterator[str]:
    path = root / fault.file
    if not path.is_file():
        yield f"there is no file {fault.file}."
        return
    text = path.read_text("utf-8")
    if text.count(fault.find) != 1:
        yield f"the text to find occurs {text.count(fault.find)} times in {fault.file}."
    elif path.suffix == ".py":
        yield from _unusable(fault, text)


def _unusable(fault: Fault, text: str) -> Iterator[str]:
    try:
        tree = ast.parse(fault.planted(text))
        compile(tree, fault.file, "exec")
    except (SyntaxError, ValueError) as error:
        yield f"the file does not compile with it: {error}."
        return
    # A name nobody has bound would be noticed by any test that runs the line, whatever the fault is about.
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    unbound = sorted(used - _bound(tree) - set(dir(builtins)) - {"__file__", "__doc__"})
    if unbound:
        yield f"it uses names that {fault.file} does not have: {', '.join(unbound)}."


def _bound(tree: ast.Module) -> set[str]:
    bound = set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                bound.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                bound |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
    return bound


def _exists(root: Path, test: str) -> bool:
    file, _, name = test.partition("::")
    path = root / file
    if not path.is_file():
        return False
    # A class may inherit its tests from another file; that it is there has to do.
    name = name.partition("[")[0]
    return not name or name.partition("::")[0] in _names(path)


@cache
def _names(path: Path) -> frozenset[str]:
    body = ast.parse(path.read_text("utf-8")).body
    return frozenset(
        node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    )
