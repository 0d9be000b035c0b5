"""What a quota may be at most, whether everybody's or an organization's own: more is a mistake."""

MAX_BYTES = 1 << 60
MAX_COUNT = 1_000_000_000
