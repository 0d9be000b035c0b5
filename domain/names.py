"""Names of contacts: a whole name and its parts, and what stands where a name is not known."""

PLACEHOLDER_NAME = "Unknown Caller"

# What agents and calling systems send when they do not know a name.
_PLACEHOLDERS = frozenset({PLACEHOLDER_NAME.casefold(), "unknown", "new contact"})


def is_placeholder(name: str) -> bool:
    """Tell whether `name` stands for a name that is not known."""
    return " ".join(name.split()).casefold() in _PLACEHOLDERS


def parts(name: str) -> tuple[str, str]:
    """Return the first and the last name of a whole name: its first word, and the rest."""
    first, _, last = name.strip().partition(" ")
    return first, last.strip()


def first_and_last(name: str, first: str | None, last: str | None) -> tuple[str, str]:
    """Return `first` and `last` of the whole `name` if somebody told them apart, otherwise its parts."""
    return parts(name) if first is None and last is None else (first or "", last or "")
