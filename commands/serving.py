"""The processes: the API, the broadcaster, and both together."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields
from functools import partial
from types import FrameType

import httpx
import structlog
import typer
import uvicorn
import uvloop
from starlette.types import ASGIApp

import supervisor
from actions.agent_secret import resume_secret_writes, rotate_old_secrets
from actions.audit_reading import note_socket
from actions.authenticate import identify, revoked
from actions.availability import end_lapsed
from actions.configure_voice_ai import resume_webhook_setups
from actions.new_events import NewEvents
from actions.personalize import forget_call_contexts
from actions.relay import Relay
from actions.stored_secrets import look_at_secrets
from actions.text_caller import recover_stranded
from app import create_apps, open_relay
from commands import private_files
from commands.descriptors import connections_within, raise_descriptor_limit
from commands.opening import read_settings, refuse_newer
from commands.terminal import show
from config import Settings
from domain.addresses import Proxies
from domain.errors import ConfigurationError, facts_of
from handlers.connections import Connections
from handlers.protocol import HttpProtocol, limited
from persistence.database import open_database
from realtime.limits import Limits
from version import VERSION

_START_SECONDS = 30
GRACE_SECONDS = 8
_HOUSEKEEPING_SECONDS = 20
_COLLECTOR_THRESHOLDS = (20_000, 50, 100)
# The event loop waits up to so long for the interpreter lock, at every step, while another thread computes. Python's
# default is ten times as long.
_SWITCH_SECONDS = 0.0005

log = structlog.get_logger()

serving = typer.Typer()


@serving.command()
def up() -> None:
    """Start the API and the broadcaster together, with a demo organization on first use."""
    from commands import demo

    settings = read_settings()
    for host, port, name in _addresses(settings):
        _bind(host, port, name).close()
    open_and_migrate(settings)
    credentials = asyncio.run(demo.prepare(settings))
    with supervisor.Supervisor([[sys.argv[0], "serve"], [sys.argv[0], "broadcast"]]) as both:
        if _wait_until_ready(settings, lambda: both.is_running):
            demo.show(credentials, settings)
        status = both.wait()
    sys.exit(status)


@serving.command()
def serve() -> None:
    """Start the API."""
    supervisor.follow()
    settings = read_settings()
    private_files.warn_if_open(settings.data_dir)
    listening = _bind(settings.api_host, settings.api_port, "API")
    port = settings.management_port
    management = _bind(settings.management_host, port, "MANAGEMENT") if port is not None else None
    most = connections_within(raise_descriptor_limit(), settings.max_connections)
    uvloop.run(_serve(settings, listening, management, most))


@serving.command()
def broadcast() -> None:
    """Start the realtime broadcaster."""
    supervisor.follow()
    settings = read_settings()
    descriptors = raise_descriptor_limit()
    private_files.warn_if_open(settings.data_dir)
    _bind(settings.realtime_host, settings.realtime_port, "REALTIME").close()  # said before the database is looked at
    asyncio.run(_broadcast(settings, descriptors))


@serving.command()
def migrate() -> None:
    """Bring the database up to date."""
    applied = open_and_migrate(read_settings())
    show(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")


def open_and_migrate(settings: Settings) -> list[str]:
    """Apply pending migrations and return their names."""
    database = open_database(settings.resolved_database_url)
    try:
        refuse_newer(database)
        return database.migrate()
    finally:
        database.close()


def _addresses(settings: Settings) -> list[tuple[str, int, str]]:
    management = (settings.management_port, settings.broadcaster_management_port)
    return [
        (settings.api_host, settings.api_port, "API"),
        (settings.realtime_host, settings.realtime_port, "REALTIME"),
        *((settings.management_host, port, "MANAGEMENT") for port in management if port is not None),
    ]


def _bind(host: str, port: int, name: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no address"
        raise ConfigurationError(
            f"Cannot listen on {host}:{port}: {reason}. Set {name}_HOST and {name}_PORT to a free address."
        ) from error
    return listening


class _Server(uvicorn.Server):
    """Stops on SIGTERM and SIGINT like uvicorn's own, but returns, so that what we opened is closed."""

    def __init__(self, config: uvicorn.Config, new_events: NewEvents) -> None:
        super().__init__(config)
        self._new_events = new_events

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Answer the requests that wait for events, so that nobody waits for them."""
        self._new_events.close()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _serve(
    settings: Settings, listening: socket.socket, management: socket.socket | None, most_connections: int
) -> None:
    proxies = Proxies(settings.trusted_proxies)
    connections = Connections(most_connections, settings.max_connections_per_address, proxies)
    async with open_relay(settings) as relay:
        await _begin("api", relay, settings, settings.api_host, settings.api_port)
        apps = create_apps(relay, connections=connections, proxies=proxies)
        config = uvicorn.Config(
            apps.public,
            loop="none",
            http=_protocol(settings, connections),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        _calm_collector()
        sys.setswitchinterval(_SWITCH_SECONDS)
        house = asyncio.create_task(_keep_house(relay))
        try:
            async with _managed(apps.management, management, _protocol(settings)):
                await _Server(config, relay.new_events).serve(sockets=[listening])
        finally:
            house.cancel()
            await asyncio.wait({house})


async def _begin(process: str, relay: Relay, settings: Settings, host: str, port: int) -> None:
    """Say in the log what starts, and refuse a database or name secrets that do not fit.

    Raises:
        ConfigurationError: if the database is of another version.
    """
    log.info(
        "starting",
        version=VERSION,
        process=process,
        address=f"{host}:{port}",
        database="sqlite" if settings.is_embedded else "postgresql",
    )
    refuse_newer(relay.database)
    if relay.database.pending_migrations():
        if settings.migrate_at_start == "off":
            raise ConfigurationError(
                "The database is of an older version: run manage.py migrate after a backup, or set MIGRATE_AT_START=on."
            )
        log.info("migrated", applied=relay.database.migrate())
    if process == "api" and (problem := (await look_at_secrets(relay)).problem):
        log.error("stored_secrets.unopened", problem=problem, remedy="manage.py doctor names them")


def _calm_collector() -> None:
    """Have the garbage collector look less often, and never again at what was loaded so far.

    Reading one large document would have it go through everything several times, with the interpreter to itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


