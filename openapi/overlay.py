"""The overlay, applied: what this server adds to what is published, and where the two disagree.

An action may add, and nothing that is published is replaced or removed by one. Where an action says otherwise, the
published document wins, and the clash is kept for the report: `contract check` fails until the owner has answered it.
The answer is a change of the action. One that wants a published limit narrower names the limit as it is published, in
`x-narrows`; when the limit changes, the answer is due again.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import jsonpath_rfc9535 as jsonpath
from jsonpath_rfc9535.selectors import NameSelector

from openapi.references import Document, InvalidDocument, UnfitOverlay, follow

Place = tuple[str | int, ...]

_MISSING: Any = object()
_UPPER = frozenset({"maximum", "maxLength", "maxItems", "maxProperties"})
_LOWER = frozenset({"minimum", "minLength", "minItems", "minProperties"})


class Kind(StrEnum):
    """How an action and the published document meet."""

    REPEATS = "repeats"
    CONTRADICTS = "contradicts"
    REMOVES = "removes"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Clash:
    """A place where an action says what is published already, or something else.

    `within` is the place seen from the action's target, as `x-narrows` names it; `published` and `wanted` are the two
    values.
    """

    kind: Kind
    place: Place
    within: str = ""
    published: Any = field(default=None, repr=False)
    wanted: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Action:
    """One action of the overlay and the places of the document it changed, each a tuple of keys and indexes.

    `narrowed` are the published limits among them that it narrows and says so; `adds` counts the values that were not
    there before.
    """

    number: int
    target: str
    reason: str
    places: tuple[Place, ...]
    clashes: tuple[Clash, ...] = ()
    narrowed: tuple[Place, ...] = ()
    adds: int = 0


def apply_overlay(document: Document, overlay: Document, name: str) -> tuple[Document, tuple[Action, ...]]:
    """Return `document` with the actions of `overlay` applied in order, and where each of them matched.

    Raises:
        InvalidDocument: when the overlay is malformed.
        UnfitOverlay: when actions match nothing, or cannot be applied; names all of them.
    """
    if not isinstance(overlay.get("overlay"), str) or not isinstance(overlay.get("actions"), list):
        raise InvalidDocument(f"{name} is not an OpenAPI Overlay: it needs `overlay` and `actions`.")
    result = copy.deepcopy(document)
    applied: list[Action] = []
    broken: list[str] = []
    for number, action in enumerate(overlay["actions"], 1):
        try:
            applied.append(_Application(document, result, number, action, f"{name}, action {number}").apply())
        except InvalidDocument as error:
            broken.append(str(error))
    if broken:
        raise UnfitOverlay(broken)
    return result, tuple(applied)


class _Application:
    """One action, applied to `result`, which holds all of `published` and what earlier actions added."""

    def __init__(self, published: Document, result: Document, number: int, action: Document, name: str) -> None:
        self._published = published
        self._result = result
        self._number = number
        self._action = action
        self._name = name
        self._narrows: Mapping[str, Any] = action.get("x-narrows", {})
        self._answered: set[str] = set()
        self._root: Place = ()
        self._adds = 0
        self._clashes: list[Clash] = []
        self._narrowed: list[Place] = []

    def apply(self) -> Action:
        target, reason = self._action.get("target"), self._action.get("description")
        if not isinstance(target, str) or not isinstance(reason, str):
            raise InvalidDocument(f"{self._name} needs a `target` and a `description` that gives its reason.")
        if self._action.get("remove") is not True and "update" not in self._action:
            raise InvalidDocument(f"{self._name} ({target}) neither updates nor removes anything.")
        if not isinstance(self._narrows, dict):
            raise InvalidDocument(f"{self._name} ({target}): `x-narrows` is no object of places and published values.")
        nodes = _matches(self._result, target, f"{self._name} ({reason})")
        if self._action.get("remove") is True:
            self._remove(nodes)
        else:
            for node in nodes:
                self._update(node, self._action["update"], f"{self._name} ({reason})")
        unused = [within for within in self._narrows if within not in self._answered]
        self._clashes += [Clash(Kind.STALE, (within,), within) for within in unused]
        return Action(
            number=self._number,
            target=target,
            reason=reason,
            places=tuple(_places(nodes, self._action.get("update"))),
            clashes=tuple(self._clashes),
            narrowed=tuple(self._narrowed),
            adds=self._adds,
        )

    def _remove(self, nodes: list[jsonpath.JSONPathNode]) -> None:
        # From the back, so that removing an item of an array does not move those still to be removed.
        for node in sorted(nodes, key=lambda node: [str(part).zfill(9) for part in node.location], reverse=True):
            container: Any = node.parent.value if node.parent else None
            if _at(self._published, tuple(node.location)) is not _MISSING:
                self._clashes.append(Clash(Kind.REMOVES, tuple(node.location)))
            elif container is not None:
                del container[node.location[-1]]
                self._adds += 1

    def _update(self, node: jsonpath.JSONPathNode, update: Any, name: str) -> None:
        self._root = place = tuple(node.location)
        published = _at(self._published, place)
        if isinstance(node.value, list):
            self._join(node.value, [update], published, place)
        elif isinstance(node.value, dict) and isinstance(update, dict):
            self._merge(node.value, update, published, place)
        else:
            raise InvalidDocument(f"{name}: {node.path()} is neither an object nor an array that can be updated so.")

    def _merge(self, target: Document, update: Document, published: Any, place: Place) -> None:
        known = published if isinstance(published, dict) else {}
        for key, value in update.items():
            present, here = target.get(key, _MISSING), (*place, key)
            if _hides(known, key):
                # What stands beside a reference does not count, whichever of the two was published.
                self._clash(Kind.CONTRADICTS, here, known.get("$ref", known), value)
            elif isinstance(present, dict) and isinstance(value, dict):
                self._merge(present, value, known.get(key, _MISSING), here)
            elif isinstance(present, list) and isinstance(value, list):
                self._join(present, value, known.get(key, _MISSING), here)
            elif key not in known:
                target[key] = copy.deepcopy(value)
                self._adds += 1
            elif known[key] == value:
                self._clash(Kind.REPEATS, here, known[key], value)
            elif self._may_narrow(here, known[key], value):
                target[key] = copy.deepcopy(value)
                self._adds += 1
                self._narrowed.append(here)
            else:
                self._clash(Kind.CONTRADICTS, here, known[key], value)

    def _join(self, present: list[Any], more: list[Any], published: Any, place: Place) -> None:
        known = published if isinstance(published, list) else []
        for value in more:
            rival = next((one for one in known if self._are_rivals(place[-1], one, value)), _MISSING)
            if rival is _MISSING:
                present.append(copy.deepcopy(value))
                self._adds += 1
            else:
                self._clash(Kind.REPEATS if rival == value else Kind.CONTRADICTS, place, rival, value)

    def _are_rivals(self, name: str | int, published: Any, value: Any) -> bool:
        """Tell whether a list called `name` that is published with one entry has no room for the other."""
        if published == value or name == "security":
            return True
        if name not in ("parameters", "tags", "servers") or not isinstance(published, dict):
            return False
        names = [follow(self._result, node) for node in (published, value)]
        keys = {"parameters": ("in", "name"), "tags": ("name",), "servers": ("url",)}[str(name)]
        return all(names[0].get(key) == names[1].get(key) for key in keys)

    def _may_narrow(self, place: Place, published: Any, value: Any) -> bool:
        within = self._within(place)
        if within not in self._narrows:
            return False
        self._answered.add(within)
        return bool(self._narrows[within] == published) and is_narrower(str(place[-1]), published, value)

    def _clash(self, kind: Kind, place: Place, published: Any, wanted: Any) -> None:
        self._clashes.append(Clash(kind, place, self._within(place), published, wanted))

    def _within(self, place: Place) -> str:
        return "/".join(str(part) for part in place[len(self._root) :])


def is_narrower(key: str, published: Any, value: Any) -> bool:
    """Tell whether `value` of the keyword `key` admits less than `published`, and nothing else."""
    if key in _UPPER | _LOWER:
        return bool(value < published if key in _UPPER else value > published)
    if key in ("required", "uniqueItems", "exclusiveMinimum", "exclusiveMaximum"):
        return published is False and value is True
    if key in ("nullable", "additionalProperties"):
        return published is True and value is False
    return key == "type" and (published, value) == ("number", "integer")


def _hides(published: Document, key: str) -> bool:
    return ("$ref" in published) != (key == "$ref") and bool(published)


def _at(document: Any, place: Place) -> Any:
    """Return what `document` has at `place`, or `_MISSING`."""
    node = document
    for part in place:
        is_there = part in node if isinstance(node, dict) else isinstance(node, list) and int(part) < len(node)
        if not is_there:
            return _MISSING
        node = node[part]
    return node


def _places(nodes: list[jsonpath.JSONPathNode], update: Any) -> Iterator[Place]:
    for node in nodes:
        if isinstance(update, dict) and not isinstance(node.value, list):
            yield from ((*node.location, key) for key in update)
        else:
            yield tuple(node.location)


def _matches(document: Document, target: str, name: str) -> list[jsonpath.JSONPathNode]:
    try:
        query = jsonpath.compile(target)
        nodes = list(query.find(document))
    except jsonpath.JSONPathError as error:
        raise InvalidDocument(f"{name}: {target} is not JSONPath: {error}.") from error
    selectors = [segment.selectors for segment in query.segments]
    named = all(isinstance(selector, NameSelector) for group in selectors for selector in group)
    # A target made of names alone promises that every one of them is there.
    if len(nodes) < (math.prod(len(group) for group in selectors) if named else 1):
        raise InvalidDocument(f"{name}: nothing in the document matches {target}, or not all of it.")
    return nodes
