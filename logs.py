"""How log lines look: one JSON object each, or coloured text at a terminal; secrets and phone numbers are masked."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from domain.phones import mask

_SECRET_NAMES = re.compile(
    r"authorization|cookie|password|secret|token|api[-_]?key|credential|signature", re.IGNORECASE
)
_SECRETS = re.compile(
    r"tk_live_[0-9a-f]+"
    r"|\bsk_[A-Za-z0-9_]{8,}"
    r"|\bwsec_[A-Za-z0-9_]+"
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|\b[0-9a-f]{64}\b"
    r"|(?i:(?<=bearer )|(?<=basic ))\S+"
    r"|(?<=://)[^/@\s]+(?=@)"
)
# A header, a query or a printed dictionary that found its way into a sentence.
_NAMED_SECRETS = re.compile(
    r"((?:authorization|cookie|password|secret|token|api[-_]?key)[\"']?\s*[:=,]\s*b?[\"']?)[^\s\"',;&]+", re.IGNORECASE
)
_PHONE_NUMBERS = re.compile(r"(?:\+|%2B)[0-9](?:[ ().-]{0,2}[0-9]){5,}", re.IGNORECASE)
_CONTROLS = re.compile(r"[^\S\n ]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SEVERAL_LINES = frozenset({"exception", "stack"})
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
    """Mask what must not be read in a log: values with telling names, known kinds of secrets, phone numbers."""
    line.pop("color_message", None)  # uvicorn says everything twice
    for name, value in line.items():
        if not name.startswith("_"):  # structlog's own
            line[name] = _HIDDEN if _SECRET_NAMES.search(name) and value else _hidden(value)
    return line


def _hidden(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {
            _hidden(str(name)): _HIDDEN if _SECRET_NAMES.search(str(name)) else _hidden(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_hidden(inner) for inner in value]
    return _hidden_text(value if isinstance(value, str) else repr(value))


def _hidden_text(text: str) -> str:
    # A function costs nothing where nothing is found; a template is read every time.
    known = _NAMED_SECRETS.sub(lambda found: found[1] + _HIDDEN, _SECRETS.sub(_HIDDEN, text))
    return _PHONE_NUMBERS.sub(lambda found: mask(found.group()), known)


def _renderers(*, console: bool) -> list[Any]:
    if console:
        plain = structlog.dev.plain_traceback
        return [_escape, structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    # ASCII alone: some characters beyond it end a line or move the cursor where the log is read.
    return [structlog.processors.JSONRenderer(ensure_ascii=True)]


def _escape(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write control characters out, so that what a caller sent cannot forge a line or command the terminal."""
    for name, value in line.items():
        if isinstance(value, str):
            escaped = _CONTROLS.sub(lambda found: ascii(found.group())[1:-1], value)
            line[name] = escaped if name in _SEVERAL_LINES else escaped.replace("\n", "\\n")
    return line
