"""When organizations are open, as it is stored."""

from collections.abc import Mapping

from domain.times import now
from persistence.models import OrganizationHours
from persistence.statements import Lookup

_BY_ORGANIZATION = Lookup(OrganizationHours, "organization")


def get(organization_id: str) -> OrganizationHours | None:
    """Return the organization's hours, None if it never set any."""
    return _BY_ORGANIZATION.find(organization_id)


def put(organization_id: str, changes: Mapping[str, object], *, otherwise: Mapping[str, object]) -> None:
    """Change columns of the organization's hours; a new row has `otherwise` and defaults in the others."""
    changed = {**changes, "updated_at": now()}
    chosen = OrganizationHours.organization == organization_id
    if not OrganizationHours.update(changed).where(chosen).execute():
        OrganizationHours.create(organization=organization_id, **{**otherwise, **changed})
