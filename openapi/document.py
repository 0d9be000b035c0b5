"""The contract as this server keeps it: the published document, the overlay, and the two together.

`openapi.yaml` is what Tether publishes, byte for byte. `overlay.yaml` is what this server adds, as an OpenAPI Overlay
1.0 whose every action says why it is there. The served document is the first with the second applied; it is what is
enforced, what code is generated from, and what `GET /openapi.json` answers.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domain import documents
from domain.lengths import LENGTHS
from openapi import media, validity
from openapi.overlay import Action, apply_overlay
from openapi.references import METHODS, Document, InvalidDocument, UnfitOverlay, follow, operation_id, resource
from openapi.schemas import NUL_FREE
from openapi.yaml_text import parse as parse

HERE = Path(__file__).parent
PUBLISHED = HERE / "openapi.yaml"
OVERLAY = HERE / "overlay.yaml"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the served document, with references to parameters, bodies and responses followed.

    `responses` is keyed by the status as the document writes it ("200", "4XX", "default"); `security` is empty when the
    operation is open.
    """

    method: str
    path: str
    id: str
    definition: Mapping[str, Any] = field(repr=False)
    parameters: tuple[Mapping[str, Any], ...] = field(repr=False)
    body: Mapping[str, Any] | None = field(repr=False)
    responses: Mapping[str, Mapping[str, Any]] = field(repr=False)
    security: list[dict[str, list[str]]] = field(repr=False)

    @property
    def key(self) -> str:
        """METHOD and path, which is how an operation is recognised when its operationId changes."""
        return f"{self.method} {self.path}"

    @property
    def module(self) -> str:
        """The module in handlers/ that serves it."""
        return resource(self.path)

    @property
    def is_raw(self) -> bool:
        """Whether the handler reads the body itself, undecoded: declared so, or not JSON at all."""
        content = (self.body or {}).get("content", {})
        return self.body is not None and (bool(self.definition.get("x-raw-body")) or media.json_of(content) is None)

    @property
    def body_schema(self) -> Mapping[str, Any] | None:
        """The schema of the JSON body, if there is one to parse."""
        return None if self.body is None or self.is_raw else media.json_of(self.body["content"])

    @property
    def token_kinds(self) -> list[str] | None:
        """The kinds of bearer token it takes, if the overlay says so; otherwise each scheme's `bearerFormat` does."""
        return self.definition.get("x-token-kinds")

    @property
    def is_open(self) -> bool:
        """Whether a request without any token is let in."""
        return not self.security or {} in self.security

    @property
    def is_public(self) -> bool:
        """Whether the overlay says, with its reason, that everybody may call it."""
        return bool(self.definition.get("x-public"))

    def response(self, status: int) -> Mapping[str, Any] | None:
        """Return what the document declares for `status`, directly, by range or by default."""
        for key in (str(status), f"{status // 100}XX", "default"):
            if key in self.responses:
                return self.responses[key]
        return None


@dataclass(frozen=True, slots=True)
class Contract:
    """The published document, the overlay's actions as they were applied, and the served document.

    The digests are SHA-256: of the two files as they are, and of the served document with its keys in order.
    """

    published: Document = field(repr=False)
    served: Document = field(repr=False)
    actions: tuple[Action, ...] = field(repr=False)
    published_digest: str
    overlay_digest: str
    served_digest: str
    operations: tuple[Operation, ...] = field(repr=False)


def load(published: Path = PUBLISHED, overlay: Path = OVERLAY) -> Contract:
    """Read both files and put them together.

    Raises:
        InvalidDocument: when either cannot be read, or the published one is not OpenAPI 3.0.
        UnfitOverlay: when an action matches nothing, or the two together are not OpenAPI 3.0.
    """
    return assemble(_read(published), _read(overlay), names=(published.name, overlay.name))


