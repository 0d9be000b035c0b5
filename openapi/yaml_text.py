"""YAML in: the JSON subset of YAML 1.2, read the same way every time.

Keys are strings and never repeated; `no` and `on` are words and dates stay text, because YAML 1.2 says so. Only plain
words can be anything but a string.
"""

import re
from typing import Any

import yaml

from openapi.references import Document, InvalidDocument

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def parse(text: bytes, name: str) -> Document:
    """Read one YAML (or JSON) document whose root is an object; `name` is what error messages call it.

    Raises:
        InvalidDocument: when `text` is not YAML, repeats a key, or is not an object; the message gives line and column.
    """
    try:
        root = yaml.compose(text, Loader=_LOADER)
        document = _value(root)
    except RecursionError as error:
        raise InvalidDocument(f"{name} is nested too deeply.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidDocument(f"{name} is not YAML: {_place(error)}") from error
    if not isinstance(document, dict):
        raise InvalidDocument(f"{name} is not an object at its root.")
    return document


def _value(node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _object(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    return _scalar(node) if isinstance(node, yaml.ScalarNode) else None


def _object(node: yaml.MappingNode) -> Document:
    found: Document = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key is not a word", problem_mark=key.start_mark)
        if key.value in found:
            raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is repeated", problem_mark=key.start_mark)
        found[key.value] = _value(value)
    return found


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _place(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return f"{error.problem}, line {mark.line + 1}, column {mark.column + 1}."
