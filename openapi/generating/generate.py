"""From a contract document to code that is waiting for it, and a report of what that meant.

`update` takes a newly published document, `generate` the files as they are, `check` only looks. All three make the same
plan; a plan is carried out whole or not at all. Hand-written code is read, never changed: the one thing ever added to a
module is a stub behind everything it holds.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openapi import document, yaml_text
from openapi.document import Contract, Operation
from openapi.envelopes import Envelopes
from openapi.generating import event_code, model_code, operation_code, promises, trial, writing
from openapi.generating.differences import Change, compare
from openapi.generating.handler_code import Site, Stub, sites, with_stubs
from openapi.generating.handler_fit import Misfit, lost_imports, misfits
from openapi.references import InvalidDocument, UnfitOverlay, identifier
from openapi.schemas import Schemas

MEND = "python manage.py contract generate"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A handler whose operation is gone."""

    handler: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Rename:
    """An operation that goes by another name than its handler."""

    operation: str
    operation_id: str
    handler: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found and did.

    `published` is what changed between the two published documents, `changes` what changed between the served ones.
    `written` are the files that were (or, by `check`, would be) written, `created` the stubs among them; `stubs` are
    all operations nobody has written yet, `allowed` those of them that may stay so. `misfits` are handlers that cannot
    be called as their operation is. `open` are operations that ask for no token and give no reason, stubs included:
    they are closed to everybody. `wordless` are answers that cannot say an error. `clashes` are actions of the overlay
    that say again what is published, or something else; `lost` is what is published and not served.
    """

    published: list[Change] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    stubs: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    renames: list[Rename] = field(default_factory=list)
    misfits: list[Misfit] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    wordless: list[str] = field(default_factory=list)
    clashes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def drift(self) -> list[str]:
        """Files that are not what the contract makes them, one sentence each, with what mends it."""
        return [f"{name} is not what the contract makes it; run `{MEND}`." for name in self.written]

    @property
    def complaints(self) -> list[str]:
        """What people have to do, one sentence each."""
        return [
            *(f"{name} is still a stub; write it, or list it in openapi/stubs.txt." for name in self._unallowed()),
            *(f"{o.file}:{o.line} {o.handler} handles no operation; delete it." for o in self.orphans),
            *(f"{misfit}." for misfit in self.misfits),
            *(
                f"{key} asks for no token; say who may call it, or why not (`x-public`), in the overlay."
                for key in self.open
            ),
            *(f"{sentence}." for sentence in (*self.wordless, *self.clashes, *self.lost)),
        ]

    def _unallowed(self) -> list[str]:
        return [name for name in self.stubs if name not in self.allowed]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        changes = {name: [_told(change) for change in getattr(self, name)] for name in ("published", "changes")}
        return {**asdict(self), **changes, "drift": self.drift, "complaints": self.complaints}


def _told(change: Change) -> dict[str, str]:
    return {"severity": change.severity, "place": change.place, "what": change.what, "particulars": change.particulars}


@dataclass(frozen=True, slots=True)
class Plan:
    """A report, and the bytes of every file that has to change."""

    report: Report
    files: Mapping[Path, bytes] = field(repr=False)


class UnfitUpdate(UnfitOverlay):
    """Raised when the overlay does not fit a new document; `changes` is what that changes about the present one."""

    def __init__(self, broken: list[str], changes: list[Change]) -> None:
        super().__init__(broken)
        self.changes = changes


def update(root: Path, published: bytes, name: str = "openapi.yaml", *, is_preview: bool = False) -> Report:
    """Make `published` the contract of the tree at `root`; `name` is what error messages call it.

    A preview does everything but write.

    Raises:
        InvalidDocument: when it is no usable document, the overlay does not fit it (`UnfitUpdate`), or its code cannot
            be imported; nothing was written.
        OSError: when a file cannot be written; all are as they were.
    """
    return _carry_out(root, lambda: plan(root, published, name), is_preview=is_preview)


def generate(root: Path, *, is_preview: bool = False) -> Report:
    """Bring the generated files of the tree at `root` up to date.

    Raises:
        InvalidDocument, OSError: as `update`.
    """
    return _carry_out(root, lambda: plan(root, None), is_preview=is_preview)


def check(root: Path) -> Report:
    """Say what `generate` would do; writes nothing.

    Raises:
        InvalidDocument: as `update`, or when an update was cut short.
    """
    with writing.locked(root, shared=True):
        if writing.is_pending(root):
            raise InvalidDocument(f"An update was cut short; run `{MEND}`, which finishes or undoes it.")
        return plan(root, None).report


def plan(root: Path, published: bytes | None, name: str = "openapi.yaml") -> Plan:
    """Work out what has to change in the tree at `root`, for a new document or (None) for the one it has."""
    folder = root / "openapi"
    present = _read(folder / "openapi.yaml")
    documents = present if published is None else published, _read(folder / "overlay.yaml")
    contract = _assembled(*documents, present, name)
    written = sites(root / "handlers")
    recorded = _recorded(folder / "operations.py")
    handlers = _names(contract, written, recorded)
    missing = [operation for operation in contract.operations if handlers[operation.key] not in written]
    stubs = [*(handlers[operation.key] for operation in missing), *_unwritten(contract, written, handlers)]
    models = model_code.render(contract)
    operations = operation_code.render_operations(contract, models.types, handlers, frozenset(stubs))
    files = {
        folder / "models.py": models.text,
        folder / "operations.py": operations,
        folder / "coverage.py": operation_code.render_coverage(contract, handlers),
    }
    files |= _client_types(root)
    files |= _stubs(root / "handlers", contract, models.types, handlers, missing)
    changed = {path: text.encode() for path, text in files.items() if not _holds(path, text.encode())}
    if published is not None and published != present:
        changed[folder / "openapi.yaml"] = published
    published_changes, changes = ([], []) if published is None else _changes(present, folder, contract)
    report = Report(
        published=published_changes,
        changes=changes,
        written=sorted(str(path.relative_to(root)) for path in changed),
        created=[handlers[operation.key] for operation in missing],
        stubs=stubs,
        allowed=_allowed(folder / "stubs.txt"),
        orphans=_orphans(root, written, handlers),
        renames=_renames(contract, handlers),
        misfits=[
            *_misfits(root, contract, models.types, written, handlers),
            *_lost_imports(root, {"openapi.models": models.text, "openapi.operations": operations}),
        ],
        open=[operation.key for operation in contract.operations if operation.is_open and not operation.is_public],
        wordless=Envelopes(contract.served, Schemas(contract.served)).complaints(contract.operations),
        clashes=list(promises.unanswered(contract)),
        lost=list(promises.broken(contract)),
    )
    return Plan(report, changed)


def _assembled(published: bytes, overlay: bytes, present: bytes, name: str) -> Contract:
    try:
        return document.assemble(published, overlay, names=(name, "overlay.yaml"))
    except UnfitOverlay as error:
        changes = compare(document.parse(present, "openapi.yaml"), document.parse(published, name))
        raise UnfitUpdate(error.broken, changes) from error


# What is there


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidDocument(f"{path.name} cannot be read: {error.strerror}.") from error


def _client_types(root: Path) -> dict[Path, str]:
    """Return the types of the published clients; a tree without `events.yaml` has none."""
    events = root / "openapi" / "events.yaml"
    if not events.exists():
        return {}
    typescript, python = event_code.render(yaml_text.parse(_read(events), events.name))
    clients = root / "clients"
    return {
        clients / "javascript" / "events.d.ts": typescript,
        clients / "python" / "tether_relay_client" / "events.py": python,
    }


def _holds(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def _recorded(path: Path) -> dict[str, str]:
    """Return which handler served which METHOD and path when the types were last generated."""
    if not path.exists():
        return {}
    try:
        calls = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Dict)]
    except (SyntaxError, ValueError):
        return {}
    pairs = [pair for node in calls for pair in zip(node.keys, node.values, strict=True)]
    return {
        key.value: str(keyword.value.value)
        for key, value in pairs
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(value, ast.Call)
        for keyword in value.keywords
        if keyword.arg == "handler" and isinstance(keyword.value, ast.Constant)
    }


def _allowed(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


# What belongs to what


def _names(contract: Contract, written: Mapping[str, Site], recorded: Mapping[str, str]) -> dict[str, str]:
    """Return the handler of every operation: the one that served its METHOD and path, else the one of its name."""
    return {operation.key: _name(operation, written, recorded) for operation in contract.operations}


def _name(operation: Operation, written: Mapping[str, Site], recorded: Mapping[str, str]) -> str:
    named = f"{operation.module}.{identifier(operation.id)}"
    before = recorded.get(operation.key, named)
    return before if before in written and named not in written else named


def _renames(contract: Contract, handlers: Mapping[str, str]) -> list[Rename]:
    return [
        Rename(operation.key, operation.id, handlers[operation.key])
        for operation in contract.operations
        if handlers[operation.key] != f"{operation.module}.{identifier(operation.id)}"
    ]


def _orphans(root: Path, written: Mapping[str, Site], handlers: Mapping[str, str]) -> list[Orphan]:
    unused = sorted(written.keys() - set(handlers.values()))
    return [Orphan(name, str(written[name].path.relative_to(root)), written[name].line) for name in unused]


def _unwritten(contract: Contract, written: Mapping[str, Site], handlers: Mapping[str, str]) -> Iterator[str]:
    for operation in contract.operations:
        site = written.get(handlers[operation.key])
        if site is not None and site.is_stub:
            yield site.name


def _misfits(
    root: Path,
    contract: Contract,
    types: Mapping[tuple[str, str], str],
    written: Mapping[str, Site],
    handlers: Mapping[str, str],
) -> Iterator[Misfit]:
    for operation in contract.operations:
        site = written.get(handlers[operation.key])
        if site is not None:
            wanted = operation_code.arguments_of(contract.served, operation, types)
            yield from (Misfit(str(site.path.relative_to(root)), site.line, must) for must in misfits(site, wanted))


def _lost_imports(root: Path, generated: Mapping[str, str]) -> Iterator[Misfit]:
    for path, line, lost in lost_imports(root / "handlers", generated):
        yield Misfit(str(path.relative_to(root)), line, lost)


def _changes(present: bytes, folder: Path, contract: Contract) -> tuple[list[Change], list[Change]]:
    """Return what changes about the published document, and about the served one."""
    try:
        before = document.assemble(present, _read(folder / "overlay.yaml"))
    except InvalidDocument:
        # The overlay was already changed for the new document and no longer fits the present one.
        published = compare(document.parse(present, "openapi.yaml"), contract.published)
        return published, published
    return compare(before.published, contract.published), compare(before.served, contract.served)


def _stubs(
    folder: Path,
    contract: Contract,
    types: Mapping[tuple[str, str], str],
    handlers: Mapping[str, str],
    missing: list[Operation],
) -> dict[Path, str]:
    by_module: dict[str, list[Stub]] = {}
    for operation in missing:
        name = handlers[operation.key]
        arguments = operation_code.arguments_of(contract.served, operation, types)
        answer = f"operations.{operation_code.stem_of(name)}Answer"
        stub = Stub(name, arguments, answer, operation.definition.get("summary", ""))
        by_module.setdefault(name.partition(".")[0], []).append(stub)
    return {folder / f"{module}.py": with_stubs(folder / f"{module}.py", stubs) for module, stubs in by_module.items()}


# Doing it


def _carry_out(root: Path, make: Callable[[], Plan], *, is_preview: bool) -> Report:
    with writing.locked(root):
        writing.recover(root)
        made = make()
        trial.insist(root, made.files)
        if not is_preview:
            writing.write(root, made.files)
    return made.report
