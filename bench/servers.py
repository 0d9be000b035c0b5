"""Servers as processes of their own, one worker each, on the first core; the load stays on the other one.

Every server gets a copy of one prepared installation: our migrations and the demo organization.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 30
SERVER_CORE, LOAD_CORE = 0, (os.cpu_count() or 1) - 1

SECRETS = {"JWT_SECRET": "b" * 64, "ENCRYPTION_KEYS": "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmI="}


@dataclass(frozen=True)
class Installation:
    """A migrated database with the demo organization; `database` is a path or a PostgreSQL URL."""

    folder: Path
    database: str
    tool_secret: str
    api_key: str
    superadmin_token: str

    @property
    def is_embedded(self) -> bool:
        return not self.database.startswith("postgresql")


@dataclass
class Server:
    """One running server."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    installation: Installation
    started_in: float = 0.0
    notes: dict[str, float] = field(default_factory=dict)

    def memory(self, line: str = "VmRSS") -> float:
        """Return resident memory in MiB, now (`VmRSS`) or at its peak (`VmHWM`)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(row.split()[1]) for row in status.splitlines() if row.startswith(line)) / 1024

    def forget_peak(self) -> None:
        """Begin to measure the peak anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self) -> float:
        """Return the seconds of CPU time spent so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepare(folder: Path, database_url: str | None = None) -> Installation:
    """Migrate a database and set up the demo organization in it."""
    from actions.administer import issue_token
    from actions.set_up_demo import set_up_demo
    from app import open_relay
    from config import load_settings
    from persistence.database import open_database

    folder.mkdir(parents=True, exist_ok=True)
    chosen = {"data_dir": folder, "database_url": database_url or "", **{k.lower(): v for k, v in SECRETS.items()}}
    settings = load_settings(_env_file=None, **chosen)
    database = open_database(settings.resolved_database_url)
    database.migrate()
    database.close()

    async def act() -> Installation:
        async with open_relay(settings) as relay:
            demo = await set_up_demo(relay)
            assert demo is not None, "the installation is not new"
            token = await issue_token(relay, demo.superadmin_email, 86_400)
            return Installation(
                folder,
                database_url or str(folder / "relay.db"),
                demo.tool_secret.get_secret_value(),
                demo.api_key.get_secret_value(),
                token.get_secret_value(),
            )

    return asyncio.run(act())


def copy(template: Installation, folder: Path) -> Installation:
    """Copy an installation into `folder`; the database of a PostgreSQL installation is copied too."""
    shutil.copytree(template.folder, folder)
    database = str(folder / "relay.db")
    if not template.is_embedded:
        from tests.support import postgresql

        database = postgresql.create(template.database)
    return Installation(folder, database, template.tool_secret, template.api_key, template.superadmin_token)


@contextlib.contextmanager
def ours(installation: Installation, name: str = "ours", log_level: str = "warning") -> Iterator[Server]:
    """Start our server as `make serve` does."""
    settings = {
        "DATA_DIR": str(installation.folder),
        "DATABASE_URL": "" if installation.is_embedded else installation.database,
        "LOG_LEVEL": log_level,
        "LOG_FORMAT": "json",
        "DOWNLOAD_ALLOWED_NETWORKS": "127.0.0.0/8",
        # The limiter counts as always; no peer has one, and one caller asks for all here.
        "REQUESTS_PER_MINUTE_PER_ADDRESS": "1000000000",
        "REQUESTS_PER_MINUTE_PER_CALLER": "1000000000",
        "ORG_REQUESTS_PER_MINUTE": "1000000000",
        **SECRETS,
    }
    with _running(name, lambda _: ["manage.py", "serve"], installation, settings, "API_PORT") as server:
        yield server


@contextlib.contextmanager
def peer(name: str, factory: str, installation: Installation, *options: str) -> Iterator[Server]:
    """Start the application that `factory` (`bench.peers.floor:build`) makes."""
    settings = {"BENCH_DATABASE": installation.database, "BENCH_RECORDINGS": str(installation.folder / "recordings")}
    command = lambda port: ["-m", "bench.serve", factory, str(port), *options]  # noqa: E731
    with _running(name, command, installation, settings) as server:
        yield server


@contextlib.contextmanager
def _running(
    name: str,
    command: Callable[[int], list[str]],
    installation: Installation,
    settings: dict[str, str],
    port_setting: str = "BENCH_PORT",
) -> Iterator[Server]:
    port = _free_port()
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    environment = kept | settings | {port_setting: str(port), "PYTHONPATH": str(ROOT)}
    log = (installation.folder / f"{name.replace(' ', '-')}.log").open("wb")
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command(port)], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(process.pid, {SERVER_CORE})
    server = Server(name, port, process, installation)
    try:
        _wait_until_it_answers(server, Path(log.name))
        server.started_in = time.perf_counter() - started
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def _wait_until_it_answers(server: Server, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"{server.name} ended: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            if connection.recv(64).startswith(b"HTTP/1.1 "):
                return
        time.sleep(0.005)
    raise RuntimeError(f"{server.name} does not answer")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
