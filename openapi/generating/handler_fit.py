"""Whether the handlers people wrote fit the contract, told from their source text.

The server compares signatures when it starts; this tells the same, with file and line, of code that need not be
importable. Types are compared where both sides are written in the words the generator uses; the type checker judges
the rest.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openapi.generating.handler_code import Argument, Site

_COMPARED = frozenset({"str", "int", "float", "bool", "list", "dict", "Literal", "models", "None", "Any"})
_WIDER = {"int": {"float"}}


@dataclass(frozen=True, slots=True)
class Misfit:
    """One reason why a handler cannot serve its operation: the place in its file, and what must change."""

    file: str
    line: int
    must: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.must}"


def misfits(site: Site, wanted: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield what the handler at `site` must change; `wanted` is what it is called with besides the request."""
    taken = {argument.name: argument for argument in site.arguments}
    for name, annotation in wanted:
        argument = taken.get(name)
        if argument is None and not site.takes_any_keyword:
            yield f"must take {name}: {annotation}"
        elif argument is not None and not argument.by_name:
            yield f"must take {name} by keyword"
        elif argument is not None and not _admits(argument, annotation):
            yield f"must take {name}: {annotation}"
    names = {name for name, _ in wanted}
    for argument in site.arguments:
        if argument.is_required and argument.name not in names:
            yield f"must not require {argument.name}, which its operation does not have"


def _admits(argument: Argument, annotation: str) -> bool:
    if argument.annotation is None or not _is_compared(argument.annotation):
        return True
    given = _members(argument.annotation)
    return "Any" in given or all(
        _is_among(member, given) for member in _members(ast.parse(annotation, mode="eval").body)
    )


def _is_compared(node: ast.expr) -> bool:
    return all(name.id in _COMPARED for name in ast.walk(node) if isinstance(name, ast.Name))


def _members(node: ast.expr) -> set[str]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _members(node.left) | _members(node.right)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
        words = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return {f"Literal[{ast.unparse(word)}]" for word in words}
    return {ast.unparse(node)}


def _is_among(member: str, given: set[str]) -> bool:
    return (
        member in given or bool(_WIDER.get(member, set()) & given) or (member.startswith("Literal[") and "str" in given)
    )


def lost_imports(folder: Path, generated: Mapping[str, str]) -> Iterator[tuple[Path, int, str]]:
    """Yield what the modules of `folder` import of the generated ones (their text by module name) and is not there."""
    bound = {module: _bound(text) for module, text in generated.items()}
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ImportFrom) and node.module in bound:
                lost = [alias.name for alias in node.names if alias.name not in bound[node.module]]
                yield from ((path, node.lineno, f"imports {name}, which {node.module} no longer has") for name in lost)


def _bound(text: str) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names
