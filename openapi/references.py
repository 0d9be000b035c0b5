"""What everything that reads a contract document shares: its shape, its methods, and how references are followed."""

import builtins
import keyword
import re
from typing import Any

from domain.errors import ConfigurationError

Document = dict[str, Any]

METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})


class InvalidDocument(ConfigurationError):
    """Raised when a contract document cannot be used; the message says which, where and why."""


class UnfitOverlay(InvalidDocument):
    """Raised when actions of the overlay do not fit the published document; `broken` says which, one sentence each."""

    def __init__(self, broken: list[str]) -> None:
        super().__init__("\n".join(broken))
        self.broken = broken


def follow(document: Document, node: Any) -> Any:
    """Return `node`, or what it refers to if it is a reference within `document`.

    Raises:
        LookupError: when a reference names nothing.
    """
    for _ in range(100):
        if not (isinstance(node, dict) and isinstance(node.get("$ref"), str)):
            return node
        node = lookup(document, node["$ref"])
    raise LookupError("a reference that refers to itself")


def lookup(document: Document, reference: str) -> Any:
    """Return what the local reference `#/…` names.

    Raises:
        LookupError: when it names nothing, or does not point into this document.
    """
    if not reference.startswith("#/"):
        raise LookupError(reference)
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
        if node is None:
            raise LookupError(reference)
    return node


def operation_id(method: str, path: str, definition: Document) -> str:
    """Return the operationId, or the one Tether would derive from METHOD and path where there is none."""
    given = definition.get("operationId")
    return given if isinstance(given, str) else derived_id(method, path)


def derived_id(method: str, path: str) -> str:
    """Return `post_calls_ingest` for POST /api/calls/ingest."""
    words = re.sub(r"[^0-9A-Za-z]+", "_", path.removeprefix("/api/")).strip("_")
    return f"{method.lower()}_{words}"


def resource(path: str) -> str:
    """Return the module that handles `path`: `contact_notes` for /api/contact-notes/{noteId}."""
    segments = [segment for segment in path.split("/") if segment and not segment.startswith("{")]
    named = segments[1:] if segments[:1] == ["api"] and len(segments) > 1 else segments
    return identifier(named[0] if named else "root", taken=_HANDLER_MODULES)


def identifier(name: str, taken: frozenset[str] = frozenset()) -> str:
    """Return `name` in snake_case, with an underscore behind it where Python or `taken` already means something."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"[^0-9A-Za-z]+", "_", name)).strip("_").lower()
    safe = f"n{words}" if words[:1].isdigit() or not words else words
    return f"{safe}_" if keyword.iskeyword(safe) or safe in _BUILTINS or safe in taken else safe


def class_name(name: str) -> str:
    """Return `PostCallsIngest` for `post_calls_ingest`."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^0-9A-Za-z]+", name) if word)


# Modules in handlers/ that hold no handlers.
_HANDLER_MODULES = frozenset({"health", "observation", "own_paths", "responses", "security", "swagger_pages"})
_BUILTINS = frozenset(dir(builtins))