class _Beside(uvicorn.Server):
    """Leaves signals to the server it stands beside."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _protocol(settings: Settings, connections: Connections | None = None) -> type[HttpProtocol]:
    return limited(settings.request_head_seconds, settings.request_body_seconds, settings.answer_seconds, connections)


@contextlib.asynccontextmanager
async def _managed(app: ASGIApp, listening: socket.socket | None, protocol: type[HttpProtocol]) -> AsyncIterator[None]:
    """Serve health, readiness and metrics on a socket of their own, if there is one, while the context lasts."""
    if listening is None:
        yield
        return
    config = uvicorn.Config(
        app,
        loop="none",
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = _Beside(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def _keep_house(relay: Relay) -> None:
    await relay.database.scrub()  # a process that was killed after an erasure may have left it to us
    while True:
        try:
            stranded = await recover_stranded(relay)
            if stranded:
                log.warning("sms.stranded", messages=stranded)
            await end_lapsed(relay)
            await forget_call_contexts(relay)
            await resume_webhook_setups(relay)
            await resume_secret_writes(relay)
            await rotate_old_secrets(relay)
        except Exception as error:  # whatever it is, the next round may go well
            log.error("housekeeping.failed", **facts_of(error))
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)


async def _broadcast(settings: Settings, descriptors: int) -> None:
    # The API need not hold the broadcaster in memory.
    from realtime import server as realtime_server
    from realtime.recollection import Recollection

    port = settings.broadcaster_management_port
    recollection = Recollection(settings.data_dir / f"broadcast-{settings.realtime_port}.json")
    async with open_relay(settings) as relay:
        await _begin("broadcaster", relay, settings, settings.realtime_host, settings.realtime_port)
        await realtime_server.serve(
            relay.database,
            partial(identify, relay),
            partial(revoked, relay),
            host=settings.realtime_host,
            port=settings.realtime_port,
            allowed_origins=settings.allowed_origins,
            retention_hours=settings.event_retention_hours,
            proxies=Proxies(settings.trusted_proxies),
            limits=_realtime_limits(settings, descriptors),
            management=(settings.management_host, port) if port is not None else None,
            has_pages=settings.pages == "on",
            is_https=settings.is_realtime_https,
            quota=relay.quotas.sockets,
            watch=partial(note_socket, relay),
            recollection=recollection,
            version=VERSION,
        )


def _realtime_limits(settings: Settings, descriptors: int) -> Limits:
    """Return the limits as they are set, with connections that fit into the descriptors."""
    names = [field.name for field in fields(Limits)]
    wanted = Limits(**{name: getattr(settings, f"realtime_{name}") for name in names})
    return wanted.within(connections_within(descriptors, wanted.connections + wanted.unauthenticated))


def _wait_until_ready(settings: Settings, is_running: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while is_running() and time.monotonic() < deadline:
        if all(_answers(page) for page in settings.health_urls):
            return True
        time.sleep(0.1)
    return False


def _answers(page: str) -> bool:
    try:
        return httpx.get(page, trust_env=False, timeout=1).is_success
    except httpx.HTTPError:
        return False
