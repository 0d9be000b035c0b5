"""The API, running: the real application behind a real socket, on a database and a disk of its own."""

import asyncio
import atexit
import contextlib
import functools
import json
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar
from unittest import mock

import httpx
import uvicorn
from argon2 import PasswordHasher

from actions.administer import issue_token
from actions.relay import Relay
from actions.set_up_demo import Demo, set_up_demo
from app import create_app, open_relay
from config import Settings, load_settings
from domain.errors import Overloaded
from handlers.protocol import limited
from keyring import passwords
from persistence import organizations, outbox
from persistence.database import open_database
from tests.support import compiled, postgresql, second_opinion
from tests.support.contract import CONTRACT
from tests.support.randomness import encryption_key
from tests.support.waiting import PATIENCE_SECONDS

R = TypeVar("R")

TOOLS = "/api/webhook/elevenlabs/tools"
INGEST = "/api/calls/ingest"
CONFIG = "/api/calls/voice-ai/config"


@dataclass(frozen=True)
class Api:
    """A running API with its demo organization; `http` speaks to it, `relay` looks behind it."""

    url: str
    http: httpx.AsyncClient
    relay: Relay
    demo: Demo
    organization_id: str
    superadmin_token: str
    data_dir: Path

    async def tool(self, name: str, body: object, **options: Any) -> httpx.Response:
        """Call a tool with the tool secret."""
        return await self.post(f"{TOOLS}/{name}", body, self.demo.tool_secret.get_secret_value(), **options)

    async def ingest(self, body: object, **options: Any) -> httpx.Response:
        """Push a call with the API key."""
        return await self.post(INGEST, body, self.demo.api_key.get_secret_value(), **options)

    async def configure(self, body: object, **options: Any) -> httpx.Response:
        """Save the voice AI configuration as the superadmin."""
        return await self.post(CONFIG, body, self.superadmin_token, **options)

    async def post(self, path: str, body: object, token: str | None, **options: Any) -> httpx.Response:
        """Post `body`: bytes and streams as they are, anything else as JSON."""
        raw = isinstance(body, bytes) or hasattr(body, "__aiter__")
        content = body if raw else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        headers |= options.pop("headers", {})
        return await self.http.post(path, content=content, headers=headers, **options)  # type: ignore[arg-type]

    async def read(self, unit: Callable[[], R]) -> R:
        """Look into the database."""
        return await self.relay.database.read(unit)

    async def events(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the organization's events after `since`: name, sequence and data."""
        stored = await self.read(lambda: outbox.after(self.organization_id, since, 10_000))
        return [{"name": event.name, "seq": event.sequence, "data": json.loads(event.data)} for event in stored]

    async def head(self) -> int:
        """Return the organization's newest sequence."""
        return await self.read(lambda: outbox.head(self.organization_id))

    def objects(self) -> list[Path]:
        """Return every recording on disk."""
        return sorted(path for path in (self.data_dir / "recordings").rglob("*") if path.is_file())


@contextlib.asynccontextmanager
async def running_api(data_dir: Path, **settings: Any) -> AsyncIterator[Api]:
    """Start the API on a free port with a demo organization; `settings` are those of `config.py`.

    It runs on the engine that `engine_of_api` names.
    """
    chosen = {"download_allowed_networks": "127.0.0.0/8,::1/128", "public_url": "https://relay.example"} | settings
    async with _demo(data_dir) as (demo, of_demo):
        configured = load_settings(_env_file=None, data_dir=data_dir, **(of_demo | chosen))
        async with _opened(configured) as relay:
            (organization,) = await relay.database.read(organizations.everyone)
            token = await _token(relay, demo.superadmin_email)
            with compiled.remembered():
                app = create_app(relay, CONTRACT)
            async with serving(app) as url, _client(url) as http:
                yield Api(url, http, relay, demo, organization.id, token, data_dir)


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Relay]:
    async with contextlib.AsyncExitStack() as stack:
        with mock.patch.object(ssl, "create_default_context", _authorities), _quick_passwords():
            relay = await stack.enter_async_context(open_relay(settings))
        yield relay


# Reading the certificate authorities takes 25 ms, which is longer than most tests.
_authorities = functools.cache(ssl.create_default_context)


def _quick_passwords() -> Any:
    """Hash passwords with parameters that cost nothing; those of production are tested beside the passwords."""
    quick = functools.partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    return mock.patch.object(passwords, "PasswordHasher", quick)


engine_of_api: ContextVar[str] = ContextVar("engine_of_api", default="sqlite")


@dataclass(frozen=True)
class _Template:
    """An installation with a demo in it, to be copied: hashing the demo's password takes longer than most tests."""

    folder: Path
    demo: Demo
    settings: dict[str, Any]


_templates: dict[str, _Template] = {}


@contextlib.asynccontextmanager
async def _demo(data_dir: Path) -> AsyncIterator[tuple[Demo, dict[str, Any]]]:
    engine = engine_of_api.get()
    template = _templates.get(engine) or await _make_template(engine)
    _templates[engine] = template
    shutil.copytree(template.folder, data_dir, dirs_exist_ok=True)
    if engine == "sqlite":
        yield template.demo, template.settings
        return
    url = postgresql.create(template.settings["database_url"])
    try:
        yield template.demo, template.settings | {"database_url": url}
    finally:
        postgresql.drop(url)


async def _make_template(engine: str) -> _Template:
    folder = Path(tempfile.mkdtemp(prefix="relay-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings: dict[str, Any] = {}
    if engine == "postgresql":
        settings = {
            "database_url": postgresql.create(),
            "jwt_secret": token_hex(32),
            "encryption_keys": encryption_key(),
        }
        atexit.register(postgresql.drop, settings["database_url"])
    configured = load_settings(_env_file=None, data_dir=folder, **settings)
    database = open_database(configured.resolved_database_url)
    database.migrate()
    database.close()
    async with _opened(configured) as relay:
        demo = await set_up_demo(relay)
    assert demo is not None
    return _Template(folder, demo, settings)


_PROTOCOL = limited(
    *(Settings.model_fields[f"{what}_seconds"].default for what in ("request_head", "request_body", "answer"))
)


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve `app` on a free port of the loopback address; yield its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    # asyncio does this for the sockets it makes itself; without, every answer on a kept connection waits 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(app, loop="none", http=_PROTOCOL, ws="none", lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.on_tick(0)  # what uvicorn does ten times a second; the date of the answers stays that of the start
    await server.startup(sockets=[listening])
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        await _shut_down(server, listening)


async def _shut_down(server: uvicorn.Server, listening: socket.socket) -> None:
    # uvicorn itself sleeps for up to a fifth of a second before it looks whether its connections have ended.
    for each in server.servers:
        each.close()
    listening.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    while server.server_state.connections or server.server_state.tasks:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.001)


def _client(url: str) -> httpx.AsyncClient:
    # A second reader of the contract hears every exchange.
    hooks = {"response": [second_opinion.hear]}
    return httpx.AsyncClient(base_url=url, trust_env=False, event_hooks=hooks, timeout=PATIENCE_SECONDS, verify=False)


async def _token(relay: Relay, email: str) -> str:
    return (await issue_token(relay, email, 3600)).get_secret_value()


@contextlib.contextmanager
def unwritable(api: Api) -> Iterator[None]:
    """Have every write to the database fail for as long as the context lasts."""

    async def fail(*_: Any, **__: Any) -> Any:
        raise Overloaded("injected")

    database = api.relay.database
    object.__setattr__(database, "write", fail)
    try:
        yield
    finally:
        del database.write
