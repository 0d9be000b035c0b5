"""Which provider sends an organization's text messages."""

from domain.times import now
from persistence.models import SmsConfig


def get(organization_id: str) -> SmsConfig | None:
    """Return how the organization sends texts."""
    return SmsConfig.get_or_none(SmsConfig.organization == organization_id)


def put(organization_id: str, *, provider: str, credentials_sealed: str) -> None:
    """Send the organization's texts through `provider` from now on."""
    values = {"provider": provider, "credentials_sealed": credentials_sealed, "updated_at": now()}
    SmsConfig.insert(organization=organization_id, **values).on_conflict(
        conflict_target=[SmsConfig.organization], update=values
    ).execute()
