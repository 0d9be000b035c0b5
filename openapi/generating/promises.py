"""Whether everything that is published is served, and what the overlay has to answer for.

The served document may hold more than the published one, and a request may be held to more; nothing published may be
missing, be something else, or be promised less of. `broken` proves it of the two documents as they are, whatever made
the one of the other; `unanswered` names the actions that want something else than what is published.
"""

import json
from collections.abc import Iterator
from typing import Any

from openapi.document import Contract, Operation, operations_of
from openapi.generating.differences import Severity, compare
from openapi.overlay import Action, Clash, Kind, Place

_SHOWN = 80


def broken(contract: Contract) -> Iterator[str]:
    """Yield what is published and not served as it is published, one sentence each."""
    narrowed = {place for action in contract.actions for place in action.narrowed}
    yield from _lost(contract.published, contract.served, (), narrowed)
    served = {operation.key: operation for operation in operations_of(contract.served)}
    for operation in operations_of(contract.published):
        if operation.key in served:
            yield from _lost_of_operation(operation, served[operation.key])
    for change in compare(contract.published, contract.served):
        if change.of_answers and change.severity is Severity.BREAKING:
            yield f"{change.place} promises less than is published: {change.what} ({change.particulars})"


def _lost(published: Any, served: Any, place: Place, narrowed: set[Place]) -> Iterator[str]:
    if isinstance(published, dict) and isinstance(served, dict):
        if published and "$ref" in served and "$ref" not in published:
            yield f"{_text(place)} is published in full and served as a reference"
        for key, value in published.items():
            if key not in served:
                yield f"{_text((*place, key))} is published and not served"
            else:
                yield from _lost(value, served[key], (*place, key), narrowed)
    elif isinstance(published, list) and isinstance(served, list):
        # An overlay adds to the end of a list.
        for index, value in enumerate(published):
            if index >= len(served):
                yield f"{_text((*place, index))} is published and not served"
            else:
                yield from _lost(value, served[index], (*place, index), narrowed)
    elif published != served and place not in narrowed:
        yield f"{_text(place)} is published as {_brief(published)} and served as {_brief(served)}"


def _lost_of_operation(published: Operation, served: Operation) -> Iterator[str]:
    """Yield what an operation inherits and loses: parameters of its path, who may call."""
    parameters = {(node["in"], node["name"]): node for node in served.parameters}
    own = {(node["in"], node["name"]) for node in published.definition.get("parameters", []) if "$ref" not in node}
    for node in published.parameters:
        key = (node["in"], node["name"])
        # What the operation itself declares was looked at where it stands.
        if key not in own:
            yield from _lost(node, parameters.get(key), (published.key, *key), set())
    if published.security and published.security != served.security:
        wanted, given = _brief(published.security), _brief(served.security)
        yield f"{published.key} is published with the security {wanted} and served with {given}"


def unanswered(contract: Contract) -> Iterator[str]:
    """Yield what the actions of the overlay say about what is published, one sentence for each action and kind."""
    for action in contract.actions:
        for kind in Kind:
            clashes = [clash for clash in action.clashes if clash.kind is kind]
            if clashes:
                yield _sentence(action, kind, clashes)


def _sentence(action: Action, kind: Kind, clashes: list[Clash]) -> str:
    name = (
        f"overlay.yaml, action {action.number} ({' '.join(action.target.split())}: {' '.join(action.reason.split())})"
    )
    places = ", ".join(dict.fromkeys(_text(clash.place) for clash in clashes))
    if kind is Kind.REPEATS and not action.adds and len(clashes) == len(action.clashes):
        return f"{name} is superfluous: all it says is published; delete it"
    if kind is Kind.REPEATS:
        return f"{name} is overtaken: {places} is published now; delete that from it"
    if kind is Kind.REMOVES:
        return f"{name} removes what is published: {places}; it is served all the same, so delete the action"
    if kind is Kind.STALE:
        return f"{name}: `x-narrows` names {places}, which it does not narrow; delete that"
    details = "; ".join(
        f"{_text(clash.place)} is published as {_brief(clash.published)} and not {_brief(clash.wanted)}"
        for clash in clashes
    )
    return (
        f"{name} contradicts what is published, which is served: {details}. Delete that from it; what narrows a limit "
        f"says so: `x-narrows: {{{clashes[0].within}: {_brief(clashes[0].published)}}}`"
    )


def _text(place: Place) -> str:
    return "/".join(str(part) for part in place) or "the document"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
