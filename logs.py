"""How log lines look: one JSON object each, or coloured text at a terminal; secrets and phone numbers are masked."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from domain.phones import mask

_SECRET_NAMES = re.compile(r"authorization|cookie|password|secret|token|api_?key|credential|signature", re.IGNORECASE)
_SECRETS = re.compile(
    r"tk_live_[0-9a-f]+"
    r"|\bsk_[A-Za-z0-9_]{8,}"
    r"|\bwsec_[A-Za-z0-9_]+"
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|\b[0-9a-f]{64}\b"
    r"|(?<=[Bb]earer )\S+"
    r"|(?<=[Bb]asic )\S+"
    r"|(?<=://)[^/@\s]+(?=@)"
)
_PHONE_NUMBERS = re.compile(r"\+[0-9]{6,15}\b")
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
    ]
    if not console:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, hide, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, hide],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(console=console)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # These tell of every request and connection, with addresses that may hold a customer's token.
    for chatty in ("httpx", "httpcore", "botocore", "boto3", "urllib3", "connexion", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def hide(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what must not be read in a log: values with telling names, known kinds of secrets, phone numbers."""
    line.pop("color_message", None)  # uvicorn says everything twice
    for name, value in line.items():
        line[name] = _HIDDEN if _SECRET_NAMES.search(name) and value else _hidden(value)
    return line


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return _PHONE_NUMBERS.sub(lambda found: mask(found.group()), _SECRETS.sub(_HIDDEN, value))
    if isinstance(value, Mapping):
        return {name: _HIDDEN if _SECRET_NAMES.search(str(name)) else _hidden(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(inner) for inner in value]
    return value


def _renderer(*, console: bool) -> Any:
    return structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(ensure_ascii=False)
