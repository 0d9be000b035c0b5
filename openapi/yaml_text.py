"""YAML in: the JSON subset of YAML 1.2, read the same way every time.

Keys are strings and never repeated; `no` and `on` are words and dates stay text, because YAML 1.2 says so. Only plain
words can be anything but a string.
"""

import copy
import json
import re
from typing import Any

import yaml

from openapi.references import Document, InvalidDocument

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_DEPTH = 200
_UNKNOWN = object()
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def parse(text: bytes, name: str) -> Document:
    """Read one YAML (or JSON) document whose root is an object; `name` is what error messages call it.

    Raises:
        InvalidDocument: when `text` is not YAML, repeats a key, or is not an object; the message gives line and column.
    """
    try:
        document = _json(text, name)
        if document is None:
            document = _Reader().read(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidDocument(f"{name} is not YAML: {_place(error)}") from error
    if not isinstance(document, dict):
        raise InvalidDocument(f"{name} is not an object at its root.")
    return document


def _json(text: bytes, name: str) -> Any:
    """Return the JSON document that `text` is, or None if it is none: YAML is read then."""
    if not text.lstrip().startswith(b"{"):
        return None
    try:
        read = json.loads(text.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_constant)
        # What JSON may write and no text may hold: half of a pair of surrogates.
        json.dumps(read, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidDocument(f"{name} contains half of a surrogate pair: {_around(error)}.") from error
    except _Repeated as error:
        raise InvalidDocument(f"{name} repeats the key {error.args[0]!r} in one object.") from error
    except (ValueError, RecursionError):
        return None
    return read


class _Repeated(Exception):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> Document:
    made: Document = {}
    for key, value in pairs:
        if key in made:
            raise _Repeated(key)
        made[key] = value
    return made


def _constant(word: str) -> Any:
    raise ValueError(word)


def _around(error: UnicodeEncodeError) -> str:
    return ascii(error.object[max(0, error.start - 20) : error.end + 20])


class _Reader:
    """Builds the document from the parser's events, without recursion: depth is not the writer's to decide."""

    def __init__(self) -> None:
        self._open: list[Any] = []
        self._keys: list[str | None] = []
        self._anchors: dict[str, Any] = {}
        self._documents: list[Any] = []

    def read(self, text: bytes) -> Any:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._start({} if isinstance(event, yaml.MappingStartEvent) else [], event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._keys.pop()
                self._place(self._open.pop(), event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
        if len(self._documents) > 1:
            raise yaml.YAMLError("it holds more than one document")
        return self._documents[0] if self._documents else None

    def _start(self, value: Any, event: Any) -> None:
        if self._awaits_key():
            raise _error("a key is not a word", event)
        if len(self._open) == _DEPTH:
            raise _error(f"it is nested more than {_DEPTH} levels deep", event)
        if event.anchor:
            self._anchors[event.anchor] = value
        self._open.append(value)
        self._keys.append(None)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        if self._awaits_key():
            if event.value in self._open[-1]:
                raise _error(f"the key {event.value!r} is repeated", event)
            self._keys[-1] = event.value
            return
        value = _word(event.value, is_plain=not event.style)
        if event.anchor:
            self._anchors[event.anchor] = value
        self._place(value, event)

    def _alias(self, event: yaml.AliasEvent) -> None:
        value = self._anchors.get(event.anchor or "", _UNKNOWN)
        if value is _UNKNOWN or self._awaits_key() or any(value is container for container in self._open):
            raise _error("an alias stands where it means nothing", event)
        self._place(copy.deepcopy(value), event)

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], dict) and self._keys[-1] is None

    def _place(self, value: Any, event: Any) -> None:
        if not self._open:
            self._documents.append(value)
        elif isinstance(self._open[-1], list):
            self._open[-1].append(value)
        else:
            key = self._keys[-1]
            if key is None:
                raise _error("a key is not a word", event)
            self._open[-1][key] = value
            self._keys[-1] = None


def _word(text: str, *, is_plain: bool) -> Any:
    if not is_plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _error(problem: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _place(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return f"{error.problem}, line {mark.line + 1}, column {mark.column + 1}."
