"""How log lines look: one JSON object each, or coloured text at a terminal; secrets and phone numbers are masked.

A value is cut before it is masked, and a line has a limit as a whole, so that no caller decides what a line costs. The
patterns run in RE2, whose time grows linearly with the text whatever the text is; `re` offers no such promise.
"""

import functools
import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from itertools import islice
from typing import Any

import re2
import structlog

from domain.phones import mask

# How much of one value is looked at and shown, of a traceback, and of a whole line; in characters.
MAX_TEXT = 1024
MAX_TRACEBACK = 4 * 1024
MAX_LINE = 8 * 1024
_MAX_SQUEEZED = 128
_MAX_VALUES = 50
_MAX_DEPTH = 4
_FIRST_LINES, _LAST_LINES = 100, 300

_NAMES_OF_SECRETS = r"authorization|cookie|password|secret|token|api[-_]?key"
_SECRETS = (
    r"tk_live_[0-9a-f]+"
    r"|\bsk_[A-Za-z0-9_]{8,}"
    r"|\bwsec_[A-Za-z0-9_]+"
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|\b[0-9a-f]{64}\b"
)
# The first group stays: a scheme, the beginning of an address, or the name in a header, a query or a printed dictionary
# that found its way into a sentence.
_ANNOUNCED = r"((?i:bearer |basic ))\S+"
_IN_ADDRESSES = r"(://)[^/@\s]+@"
_NAMED = r"((?i:" + _NAMES_OF_SECRETS + r")[\"']?[\s\pZ]*[:=,][\s\pZ]*b?[\"']?)[^\s\"',;&]+"
_PHONE_NUMBERS = r"(?:\+|%2[Bb])[0-9](?:[ ().-]{0,2}[0-9]){5,}"
# What may be the beginning of one of these where a text was cut.
_BEGUN = (
    r"(?:\bsk_[A-Za-z0-9_]*|\beyJ[A-Za-z0-9_.-]*|\b[0-9a-f]{8,}|(?:\+|%2[Bb])[0-9 ().-]*|://[^/@\s]*"
    r"|(?i:bearer |basic )\S*)$"
)

_secret_name = re2.compile(f"(?i:{_NAMES_OF_SECRETS}|credential|signature)")
_suspicious = re2.compile(f"{_SECRETS}|{_ANNOUNCED}|{_IN_ADDRESSES}|{_NAMED}|{_PHONE_NUMBERS}")
_secrets = re2.compile(_SECRETS)
_announced = re2.compile(_ANNOUNCED)
_in_addresses = re2.compile(_IN_ADDRESSES)
_named = re2.compile(_NAMED)
_phone_numbers = re2.compile(_PHONE_NUMBERS)
_begun = re2.compile(_BEGUN)

