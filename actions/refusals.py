"""Keeping count of those who sign with a secret that is not the organization's; nothing else remains of them."""

import contextlib
from collections.abc import Iterator

import structlog

from actions.relay import Relay
from domain.errors import Unauthenticated

log = structlog.get_logger()


@contextlib.contextmanager
def counted(relay: Relay, vendor: str) -> Iterator[None]:
    """Count and log what is refused inside, and let the refusal pass."""
    try:
        yield
    except Unauthenticated as error:
        relay.refusals[vendor] += 1
        log.warning("webhook.refused", vendor=vendor, reason=str(error))
        raise
