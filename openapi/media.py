"""Media types: which of them are JSON."""

from collections.abc import Mapping
from typing import Any


def is_json(media_type: str) -> bool:
    """Tell whether `media_type`, with or without parameters, is `application/json` or its like."""
    essence = media_type.partition(";")[0].strip().lower()
    return essence == "application/json" or (essence.startswith("application/") and essence.endswith("+json"))


def json_of(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of the JSON media type in `content`, or None when it has none."""
    for media_type, described in content.items():
        if is_json(media_type):
            schema: Mapping[str, Any] = described.get("schema", {})
            return schema
    return None
