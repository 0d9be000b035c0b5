"""An installation to hurt: a folder and a database of its own, and `manage.py` processes that can be killed."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx

from actions.administer import configure_sms, issue_token
from actions.relay import Relay
from actions.set_up_demo import Demo, set_up_demo
from app import open_relay
from config import Settings, load_settings
from drills.outcome import Broken
from persistence import organizations
from persistence.database import open_database
from tests.support import postgresql
from tests.support.ports import free_port
from tests.support.processes import Child, end, run, start_anew
from tests.support.randomness import encryption_key
from tests.support.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[1]
# A start takes a second; on a machine with much else to do, many.
READY_SECONDS = 2 * PATIENCE_SECONDS
_POLL_SECONDS = 0.05
_LOG_TAIL = 2000
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG")


# What a drill measures is a start as a person makes it. The tests replace this by one that loads nothing anew.
start: Callable[..., Child] = start_anew


@dataclass
class Process:
    """One `manage.py` process on a port of its own; `environment` is what it starts with."""

    command: str
    port: int
    environment: dict[str, str]
    log: Path
    _child: Child | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it answers HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        return self._running().pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-_LOG_TAIL:]

    async def start(self) -> float:
        """Start it, wait until it is ready, and return how long that took."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._child = start(
                self.command, env=self.environment, folder=self.log.parent, stdout=log.fileno(), stderr=log.fileno()
            )
        page = "/readyz" if self.command == "serve" else "/healthz"
        await until(lambda: self.answers(page), f"{self.command} is ready", while_alive=self)
        return time.monotonic() - began

    async def answers(self, page: str) -> bool:
        """Tell whether it answers `page` with success."""
        return await status_of(self.url + page) == 200

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._running().send_signal(number)

    async def kill(self) -> None:
        """Kill it, as a power failure would."""
        self.send(signal.SIGKILL)
        await self.ended()

    async def ended(self) -> int:
        """Wait for its end and return the exit status."""
        return await asyncio.to_thread(self._running().wait, READY_SECONDS)

    def memory(self) -> int:
        """Return the most memory it has held, in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise Broken("the kernel does not say how much memory it held")

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def end(self) -> None:
        """See to it that it is gone."""
        if self._child is not None:
            end(self._child)

    def _running(self) -> Child:
        if self._child is None:
            raise Broken(f"{self.command} was never started")
        return self._child


@dataclass
class Stage:
    """An installation with a demo organization in it."""

    engine: str
    folder: Path
    settings: Settings
    demo: Demo
    organization_id: str
    superadmin_token: str
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        """Where its state lives."""
        return self.settings.data_dir

    def process(self, command: str, **environment: object) -> Process:
        """Prepare a process, `serve` or `broadcast`, on a free port."""
        port = free_port()
        own = {"API_PORT" if command == "serve" else "REALTIME_PORT": str(port)}
        more = {name.upper(): str(value) for name, value in environment.items()}
        log = self.folder / f"{command}-{port}.log"
        made = Process(command, port, self.environment | own | more, log)
        self.processes.append(made)
        return made

    async def api(self, **environment: object) -> Process:
        """Start an API process."""
        made = self.process("serve", **environment)
        await made.start()
        return made

    async def broadcaster(self) -> Process:
        """Start a broadcaster."""
        made = self.process("broadcast")
        await made.start()
        return made

    async def manage(self, *arguments: str) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            Broken: when it failed.
        """
        done = await asyncio.to_thread(run, *arguments, env=self.environment, folder=self.folder)
        if done.returncode:
            raise Broken(f"manage.py {' '.join(arguments)}: {done.stdout} {done.stderr}")
        return done.stdout

    @contextlib.asynccontextmanager
    async def relay(self) -> AsyncIterator[Relay]:
        """Look behind the installation."""
        async with open_relay(self.settings) as relay:
            yield relay

    def logs(self) -> str:
        """Return everything its processes logged."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))


@contextlib.asynccontextmanager
async def staged(
    engine: str,
    *,
    folder: Path | None = None,
    database_url: str | None = None,
    twilio: Any = None,
    **settings: object,
) -> AsyncIterator[Stage]:
    """Make an installation on `engine`, its texts going through `twilio`, and take everything down at the end."""
    with _folder(folder) as place, _database(engine, database_url) as url:
        chosen = {
            "data_dir": place / "var",
            "database_url": url,
            "jwt_secret": token_hex(32),
            "encryption_keys": encryption_key(),
            "download_allowed_networks": "127.0.0.0/8",
            "log_format": "json",
            # A caller comes back within the window, however long a loaded machine takes to start the API again.
            "tool_replay_seconds": 600,
        } | settings
        chosen |= {"twilio_url": twilio.url} if twilio else {}
        configured = load_settings(_env_file=None, **chosen)
        stage = await _furnish(engine, place, configured, chosen, twilio)
        try:
            yield stage
        finally:
            for process in stage.processes:
                process.end()


async def _furnish(engine: str, place: Path, configured: Settings, chosen: dict[str, Any], twilio: Any) -> Stage:
    configured.data_dir.mkdir(parents=True, exist_ok=True)
    database = open_database(configured.resolved_database_url)
    try:
        await asyncio.to_thread(database.migrate) if engine == "postgresql" else database.migrate()
    finally:
        database.close()
    async with open_relay(configured) as relay:
        demo = await set_up_demo(relay)
        if demo is None:
            raise Broken("the database is not empty")
        (organization,) = await relay.database.read(organizations.everyone)
        if twilio is not None:
            await configure_sms(relay, organization.id, "twilio", twilio.credentials)
        token = (await issue_token(relay, demo.superadmin_email, 3600)).get_secret_value()
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment = kept | {name.upper(): str(value) for name, value in chosen.items()}
    return Stage(engine, place, configured, demo, str(organization.id), token, environment)


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    made = Path(tempfile.mkdtemp(prefix="relay-drill-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def _database(engine: str, given: str | None) -> Iterator[str]:
    if engine == "sqlite" or given is not None:
        yield given or ""
        return
    url = postgresql.create()
    try:
        yield url
    finally:
        postgresql.drop(url)


async def until(
    condition: Callable[[], Awaitable[bool]],
    what: str,
    *,
    seconds: float = READY_SECONDS,
    while_alive: Process | None = None,
) -> float:
    """Wait until `condition` holds and return how long that took.

    Raises:
        Broken: when it does not within `seconds`, or the process ends before.
    """
    began = time.monotonic()
    while not await condition():
        if while_alive is not None and not while_alive.is_alive:
            raise Broken(f"it ended before {what}: {while_alive.last_words}")
        if time.monotonic() - began > seconds:
            raise Broken(f"waited {seconds} s in vain until {what}: {while_alive.last_words if while_alive else ''}")
        await asyncio.sleep(_POLL_SECONDS)
    return time.monotonic() - began


async def status_of(url: str, timeout: float = 10) -> int:
    """GET a page and return the status, 0 when nobody answers."""
    try:
        # Reading the certificates of the world takes longer than asking, and would keep a core busy while we wait.
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=timeout) as http:  # noqa: S501
            return (await http.get(url)).status_code
    except httpx.TransportError:
        return 0
