"""What lies in the data folder is its owner's alone, also if an earlier version or another program made it readable."""

import stat
from pathlib import Path

import structlog

FILES = (
    "relay.db",
    "relay.db-wal",
    "relay.db-shm",
    "relay.db-journal",
    "relay.migrating",
    "relay.in-use",
    "relay.backing-up",
    "relay.backup-draft",
    "secrets.json",
    "demo.json",
    "demo.env",
)
BROADCASTERS = "broadcast-*"  # what each broadcaster remembers, and its lock
RECORDINGS = "recordings"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO

log = structlog.get_logger()


def narrow(data_dir: Path) -> None:
    """Take files and folders of ours from everybody but their owner; what else lies in `data_dir` is left alone.

    Recordings are looked at one by one only if their folder is open to others: behind a closed one nobody sees them.
    """
    recordings = data_dir / RECORDINGS
    found = [*(data_dir / name for name in FILES), *data_dir.glob(BROADCASTERS)]
    if _is_open(recordings):
        found += [recordings, *recordings.rglob("*")]
    for path in found:
        if _is_open(path):
            _close(path)


def warn_if_open(data_dir: Path) -> None:
    """Say that others may look into the folder; its mode is the operator's own to change."""
    if _is_open(data_dir):
        log.warning(
            "data_dir.open_to_others",
            data_dir=str(data_dir),
            mode=f"{stat.S_IMODE(data_dir.stat().st_mode):04o}",
            remedy=f"chmod 700 {data_dir}",
        )


def _is_open(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not stat.S_ISLNK(mode) and bool(mode & _OTHERS)


def _close(path: Path) -> None:
    try:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OTHERS)
    except OSError as error:
        log.warning("data_dir.cannot_be_closed", path=str(path), reason=error.strerror)
