"""How long each organization's events are kept for those who come back."""

from persistence import retention
from persistence.database import Database


class Keeping:
    """Knows an organization's own hours, or everybody's; asks once, until it is told to forget."""

    def __init__(self, database: Database, everybodys_hours: float) -> None:
        self._database = database
        self._everybodys_hours = everybodys_hours
        self._known: dict[str, float] = {}

    async def hours(self, organization_id: str) -> float:
        """Return for how many hours the organization's events are kept."""
        hours = self._known.get(organization_id)
        if hours is None:
            days = (await self._database.read(lambda: retention.get(organization_id))).events
            hours = self._known[organization_id] = self._everybodys_hours if days is None else 24.0 * days
        return hours

    def forget(self) -> None:
        """Ask anew from here on."""
        self._known.clear()
