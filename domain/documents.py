"""JSON text in and out: the one place that decides what JSON we accept and how we write it.

Accepted is RFC 8259 JSON in UTF-8 with finite numbers, at most `MAX_DEPTH` levels deep and without U+0000, which
PostgreSQL cannot hold (so no engine may). Of a repeated key the last value counts. Integers keep all their digits.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import orjson

from domain.errors import InvalidRequest

MAX_DEPTH = 100

# What is smaller is read within two milliseconds or so.
HEAVY_VALUES = 2000
HEAVY_BYTES = 256 * 1024

_EXACT_LIMIT = float(1 << 63)


def load(text: bytes | bytearray | memoryview | str, most_values: int | None = None) -> Any:
    """Read one JSON document, of at most `most_values` values.

    Raises:
        InvalidRequest: when `text` is not JSON as described at the head of this file, or has too many values.
    """
    raw = text if isinstance(text, bytes) else _bytes(text)
    if most_values is not None and _holds_more_values(raw, most_values):
        raise InvalidRequest(f"Request body holds more than {most_values} values")
    try:
        document = orjson.loads(raw)
        if _may_be_deep(raw) and _depth(document) > MAX_DEPTH:
            raise InvalidRequest(f"JSON is nested more than {MAX_DEPTH} levels deep")
        # One byte is found much quicker than six, and base64 has no backslash.
        if b"\\" in raw and b"\\u0000" in raw and _holds(document, _has_nul):
            raise InvalidRequest("Text contains the character U+0000")
        # orjson rounds integers beyond 64 bits to floats; the slower reader keeps every digit.
        return _load_exactly(raw) if _holds_rounded(document) else document
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise InvalidRequest("Request body is not valid JSON") from error


def _bytes(text: bytearray | memoryview | str) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)


def _load_exactly(raw: bytes) -> Any:
    try:
        return json.loads(raw, parse_float=_finite)
    except ValueError as error:
        raise InvalidRequest("Request body is not valid JSON") from error


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


def is_heavy(*pieces: bytes | bytearray) -> bool:
    """Tell whether a document in pieces may take more than a few milliseconds to read."""
    size = sum(map(len, pieces))
    if size <= 2 * HEAVY_VALUES:
        return False
    return size > HEAVY_BYTES or sum(map(_values_at_most, pieces)) > HEAVY_VALUES


def _holds_more_values(raw: bytes, limit: int) -> bool:
    """Tell, before it is read, whether a document has more values than `limit`, objects and arrays included.

    Only when commas and brackets inside its texts might make the difference are they told apart.
    """
    # A value and what separates it from the next take two bytes at least.
    if len(raw) <= 2 * limit or _values_at_most(raw) <= limit:
        return False
    plain = raw.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in raw else raw
    # Two quotes a text, and of two texts at least one is a value.
    if plain.count(b'"') > 4 * limit:
        return True
    return _values_at_most(b"".join(plain.split(b'"')[::2])) > limit


def _values_at_most(raw: bytes | bytearray) -> int:
    """Return how many values a document holds at most: one, and one more for each comma and each bracket that opens."""
    return 1 + len(raw) - len(raw.translate(None, b",[{"))


def dump(document: Any) -> bytes:
    """Write `document` as compact UTF-8 JSON."""
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def canonical(document: Any) -> bytes:
    """Write `document` with sorted keys, so that equal documents give equal bytes."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


def _may_be_deep(raw: bytes) -> bool:
    # Looking for one after the other ends soon where there are many, and runs through the text but once otherwise.
    return _has_more_than(MAX_DEPTH // 2, b"[", raw) or _has_more_than(MAX_DEPTH // 2, b"{", raw)


def _has_more_than(limit: int, byte: bytes, raw: bytes) -> bool:
    place = -1
    for _ in range(limit + 1):
        place = raw.find(byte, place + 1)
        if place < 0:
            return False
    return True


def _depth(document: Any) -> int:
    level, depth = [document], 0
    while level:
        depth += 1
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
    return depth


def _has_nul(node: Any) -> bool:
    return isinstance(node, str) and "\0" in node


def _holds_rounded(document: Any) -> bool:
    # Every body passes here: no calls, and the types compared as orjson makes them.
    nodes = [document]
    for node in nodes:
        kind = type(node)
        if kind is dict:
            nodes.extend(node.values())
        elif kind is list:
            nodes.extend(node)
        elif kind is float and abs(node) >= _EXACT_LIMIT:
            return True
    return False


def _holds(document: Any, wanted: Callable[[Any], bool]) -> bool:
    stack = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            stack.extend(node)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
        elif wanted(node):
            return True
    return False
