"""Handlers as source text: which are written, which are stubs, and the text of a new stub.

Hand-written code is only ever read. A stub is put behind what a module already holds, or into a module of its own.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openapi.generating.operation_code import docstring
from openapi.references import InvalidDocument

_WIDTH = 120
_ORDER = ("typing", "actions.relay", "openapi")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a handler besides the request; `by_name` says that it can be passed by keyword."""

    name: str
    annotation: ast.expr | None
    is_required: bool
    by_name: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """Where one handler stands: `calls.post_calls_ingest`, its file and line, what it takes, and whether it is a stub.

    A stub is what the generator writes, and no more: a handler that raises `NotWritten` in one branch is written.
    """

    name: str
    path: Path
    line: int
    is_stub: bool
    arguments: tuple[Argument, ...] = ()
    takes_any_keyword: bool = False


@dataclass(frozen=True, slots=True)
class Stub:
    """A handler to be written: its name, its arguments with their types, its type of answer, and what it is for."""

    name: str
    arguments: Sequence[tuple[str, str]]
    answer: str
    summary: str


def sites(folder: Path) -> dict[str, Site]:
    """Return every handler in the modules of `folder`, by name.

    A handler is a public coroutine function at the top of its module whose first parameter is called `request`.

    Raises:
        InvalidDocument: when a module is not Python.
    """
    found = (site for path in sorted(folder.glob("*.py")) for site in _sites_in(path))
    return {site.name: site for site in found}


def _sites_in(path: Path) -> Iterator[Site]:
    for node in _module(path).body:
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_") and _takes_request(node):
            name, takes_any_keyword = f"{path.stem}.{node.name}", node.args.kwarg is not None
            yield Site(name, path, node.lineno, _is_stub(node), tuple(_arguments(node.args)), takes_any_keyword)


def _module(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        raise InvalidDocument(f"{path.name} is not Python: {error}.") from error


def _takes_request(node: ast.AsyncFunctionDef) -> bool:
    positional = [*node.args.posonlyargs, *node.args.args]
    return bool(positional) and positional[0].arg == "request"


def _arguments(declared: ast.arguments) -> Iterator[Argument]:
    positional = [*declared.posonlyargs, *declared.args]
    without_default = len(positional) - len(declared.defaults)
    for index, node in enumerate(positional[1:], 1):
        yield Argument(node.arg, node.annotation, index < without_default, node not in declared.posonlyargs)
    for node, default in zip(declared.kwonlyargs, declared.kw_defaults, strict=True):
        yield Argument(node.arg, node.annotation, default is None)


def _is_stub(node: ast.AsyncFunctionDef) -> bool:
    *before, last = node.body
    quiet = all(isinstance(each, ast.Delete) or _is_docstring(each) for each in before)
    return quiet and isinstance(last, ast.Raise) and _raised(last) == "NotWritten"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _raised(node: ast.Raise) -> str:
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return raised.attr if isinstance(raised, ast.Attribute) else raised.id if isinstance(raised, ast.Name) else ""


# Writing


def with_stubs(path: Path, stubs: Sequence[Stub]) -> str:
    """Return the text of the module at `path` with `stubs` behind what it holds, or of a new module."""
    present = path.read_text("utf-8") if path.exists() else ""
    imports = _missing_imports(path, stubs)
    text = "\n\n".join(_text(stub) for stub in stubs)
    if not present.strip():
        return f'"""Handlers of the operations on {path.stem.replace("_", " ")}."""\n\n{_chapter(imports)}\n\n{text}'
    # The stubs bring their imports along: what people wrote above stays as it is, byte for byte.
    brought = re.sub(r"^(from .*)$", r"\1  # noqa: E402", _chapter(imports).rstrip("\n"), flags=re.MULTILINE)
    gap = "" if present.endswith("\n") else "\n"
    return present + gap + "\n\n" + (f"{brought}\n\n\n" if brought else "") + text


def _text(stub: Stub) -> str:
    names = ", ".join(["request", *(name for name, _ in stub.arguments)])
    return (
        f"{_signature(stub)}\n"
        f"    {docstring(stub.summary, stub.name)}\n"
        f"    del {names}\n"
        "    raise exchange.NotWritten\n"
    )


def _signature(stub: Stub) -> str:
    arguments = [f"{name}: {annotation}" for name, annotation in stub.arguments]
    given = ["request: exchange.Request[Relay]", *(["*", *arguments] if arguments else [])]
    function = stub.name.partition(".")[2]
    line = f"async def {function}({', '.join(given)}) -> {stub.answer}:"
    if len(line) <= _WIDTH:
        return line
    inner = f"    {', '.join(given)}"
    if len(inner) > _WIDTH:
        inner = "\n".join(f"    {argument}," for argument in given)
    return f"async def {function}(\n{inner}\n) -> {stub.answer}:"


def _missing_imports(path: Path, stubs: Sequence[Stub]) -> dict[str, list[str]]:
    text = " ".join([*(annotation for stub in stubs for _, annotation in stub.arguments), *(s.answer for s in stubs)])
    wanted: dict[str, list[str]] = {
        "typing": [name for name in ("Any", "Literal") if name in text.replace("[", " ").replace("]", " ").split()],
        "actions.relay": ["Relay"],
        "openapi": ["exchange", *(["models"] if "models." in text else []), "operations"],
    }
    bound = set(_bound_names(path)) if path.exists() else set()
    left = {module: [name for name in names if name not in bound] for module, names in wanted.items()}
    return {module: names for module, names in left.items() if names}


def _bound_names(path: Path) -> Iterator[str]:
    for node in _module(path).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


def _flat(imports: dict[str, list[str]]) -> list[str]:
    return [f"from {module} import {', '.join(imports[module])}" for module in _ORDER if module in imports]


def _chapter(imports: dict[str, list[str]]) -> str:
    lines = _flat(imports)
    standard = [line for line in lines if line.startswith("from typing")]
    ours = [line for line in lines if not line.startswith("from typing")]
    return "\n\n".join("\n".join(group) for group in (standard, ours) if group) + "\n"
