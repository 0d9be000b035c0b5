"""Quotas: what an organization may use at most, and how many bytes of recordings it has."""

from typing import NamedTuple

from persistence.models import Organization
from persistence.statements import Given, Statement


class Own(NamedTuple):
    """An organization's own limits; None where everybody's count, 0 where there is none."""

    recording_bytes: int | None
    requests_per_minute: int | None
    sockets: int | None


def get(organization_id: str) -> Own:
    """Return the organization's own limits."""
    row = _OWN.row(organization=organization_id)
    return Own(*row) if row else Own(None, None, None)


def put(organization_id: str, own: Own) -> None:
    """Replace the organization's own limits."""
    columns = {f"{name}_limit": limit for name, limit in own._asdict().items()}
    Organization.update(columns).where(Organization.id == organization_id).execute()


def recording_bytes(organization_id: str) -> int:
    """Return how many bytes of recordings the organization has."""
    return int(_BYTES.value(organization=organization_id) or 0)


def count_recording(organization_id: str, size: int) -> None:
    """Count `size` more bytes of recordings, or fewer when it is negative."""
    if size:
        _COUNT.run(organization=organization_id, size=size)


_ITS_OWN = Organization.id == Given("organization")
_OWN = Statement(
    lambda: Organization.select(
        Organization.recording_bytes_limit, Organization.requests_per_minute_limit, Organization.sockets_limit
    ).where(_ITS_OWN)
)
_BYTES = Statement(lambda: Organization.select(Organization.recording_bytes).where(_ITS_OWN))
_COUNT = Statement(
    lambda: Organization.update(recording_bytes=Organization.recording_bytes + Given("size")).where(_ITS_OWN)
)
