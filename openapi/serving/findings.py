"""What is wrong with a value, in words.

Each finding has a sentence for developers, in the words of the published pages (`Missing required field: transcript`),
and one a voice agent can say to a caller. Neither repeats the value, which may be a secret, a recording or a name.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jsonschema_rs

from domain.errors import InvalidRequest
from openapi.references import Document, follow
from openapi.schemas import Validator

_MOST = 20
_NAME_LIMIT = 80


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: `place` is where (keys and indexes), `code` the keyword that was broken."""

    place: tuple[str | int, ...]
    code: str
    rule: str

    @property
    def field(self) -> str:
        """The place as people write it: `transcript[0].role`."""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.place).removeprefix(".")
        return text if len(text) <= _NAME_LIMIT else f"{text[:_NAME_LIMIT]}…"

    def sentence(self, kind: str = "field") -> str:
        """Say it to a developer; `kind` is `field` or `query parameter`."""
        if not self.place:
            return f"Request body {self.rule}"
        if self.code == "required":
            return f"Missing required {kind}: {self.field}"
        return (
            f"Unknown {kind}: {self.field}" if self.code == "unknown" else f"Invalid {kind}: {self.field} {self.rule}"
        )

    def detail(self) -> dict[str, Any]:
        """Return it as one entry of a structured error's `details`."""
        return {"field": self.field, "code": self.code, "message": self.rule}

    def spoken(self) -> str:
        """Say it to a caller."""
        words = " ".join(_words(part) for part in self.place[-1:] if isinstance(part, str))
        if not words or len(words) > _NAME_LIMIT or self.code == "unknown":
            return "Sorry, I could not understand that request."
        return f"The {words} is missing." if self.code == "required" else f"The {words} is not valid."


def _words(name: str) -> str:
    return re.sub(r"[^a-z]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()).strip()


class InvalidValues(InvalidRequest):
    """Raised when a request does not match the document; `spoken` is what a voice agent may say about it."""

    def __init__(self, findings: Sequence[Finding], kind: str = "field") -> None:
        super().__init__(findings[0].sentence(kind), [finding.detail() for finding in findings])
        self.spoken = findings[0].spoken()


def findings(validator: Validator, value: Any, order: Sequence[str] = (), *, first_only: bool = False) -> list[Finding]:
    """Return what is wrong with `value`, in the order in which the document lists the fields.

    The validator goes through the whole value before it yields an error; with `first_only` it stops at one.
    """
    errors = _first(validator, value) if first_only else itertools.islice(validator.iter_errors(value), _MOST * 5)
    found = [finding for error in errors for finding in _read(error)]
    rank = {name: index for index, name in enumerate(order)}
    found.sort(key=lambda finding: rank.get(str(finding.place[0]), len(rank)) if finding.place else -1)
    return found[:_MOST]


def _first(validator: Validator, value: Any) -> Iterable[jsonschema_rs.ValidationError]:
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        yield error


def property_order(document: Document, schema: Mapping[str, Any]) -> list[str]:
    """Return the names of an object's properties in the order of the document."""
    followed = follow(document, schema)
    inherited = [name for part in followed.get("allOf", []) for name in property_order(document, part)]
    return [*inherited, *followed.get("properties", {})]


def _read(error: jsonschema_rs.ValidationError) -> Iterable[Finding]:
    place, kind = tuple(error.instance_path), error.kind
    facts: dict[str, Any] = kind.as_dict()
    if kind.name in ("anyOf", "oneOf") and facts.get("context"):
        yield from _of_best_branch(place, kind.context)  # type: ignore[attr-defined]
    elif kind.name == "not" and "not" in facts["schema"] and not _refers(facts["schema"]["not"]):
        yield from _unmet(place, facts["schema"]["not"], error.instance)
    elif kind.name == "required":
        yield Finding((*place, facts["property"]), "required", "is required")
    elif kind.name == "additionalProperties":
        yield from (Finding((*place, name), "unknown", "is not allowed here") for name in sorted(facts["unexpected"]))
    else:
        yield Finding(place, kind.name, _RULES.get(kind.name, _plain)(facts))


def _of_best_branch(
    place: tuple[str | int, ...], branches: list[list[jsonschema_rs.ValidationError]]
) -> Iterable[Finding]:
    read = [[finding for error in branch for finding in _read(error)] for branch in branches]
    # What is merely missing says best what was meant; else the branch that got furthest.
    missing = [branch for branch in read if branch and all(finding.code == "required" for finding in branch)]
    deeper = [branch for branch in read if branch and any(len(finding.place) > len(place) for finding in branch)]
    chosen = missing or sorted(deeper, key=len)
    return chosen[0] if chosen else [Finding(place, "type", "has none of the documented forms")]


def _unmet(place: tuple[str | int, ...], consequence: Any, value: Any) -> Iterable[Finding]:
    """Yield why `value` does not match `consequence`: "not (this, and not that)" says that who is this is that too."""
    for error in jsonschema_rs.Draft4Validator(consequence).iter_errors(value):
        yield from (replace(finding, place=(*place, *finding.place)) for finding in _read(error))


def _refers(node: Any) -> bool:
    if isinstance(node, dict):
        return "$ref" in node or any(_refers(value) for value in node.values())
    return isinstance(node, list) and any(_refers(value) for value in node)


def _plain(_: Mapping[str, Any]) -> str:
    return "is not valid"


_ARTICLES = {"object": "an object", "integer": "an integer", "array": "an array", "null": "null", "string": "text"}


def _kinds(facts: Mapping[str, Any]) -> str:
    return "must be " + " or ".join(_ARTICLES.get(name, f"a {name}") for name in facts["types"])


def _one_of(facts: Mapping[str, Any]) -> str:
    return "must be one of: " + ", ".join(str(option) for option in facts["options"])


# Patterns of the overlay, in words.
_PATTERNS = {
    r"^[^\u0000]*[^\s\u0000\x1c-\x1f][^\u0000]*$": "must not be blank",
    r"^\+[1-9][0-9]{1,14}$": "must be an E.164 number such as +14155551234",
}

_RULES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "type": _kinds,
    "enum": _one_of,
    "minimum": lambda facts: f"must be at least {facts['limit']}",
    "maximum": lambda facts: f"must be at most {facts['limit']}",
    "exclusiveMinimum": lambda facts: f"must be greater than {facts['limit']}",
    "exclusiveMaximum": lambda facts: f"must be less than {facts['limit']}",
    "minLength": lambda facts: f"must have at least {facts['limit']} characters",
    "maxLength": lambda facts: f"must have at most {facts['limit']} characters",
    "minItems": lambda facts: f"must have at least {facts['limit']} items",
    "maxItems": lambda facts: f"must have at most {facts['limit']} items",
    "uniqueItems": lambda _: "must not repeat an item",
    "multipleOf": lambda facts: f"must be a multiple of {facts['multiple_of']}",
    "pattern": lambda facts: _PATTERNS.get(facts["pattern"], f"must match {facts['pattern']}"),
    "format": lambda facts: f"must be a valid {facts['format']}",
}
