"""Which events a listener wants to see."""

from dataclasses import dataclass
from typing import Protocol


class Filterable(Protocol):
    """What a filter looks at."""

    @property
    def name(self) -> str | None: ...  # noqa: D102
    @property
    def contact_id(self) -> str | None: ...  # noqa: D102
    @property
    def conversation_id(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Filter:
    """What a listener wants to see; None admits all. What has no name is for everybody."""

    events: frozenset[str] | None = None
    contact_id: str | None = None
    conversation_id: str | None = None

    def admits(self, event: Filterable) -> bool:
        """Tell whether `event` passes."""
        return event.name is None or (
            (self.events is None or event.name in self.events)
            and (self.contact_id is None or event.contact_id == self.contact_id)
            and (self.conversation_id is None or event.conversation_id == self.conversation_id)
        )


EVERYTHING = Filter()