_CONTROLS = re.compile(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SEVERAL_LINES = frozenset({"exception", "stack"})
_ALWAYS = ("timestamp", "level", "event", "request_id")
_HIDDEN = "[hidden]"


def configure_logging(level: str, form: str) -> None:
    """Send every log line to standard error; `form` is `json`, `console` or `auto` (console at a terminal)."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Plain text that can be masked like all the rest; a prettier traceback would show the value of every variable.
        structlog.processors.format_exc_info,
        hide,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_for_the_log)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(console=console)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


def _is_for_the_log(record: logging.LogRecord) -> bool:
    """Tell whether a record is ours, the web server's, or a warning.

    Below a warning, libraries tell of what they are given: addresses with a customer's token, SQL with its parameters.
    """
    is_ours = isinstance(record.msg, dict)  # structlog's lines
    return is_ours or record.levelno >= logging.WARNING or record.name.startswith("uvicorn.")


def hide(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut what is long, and mask what must not be read in a log: values with telling names, secrets, phone numbers."""
    line.pop("color_message", None)  # uvicorn says everything twice
    texts = []
    for name, value in line.items():
        if name.startswith("_"):  # structlog's own
            continue
        line[name] = shown = _shown(name, value)
        if type(shown) is str:
            texts.append(shown)
    # Most lines hold nothing to mask: then they are searched once, as a whole.
    if _suspicious.search("\n".join(texts)):
        for name, value in line.items():
            if type(value) is str and not name.startswith("_"):
                line[name] = _masked(value)
    return line


def _shown(name: str, value: Any) -> Any:
    """Return what is shown of a value of the line; a text is yet to be masked."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if value and _is_secret(name):
        return _HIDDEN
    if isinstance(value, str):
        return _ends(value) if name in _SEVERAL_LINES else _cut(value)
    return _Inside().shown(value) if isinstance(value, _CONTAINERS) else _cut(repr(value))


@functools.lru_cache(maxsize=256)
def _is_secret(name: str) -> bool:
    return _secret_name.search(_cut(name)) is not None


# Values inside of others.

_CONTAINERS = (Mapping, list, tuple, set, frozenset)


class _Inside:
    """Shows a container, masked: so many values in all, and so many containers in containers."""

    def __init__(self) -> None:
        self._left = _MAX_VALUES

    def shown(self, value: Any, depth: int = _MAX_DEPTH) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        if not isinstance(value, _CONTAINERS):
            return _text(value if isinstance(value, str) else repr(value))
        some = list(islice(value.items() if isinstance(value, Mapping) else value, self._left if depth else 0))
        self._left -= len(some)
        cut = f"… [cut, {len(value)} items]"
        if isinstance(value, Mapping):
            pairs = {_text(str(name)): self._named(str(name), inner, depth) for name, inner in some}
            return pairs if len(some) == len(value) else pairs | {"…": cut}
        items = [self.shown(inner, depth - 1) for inner in some]
        return items if len(some) == len(value) else [*items, cut]

    def _named(self, name: str, value: Any, depth: int) -> Any:
        return _HIDDEN if _secret_name.search(_cut(name)) else self.shown(value, depth - 1)


def _text(text: str) -> str:
    return _masked(_cut(text))


# Cutting. What is left of a secret where the text is cut is masked: the rest of the pattern is missing.


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return _encodable(text)
    return f"{_begun.sub(_HIDDEN, _encodable(text[:MAX_TEXT]))}… [cut, {len(text)} characters]"


def _ends(text: str) -> str:
    """Return the first and the last lines of a traceback: where it began, and what was raised."""
    lines = text.split("\n", _FIRST_LINES + _LAST_LINES)
    total = len(lines) if len(lines) <= _FIRST_LINES + _LAST_LINES else text.count("\n") + 1
    if total > _FIRST_LINES + _LAST_LINES:
        lines = lines[:_FIRST_LINES] + text.rsplit("\n", _LAST_LINES)[1:]
    lines = [_cut(line) for line in lines]
    if total == len(lines) and sum(len(line) + 1 for line in lines) <= MAX_TRACEBACK:
        return "\n".join(lines)
    first = _fitting(lines, MAX_TRACEBACK // 3)
    last = _fitting(reversed(lines[len(first) :]), MAX_TRACEBACK * 2 // 3)
    return "\n".join([*first, f"… [cut, {total} lines]", *reversed(last)])


def _fitting(lines: Iterable[str], room: int) -> list[str]:
    fitting: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        fitting.append(line)
    return fitting


def _encodable(text: str) -> str:
    # Half of a surrogate pair is a character to Python, and to no encoding.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# Masking.


def _masked(text: str) -> str:
    if not _suspicious.search(text):
        return text
    text = _announced.sub(_after_first_group, _secrets.sub(_HIDDEN, text))
    text = _in_addresses.sub(lambda found: f"{found[1]}{_HIDDEN}@", text)
    return str(_phone_numbers.sub(lambda found: mask(found[0]), _named.sub(_after_first_group, text)))


def _after_first_group(found: Any) -> str:
    return f"{found[1]}{_HIDDEN}"


# Rendering.

Render = Callable[[Any, str, MutableMapping[str, Any]], str]


def _renderers(*, console: bool) -> list[Any]:
    if console:
        plain = structlog.dev.plain_traceback
        return [_escape, _within_limit(structlog.dev.ConsoleRenderer(exception_formatter=plain))]
    # ASCII alone: some characters beyond it end a line or move the cursor where the log is read.
    return [_within_limit(structlog.processors.JSONRenderer(ensure_ascii=True))]


def _within_limit(render: Any) -> Render:
    """Return a renderer of lines that are never longer than the limit, whatever they hold and however it is escaped."""

    def rendered(logger: Any, method: str, line: MutableMapping[str, Any]) -> str:
        # A renderer takes the line apart, so the values are kept for a second try.
        values = dict(line)
        text = str(render(logger, method, line))
        return text if len(text) <= MAX_LINE else str(render(logger, method, _squeezed(values)))

    return rendered


def _squeezed(line: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return as much of the line as there is room for: what every line has, then the rest, the smallest first."""
    sizes = {name: len(json.dumps([name, value])) for name, value in line.items()}
    ordered = sorted(line, key=lambda name: (name not in _ALWAYS, sizes[name]))
    squeezed: dict[str, Any] = {}
    room = MAX_LINE * 3 // 4
    for name in ordered:
        value, size = line[name], sizes[name]
        if size > room:
            value = f"{value[:_MAX_SQUEEZED]}… [cut]" if isinstance(value, str) else "[cut]"
            size = len(json.dumps([name, value]))
        if size <= room:
            squeezed[name] = value
            room -= size
    return squeezed


def _escape(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write control characters out, so that what a caller sent cannot forge a line or command the terminal."""
    for name, value in line.items():
        if isinstance(value, str):
            escaped = _CONTROLS.sub(lambda found: ascii(found.group())[1:-1], value)
            line[name] = escaped if name in _SEVERAL_LINES else escaped.replace("\n", "\\n")
    return line
