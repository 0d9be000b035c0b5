"""The cells of the comparison: each starts its servers, proves them equal, and measures them in turns."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from bench import equality, load, questions, servers
from bench.load import Figures
from bench.rounds import Bench, Measure, Row
from bench.servers import Server

CONNECTIONS = 16
PACED_RATE = 100


def _against(
    what: str,
    figures: dict[str, list[Figures]],
    value: Callable[[Figures], float],
    unit: str,
    goals: dict[str, str],
    ours: str = "ours",
) -> list[Row]:
    mine = figures[ours]
    return [
        Row(
            what,
            [value(one) for one in mine],
            unit,
            rival,
            [value(one) for one in figures[rival]],
            goal,
            max(one.busy for one in [*mine, *figures[rival]]),
        )
        for rival, goal in goals.items()
        if rival in figures
    ]


def _rate(one: Figures) -> float:
    return one.rate


def _p99(one: Figures) -> float:
    return one.quantile(0.99) * 1000


# A contract-enforced request


def trivial(bench: Bench) -> list[Row]:
    """Measure the frameworks alone."""
    from bench.trivial import TOKEN

    ask = questions.fresh(questions.CREATE_NOTE, TOKEN, questions.note)
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(servers.peer(name, f"bench.trivial:{factory}", bench.installation(name), *options))
            for name, factory, *options in (
                ("ours", "ours", "ours"),
                ("ours, observed", "ours_observed", "ours"),
                ("FastAPI", "fastapi"),
                ("bare Starlette", "starlette"),
            )
        ]
        figures = bench.rounds_of(running, _saturate(bench, lambda _: ask))
    goals = {"FastAPI": "≥ 2.5", "bare Starlette": "≥ 0.9"}
    observed = dict.fromkeys(goals, "")
    what = "enforced request, no database"
    return _against(what, figures, _rate, "/s", goals) + _against(
        f"{what}; with request id, metrics", figures, _rate, "/s", observed, "ours, observed"
    )


# create-note


def notes(bench: Bench) -> list[Row]:
    """Measure create-note on SQLite against all peers."""
    peers = {"default Connexion": "connexion_default", "the floor": "floor"}
    if not bench.is_smoke:
        peers["FastAPI + SQLAlchemy"] = "fastapi_sqlalchemy"
    with _servers(bench, peers) as running:
        equality.compare_notes(running[0], running[1:])
        return _notes(bench, running, "create-note")


def notes_on_postgresql(bench: Bench) -> list[Row]:
    """Measure create-note on PostgreSQL."""
    with _on_postgresql(bench) as running:
        equality.compare_notes(running[0], running[1:])
        return _notes(bench, running, "create-note on PostgreSQL")


def _notes(bench: Bench, running: list[Server], what: str) -> list[Row]:
    ask = questions.fresh(questions.CREATE_NOTE, running[0].installation.tool_secret, questions.note)
    most = bench.rounds_of(running, _saturate(bench, lambda _: ask))
    paced = bench.rounds_of(running, _paced(bench, ask))
    goals = {"FastAPI + SQLAlchemy": "≥ 4", "default Connexion": "≥ 6", "the floor": "≥ 0.5"}
    slower = {"FastAPI + SQLAlchemy": "≤ 0.5", "default Connexion": "", "the floor": ""}
    return _against(f"{what}, {CONNECTIONS} connections", most, _rate, "/s", goals) + _against(
        f"{what} at {PACED_RATE}/s: p99", paced, _p99, "ms", slower
    )


# ingest


def calls(bench: Bench) -> list[Row]:
    """Measure ingest without a recording on SQLite."""
    with _servers(bench, {"FastAPI + SQLAlchemy": "fastapi_sqlalchemy"}) as running:
        equality.compare_calls(running[0], running[1:])
        return _calls(bench, running, "ingest")


def calls_on_postgresql(bench: Bench) -> list[Row]:
    """Measure ingest without a recording on PostgreSQL."""
    with _on_postgresql(bench) as running:
        equality.compare_calls(running[0], running[1:])
        return _calls(bench, running, "ingest on PostgreSQL")


def _calls(bench: Bench, running: list[Server], what: str) -> list[Row]:
    ask = questions.fresh(questions.INGEST, running[0].installation.api_key, questions.call)
    figures = bench.rounds_of(running, _saturate(bench, lambda _: ask))
    return _against(f"{what}, {CONNECTIONS} connections", figures, _rate, "/s", {"FastAPI + SQLAlchemy": "≥ 3"})


def recordings(bench: Bench) -> list[Row]:
    """Measure ingest with a base64 recording of 1 MB, 8 at once: throughput, and peak memory above idle."""
    size, at_once = 1_000_000, 8
    with _servers(bench, {"FastAPI + SQLAlchemy": "fastapi_sqlalchemy"}) as running:
        ask = questions.with_recording(running[0].installation.api_key, size)
        idle = {server.name: server.memory() for server in running}
        peaks: dict[str, list[float]] = {server.name: [] for server in running}

        async def measure(server: Server) -> Figures:
            server.forget_peak()
            one = await load.saturate(server.port, ask, connections=at_once, seconds=bench.seconds)
            peaks[server.name].append(server.memory("VmHWM") - idle[server.name])
            return one

        figures = bench.rounds_of(running, measure)
        in_flight = at_once * len(ask()) / 1024**2
    rows = _against(
        "ingest with 1 MB base64", figures, lambda one: one.rate * size / 1e6, "MB/s", {"FastAPI + SQLAlchemy": "≥ 2"}
    )
    mine, theirs = peaks["ours"][1:], peaks["FastAPI + SQLAlchemy"][1:]
    rows.append(Row("… 8 at once: peak memory above idle", mine, "MiB", "FastAPI + SQLAlchemy", theirs))
    rows.append(Row("… the same", mine, "MiB", "the bodies in flight", [in_flight] * len(mine), "≤ 1.5"))
    return rows


def download(bench: Bench) -> list[Row]:
    """Measure the peak memory above idle while a recording is fetched from a URL."""
    size = (2 if bench.is_smoke else 100) * 1_000_000
    peaks = []
    with servers.ours(bench.installation("ours")) as server:

        async def fetch() -> Figures:
            async with _audio_server(size) as url:
                body = questions.recorded_call(url)
                ask = lambda: questions.request(questions.INGEST, server.installation.api_key, body)  # noqa: E731
                return await load.saturate(server.port, ask, connections=1, seconds=60, count=1)

        for _ in range(bench.rounds):
            before = server.memory()
            server.forget_peak()
            one = bench.run(fetch())
            if one.refused or not one.latencies:
                raise RuntimeError("the recording was not taken")
            peaks.append(server.memory("VmHWM") - before)
    return [
        Row(f"recording of {size // 1_000_000} MB from a URL: peak memory above idle", peaks, "MiB", goal="≤ 16 MiB")
    ]


@contextlib.asynccontextmanager
async def _audio_server(size: int) -> Any:
    chunk = questions.audio(256 * 1024)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: %d\r\n\r\n" % size)
        left = size
        while left:
            writer.write(chunk[: min(left, len(chunk))])
            left -= min(left, len(chunk))
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/recording.mp3"
    finally:
        listening.close()


# Starting


def start(bench: Bench) -> list[Row]:
    """Measure how long it takes from nothing to the first answer, and the memory of a server nobody asks."""
    seconds, memory = [], []
    installation = bench.installation("ours")
    for _ in range(bench.rounds):
        with servers.ours(installation) as server:
            seconds.append(server.started_in)
            memory.append(server.memory())
    return [
        Row("start-up to the first answer", seconds, "s", goal="≤ 1.5 s"),
        Row("memory of the idle API process", memory, "MiB", goal="≤ 120 MB"),
    ]


# Servers


@contextlib.contextmanager
def _servers(bench: Bench, peers: dict[str, str]) -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(servers.ours(bench.installation("ours")))]
        for name, module in peers.items():
            factory = f"bench.peers.{module}:build"
            running.append(stack.enter_context(servers.peer(name, factory, bench.installation(name))))
        yield running


@contextlib.contextmanager
def _on_postgresql(bench: Bench) -> Iterator[list[Server]]:
    from tests.support import postgresql

    folder = bench.folder / f"template-{random.getrandbits(32):x}"
    template = servers.prepare(folder, postgresql.create())
    names = ("ours", "FastAPI + SQLAlchemy")
    own = {name: servers.copy(template, folder.with_name(f"{folder.name}-{i}")) for i, name in enumerate(names)}
    with contextlib.ExitStack() as stack:
        factory = "bench.peers.fastapi_sqlalchemy:build"
        yield [
            stack.enter_context(servers.ours(own["ours"])),
            stack.enter_context(servers.peer(names[1], factory, own[names[1]])),
        ]
    for installation in (template, *own.values()):
        postgresql.drop(installation.database)


def _saturate(bench: Bench, ask: Callable[[Server], load.Ask]) -> Measure:
    def measure(server: Server) -> Awaitable[Figures]:
        return load.saturate(server.port, ask(server), connections=CONNECTIONS, seconds=bench.seconds)

    return measure


def _paced(bench: Bench, ask: load.Ask) -> Measure:
    def measure(server: Server) -> Awaitable[Figures]:
        return load.pace(server.port, ask, rate=PACED_RATE, seconds=bench.seconds)

    return measure
