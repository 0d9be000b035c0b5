"""What the server tells about its own contract: which documents it keeps, and how each operation stands."""

from collections.abc import Iterable, Iterator
from typing import Any

from openapi.document import Contract, Operation
from openapi.exchange import Bindings
from openapi.overlay import Action
from openapi.references import Document, follow, lookup

_COMPONENTS = "#/components/"


def describe(contract: Contract, bindings: Bindings) -> Document:
    """Return the body of `GET /contract`.

    An operation is `implemented` or a `stub`, as the generated bindings say. Deviations are the overlay's actions that
    touch the operation or something it refers to.
    """
    used = {operation.key: frozenset(_used(contract, operation)) for operation in contract.operations}
    touched = {
        operation.key: [action for action in contract.actions if _touches(action, operation, used[operation.key])]
        for operation in contract.operations
    }
    owned = {action for actions in touched.values() for action in actions}
    return {
        "title": contract.served["info"]["title"],
        "apiVersion": contract.served["info"]["version"],
        "published": {"sha256": contract.published_digest},
        "overlay": {"sha256": contract.overlay_digest, "actions": len(contract.actions)},
        "served": {"sha256": contract.served_digest},
        "operations": [
            _operation(contract, operation, bindings) | {"deviations": _deviations(touched[operation.key])}
            for operation in contract.operations
        ],
        "deviations": _deviations(action for action in contract.actions if action not in owned),
    }


def _operation(contract: Contract, operation: Operation, bindings: Bindings) -> dict[str, Any]:
    return {
        "method": operation.method,
        "path": operation.path,
        "operationId": operation.id,
        "state": "stub" if bindings.operations[operation.key].is_stub else "implemented",
        "published": _is_published(contract, operation),
    }


def _is_published(contract: Contract, operation: Operation) -> bool:
    item = contract.published["paths"].get(operation.path, {})
    return operation.method.lower() in follow(contract.published, item)


def _deviations(actions: Iterable[Action]) -> list[dict[str, str]]:
    return [{"target": action.target, "reason": action.reason} for action in actions]


def _touches(action: Action, operation: Operation, used: frozenset[tuple[str | int, ...]]) -> bool:
    return any(_is_inside(place, operation) or place[1:3] in used for place in action.places)


def _is_inside(place: tuple[str | int, ...], operation: Operation) -> bool:
    return place[:3] == ("paths", operation.path, operation.method.lower())


def _used(contract: Contract, operation: Operation) -> Iterator[tuple[str | int, ...]]:
    """Yield the components an operation refers to, however indirectly."""
    yield from (("securitySchemes", name) for one in operation.security for name in one)
    pending, seen = [operation.definition], set[str]()
    while pending:
        for reference in _references(pending.pop()):
            if reference.startswith(_COMPONENTS) and reference not in seen:
                seen.add(reference)
                pending.append(lookup(contract.served, reference))
                yield tuple(reference.removeprefix(_COMPONENTS).split("/"))[:2]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
