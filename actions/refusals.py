"""Keeping count of those who sign with a secret that is not the organization's; nothing else remains of them."""

import contextlib
from collections.abc import Iterator

import structlog

from actions.relay import Relay
from domain.errors import Unauthenticated

log = structlog.get_logger()


@contextlib.contextmanager
def counted(relay: Relay, vendor: str) -> Iterator[None]:
    """Count what is refused inside, and let the refusal pass; the log gets a line a minute for each reason."""
    try:
        yield
    except Unauthenticated as error:
        relay.refusals[vendor] += 1
        reason = str(error)
        if refusals := relay.repetition.count(f"webhook.refused {vendor} {reason}"):
            log.warning("webhook.refused", vendor=vendor, reason=reason, refusals=refusals)
        raise
