"""Organizations: the tenants everything else belongs to."""

from persistence.models import Organization
from persistence.statements import Lookup

_BY_ID = Lookup(Organization, "id")


def add(name: str, default_region: str | None) -> Organization:
    """Create an organization."""
    return Organization.create(name=name, default_region=default_region)


def get(organization_id: str) -> Organization | None:
    """Return the organization of that id."""
    return _BY_ID.find(organization_id)


def by_name(name: str) -> Organization | None:
    """Return the oldest organization of that name."""
    return Organization.select().where(Organization.name == name).order_by(Organization.id).first()


def everyone() -> list[Organization]:
    """Return all organizations, oldest first."""
    return list(Organization.select().order_by(Organization.id))


def set_region(organization_id: str, default_region: str | None) -> None:
    """Change the region in which national phone numbers are read."""
    Organization.update(default_region=default_region).where(Organization.id == organization_id).execute()