def assemble(published: bytes, overlay: bytes, names: tuple[str, str] = ("openapi.yaml", "overlay.yaml")) -> Contract:
    """Put the two documents together; `names` are what error messages call them.

    Raises:
        InvalidDocument: as `load`.
    """
    document = parse(published, names[0])
    _refuse(validity.problems(document), names[0])
    served, actions = apply_overlay(document, parse(overlay, names[1]), names[1])
    _set_lengths(served, names[1])
    _refuse_nul(served)
    _insist_on_fit(validity.problems(served), actions, f"{names[0]} with {names[1]}")
    return Contract(
        published=document,
        served=served,
        actions=actions,
        published_digest=hashlib.sha256(published).hexdigest(),
        overlay_digest=hashlib.sha256(overlay).hexdigest(),
        served_digest=hashlib.sha256(documents.canonical(served)).hexdigest(),
        operations=tuple(operations_of(served)),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidDocument(f"{path.name} cannot be read: {error.strerror}.") from error


def _refuse(problems: list[str], name: str) -> None:
    if problems:
        raise InvalidDocument(f"{name} is not a usable OpenAPI 3.0 document:\n" + "\n".join(f"  {p}" for p in problems))


def _insist_on_fit(problems: list[str], actions: tuple[Action, ...], name: str) -> None:
    """Raise what two usable documents are not together, with the actions that speak of the same paths."""
    if problems:
        raise UnfitOverlay([f"{name}: {problem}{_speakers(problem, actions)}" for problem in problems])


def _speakers(problem: str, actions: tuple[Action, ...]) -> str:
    words = re.split(r"[\s:]+", problem.removeprefix("paths/"))
    speakers = [
        f"action {action.number} ({action.reason})"
        for action in actions
        if any(place[:1] == ("paths",) and place[1:2] and place[1] in words for place in action.places)
    ]
    return f" (see {', '.join(speakers)})" if speakers else ""


# Operations


def operations_of(document: Document) -> Iterator[Operation]:
    """Yield every operation in the order of the document."""
    for path, node in document.get("paths", {}).items():
        item = follow(document, node)
        shared = item.get("parameters", [])
        for method, definition in item.items():
            if method in METHODS:
                yield _operation(document, method, path, definition, shared)


def _operation(document: Document, method: str, path: str, definition: Document, shared: list[Document]) -> Operation:
    body = definition.get("requestBody")
    return Operation(
        method=method.upper(),
        path=path,
        id=operation_id(method, path, definition),
        definition=definition,
        parameters=_parameters(document, [*shared, *definition.get("parameters", [])]),
        body=None if body is None else follow(document, body),
        responses={str(status): follow(document, node) for status, node in definition["responses"].items()},
        security=definition.get("security", document.get("security")) or [],
    )


def _parameters(document: Document, declared: list[Document]) -> tuple[Document, ...]:
    # What an operation says about a parameter replaces what its path says.
    found = [follow(document, node) for node in declared]
    return tuple({(node["in"], node["name"]): node for node in found}.values())


# What every text of a request is held to

_RULES_ABOUT_TEXT = frozenset({"pattern", "enum", "x-large-text"})
_FORMS = frozenset({"date", "date-time", "uuid", "byte", "binary"})


def _refuse_nul(document: Document) -> None:
    """Have the schema of every text in a request say that it holds no U+0000, unless it has a rule about its form."""
    seen: set[int] = set()
    for operation in operations_of(document):
        for parameter in operation.parameters:
            _refuse_nul_in(document, parameter.get("schema"), seen)
        if operation.body_schema is not None:
            _refuse_nul_in(document, operation.body_schema, seen)


def _refuse_nul_in(document: Document, node: Any, seen: set[int]) -> None:
    schema = follow(document, node)
    if not isinstance(schema, dict) or id(schema) in seen:
        return
    seen.add(id(schema))
    has_form = schema.get("format") in _FORMS or schema.keys() & _RULES_ABOUT_TEXT
    if schema.get("type") == "string" and not has_form:
        schema["pattern"] = NUL_FREE
    groups = [schema.get("allOf", []), schema.get("anyOf", []), schema.get("oneOf", [])]
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for child in [*inner, *(option for group in groups for option in group)]:
        _refuse_nul_in(document, child, seen)


def _set_lengths(node: Any, name: str) -> None:
    """Give every schema that names a length by `x-length` its `maxLength`, from the table in `domain/lengths.py`."""
    if isinstance(node, list):
        for item in node:
            _set_lengths(item, name)
    elif isinstance(node, dict):
        length = node.get("x-length")
        if length is not None and length not in LENGTHS:
            raise InvalidDocument(f"{name}: there is no length {length!r}; domain/lengths.py has {', '.join(LENGTHS)}.")
        if length is not None:
            node["maxLength"] = min(LENGTHS[length], node.get("maxLength", LENGTHS[length]))
        for value in node.values():
            _set_lengths(value, name)
