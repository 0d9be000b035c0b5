"""Follows the events of an organization across every interruption; see README.md beside this package."""

from .events import EVENT_NAMES, Event, Gap, Hello
from .follow import Follow, follow
from .options import OptionError, Problem
from .refusals import Refused, Stopped, TokenRefused

__all__ = [
    "EVENT_NAMES",
    "Event",
    "Follow",
    "Gap",
    "Hello",
    "OptionError",
    "Problem",
    "Refused",
    "Stopped",
    "TokenRefused",
    "follow",
]
