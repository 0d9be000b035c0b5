"""Which calls somebody asks for, and how long the context of one is kept."""

from dataclasses import dataclass

# For the tools during the call, and for the report after it.
CALL_CONTEXT_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls are wanted; None admits all. They began at `since` or later, and before `before` (wire form)."""

    contact_id: str | None = None
    user_id: str | None = None
    status: str | None = None
    external_call_id: str | None = None
    since: str | None = None
    before: str | None = None


EVERY_CALL = CallFilter()
