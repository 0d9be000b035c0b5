"""What a backup says about itself."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from domain.errors import BackupRejected

FORMAT = 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class DatabasePart(_Part):
    """The database in the backup: its size, digest, migrations, and the rows of each table."""

    size: int = Field(alias="bytes")
    sha256: str
    migrations: list[str]
    rows: dict[str, int]


class RecordingsPart(_Part):
    """How many recordings the database knows, their size, and whether they are in the backup."""

    included: bool
    count: int
    size: int = Field(alias="bytes")


class KeysPart(_Part):
    """Fingerprints of the keys in use.

    `encryption` is the ring, newest first. `sealing` counts the stored secrets by the key that opens them, `unopened`
    those that no key of the ring opens. `included` tells whether `secrets.json` is in the backup.
    """

    encryption: list[str]
    sealing: dict[str, int]
    unopened: int
    included: bool


class Manifest(_Part):
    """The first member of a backup."""

    format: int
    program: str = "tether-relay"
    version: str
    made_at: str
    database: DatabasePart
    recordings: RecordingsPart
    keys: KeysPart

    def to_json(self) -> bytes:
        """Return it as it stands in the file."""
        return self.model_dump_json(by_alias=True, indent=2).encode() + b"\n"


def read_manifest(text: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BackupRejected: if it is not one, or of a format that this version does not know.
    """
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise BackupRejected("The file is not a backup of this program: its manifest cannot be read.") from error
    if manifest.format > FORMAT:
        raise BackupRejected(
            f"The backup was made by version {manifest.version} in a newer format. Use that version or a newer one."
        )
    return manifest
