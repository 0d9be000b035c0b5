"""How long a tool call is recognised as a repeat."""

# No setting exceeds it, and tool calls are kept for as long: a call that could still repeat is never forgotten.
MAX_REPLAY_SECONDS = 86_400

# Without a conversation id nothing tells two callers apart, so only an immediate retry counts as a repeat.
ANONYMOUS_REPLAY_SECONDS = 2
