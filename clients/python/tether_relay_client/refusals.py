"""How a connection ends, and how a follow does."""

TOKEN_REFUSED = 4401
RESTART = 1012
INVALID_MESSAGE = "invalid_message"
_TOKEN_CODES = (TOKEN_REFUSED, 4497, 4498)  # the token is not valid, was revoked, has expired
_HOPELESS = (1002, 1003, 1007, 1009, 4403, INVALID_MESSAGE)  # a mistake of ours, or an origin that may not connect
_ANSWERED = (RESTART, 1013)
_FIRST_OWN_CODE = 4000

Code = int | str | None


class Stopped(Exception):
    """The follow ended because what went wrong cannot get better; `code` is the close code or the error's code."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class TokenRefused(Stopped):
    """The token is not valid, was revoked, or has expired."""


class Refused(Stopped):
    """The server refused what was asked for."""


class Ended(Exception):
    """One connection ended; `after_seconds` is how long the server asked to stay away."""

    def __init__(self, code: Code, reason: str, after_seconds: float = 0) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.after_seconds = after_seconds

    @property
    def is_token(self) -> bool:
        """Tell whether another token may help."""
        return self.code in _TOKEN_CODES

    @property
    def is_hopeless(self) -> bool:
        """Tell whether nothing helps."""
        return self.code in _HOPELESS

    @property
    def is_answer(self) -> bool:
        """Tell whether a broadcaster closed the connection with a code of its own, so that the way to it is free."""
        return isinstance(self.code, int) and (self.code >= _FIRST_OWN_CODE or self.code in _ANSWERED)
