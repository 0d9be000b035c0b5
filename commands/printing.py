"""What is printed for people, and safe to print."""

import json
from typing import Any

from rich.console import Console

out = Console(highlight=False, markup=False)


def one_line(document: dict[str, Any]) -> str:
    """Return `document` as one line of JSON that is safe to print."""
    # What a caller said must not command the terminal; JSON itself only escapes some of the control characters.
    text = json.dumps(document, ensure_ascii=False)
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
