"""Everything that can go wrong, said once.

    RelayError
    ├── InvalidRequest          the caller's input; names the first problem
    ├── Unauthenticated         no token, or one that proves nothing
    ├── NotFound
    ├── PayloadTooLarge
    │   └── QuotaExceeded       an organization's recordings are as large as they may be
    ├── UnsupportedMediaType
    ├── RateLimited             come back later, and when
    ├── Overloaded              we cannot serve this just now
    │   └── CommitUnknown       the database broke while committing; the work may be durable
    ├── Speakable               a problem the voice agent can say to the caller
    ├── RecordingRejected       the recording cannot be fetched, decoded or believed
    ├── ConfigurationError      a setting, for the person who starts the server
    ├── BackupRejected          a backup is damaged, incomplete or of a newer version
    ├── StorageUnavailable      the recording store did not do what was asked
    └── ProviderError           a vendor's API
        ├── ProviderRejected    our request was refused; sending it again changes nothing
        ├── ProviderUnavailable not processed; trying again later makes sense
        └── OutcomeUnknown      it left us and nobody knows what became of it

No HTTP status lives here: the front door decides how each is answered.
"""

import traceback
from collections.abc import Sequence
from typing import Any

_FRAMES = 12


class RelayError(Exception):
    """Raised when the relay cannot do what was asked; `message` is meant for people, None if there is none."""

    code = "RELAY_ERROR"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "")
        self.message = message


class InvalidRequest(RelayError):
    """Raised when a request breaks the contract; `details` holds one object per problem."""

    code = "VALIDATION_ERROR"

    def __init__(self, message: str, details: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.details = list(details)


class Unauthenticated(RelayError):
    """Raised when a token is missing, malformed, unknown, expired or of the wrong kind."""

    code = "UNAUTHORIZED"


class NotFound(RelayError):
    """Raised when nothing of that name exists in the caller's organization."""

    code = "NOT_FOUND"


class PayloadTooLarge(RelayError):
    """Raised when a body is longer than its operation accepts."""

    code = "PAYLOAD_TOO_LARGE"

    def __init__(self, limit: int, what: str = "Request body", message: str | None = None) -> None:
        super().__init__(message or f"{what} is larger than {limit} bytes")
        self.limit = limit


class QuotaExceeded(PayloadTooLarge):
    """Raised when an organization has used up its quota of recordings, in bytes."""

    code = "QUOTA_EXCEEDED"

    def __init__(self, limit: int) -> None:
        super().__init__(limit, message=f"The organization has used up its {limit} bytes of recordings")


class UnsupportedMediaType(RelayError):
    """Raised when a body arrives in a media type the operation does not accept."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class RateLimited(RelayError):
    """Raised when a caller asks too often; `retry_after` is in seconds."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(RelayError):
    """Raised when the relay cannot serve a request just now and lost nothing by saying so."""

    code = "UNAVAILABLE"


class CommitUnknown(Overloaded):
    """Raised when the database broke while committing; whether the work is durable shows only later."""


class Speakable(RelayError):
    """Raised when a tool call fails in a way the agent can tell the caller in one sentence."""

    code = "RECOVERABLE"


class RecordingRejected(RelayError):
    """Raised when a recording cannot be fetched, decoded or recognised as audio."""

    code = "RECORDING_REJECTED"


class ConfigurationError(RelayError):
    """Raised at start-up when a setting is missing or makes no sense."""

    code = "CONFIGURATION"


class BackupRejected(RelayError):
    """Raised when a file is not a whole backup that this version can read."""

    code = "BACKUP_REJECTED"


class StorageUnavailable(RelayError):
    """Raised when the recording store refuses, fails or answers what makes no sense."""

    code = "STORAGE_UNAVAILABLE"


class ProviderError(RelayError):
    """Raised when a vendor's API does not do what was asked.

    `provider` is the vendor's name, `status` its HTTP status if it answered, `vendor_code` its own error code.
    """

    code = "PROVIDER_ERROR"

    def __init__(
        self, provider: str, reason: str, *, status: int | None = None, vendor_code: str | None = None
    ) -> None:
        super().__init__(f"{provider}: {reason}")
        self.provider = provider
        self.reason = reason
        self.status = status
        self.vendor_code = vendor_code


class ProviderRejected(ProviderError):
    """Raised when the vendor refused our request; the same request will be refused again."""


class ProviderUnavailable(ProviderError):
    """Raised when the vendor certainly did not process the request; trying again makes sense."""


class OutcomeUnknown(ProviderError):
    """Raised when the request left us and no trustworthy answer came back; never repeat it blindly."""


def facts_of(error: BaseException) -> dict[str, Any]:
    """Return what a log line may hold of an error: its type, where it was raised, and its message if it is ours.

    The message of any other error may quote what it was given: a row, a parameter, a body.
    """
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "reason": error.message if isinstance(error, RelayError) else None,
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-_FRAMES:]],
    }
