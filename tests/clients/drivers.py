"""The clients, driven alike: in Node with either WebSocket, and in Python."""

import asyncio
import contextlib
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from clients.python.tether_relay_client import OptionError, Stopped, follow, line
from tests.support import npm
from tests.support.waiting import patience

RUN = Path(__file__).with_name("npm") / "run.mjs"
KINDS = ("ws", "builtin", "python")


class Client(Protocol):
    """A follow that runs, and what it says."""

    heard: list[int]

    async def next(self, *kinds: str) -> dict[str, Any]:
        """Return the next thing said that is one of `kinds` (anything, if none are given)."""
        ...

    async def until(self, sequence: int) -> list[int]:
        """Return the sequences of the next events, up to that one."""
        ...

    async def place(self) -> tuple[int | None, str | None]:
        """Return where it stands."""
        ...

    async def skew(self, seconds: float) -> None:
        """Move its clock on."""
        ...

    async def stop(self) -> int:
        """Stop it; return the exit status of its process."""
        ...


class _Saying:
    def __init__(self) -> None:
        self.heard: list[int] = []

    async def _said(self) -> dict[str, Any] | None:
        raise NotImplementedError

    async def next(self, *kinds: str) -> dict[str, Any]:
        async with patience():
            while said := await self._said():
                if said["kind"] == "event":
                    self.heard.append(said["seq"])
                if not kinds or said["kind"] in kinds:
                    return said
        raise AssertionError("the client is gone")

    async def until(self, sequence: int) -> list[int]:
        got: list[int] = []
        while not got or got[-1] < sequence:
            got.append((await self.next("event"))["seq"])
        return got


class NodeClient(_Saying):
    """The client in JavaScript, in a Node process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        assert process.stdout
        assert process.stdin
        self._process, self._lines, self._commands = process, process.stdout, process.stdin

    async def _said(self) -> dict[str, Any] | None:
        said = await self._lines.readline()
        return json.loads(said) if said else None

    async def place(self) -> tuple[int | None, str | None]:
        self._commands.write(b"place\n")
        said = await self.next("place")
        return said["since"], said["epoch"]

    async def skew(self, seconds: float) -> None:
        self._commands.write(f"skew {seconds}\n".encode())
        await self.place()

    async def stop(self) -> int:
        self._commands.write(b"stop\n")
        async with patience():
            return await self._process.wait()


class PythonClient(_Saying):
    """The client in Python, in this process."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._stops_at, self._pause = options.pop("stopsAt", None), options.pop("pause", 0)
        self._throws_at, self._throws_at_gap = options.pop("throwsAt", None), options.pop("throwsAtGap", False)
        self._tokens = options.pop("tokens", None)
        if self._tokens is not None:
            options["token"] = self._token
        self._given = {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in options.items()}
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        callbacks = {"on_gap": self._gap, "on_state": self._state, "on_error": lambda told: self._say("error", told)}
        try:
            self._following = follow(**callbacks | self._given)
        except (OptionError, TypeError) as error:
            self._say("thrown", {"message": str(error)})
            return
        with contextlib.suppress(Stopped, Failed):
            async with self._following as events:
                async for event in events:
                    self._say("event", {"seq": event["seq"], "name": event["event"]})
                    await asyncio.sleep(self._pause)
                    if event["seq"] == self._throws_at:
                        raise Failed
        self._queue.put_nowait(None)

    def _say(self, kind: str, detail: Any) -> None:
        self._queue.put_nowait({"kind": kind, **detail})

    async def _token(self) -> str:
        self._say("token", {})
        token = self._tokens.pop(0) if self._tokens else None
        if token is None:
            await asyncio.Event().wait()
        return str(token)

    async def _gap(self, gap: Any) -> None:
        self._say("gap", gap)
        if self._throws_at_gap:
            raise Failed

    def _state(self, name: str, detail: Any) -> None:
        self._say(name, {"detail": detail})
        if name == self._stops_at:
            asyncio.get_running_loop().call_soon(self._task.cancel)

    async def _said(self) -> dict[str, Any] | None:
        return await self._queue.get()

    async def place(self) -> tuple[int | None, str | None]:
        return self._following.since, self._following.epoch

    async def skew(self, seconds: float) -> None:
        clock = time.monotonic

        def ahead() -> float:
            return clock() + seconds

        mock.patch.object(time, "monotonic", ahead).start()

    async def stop(self) -> int:
        self._task.cancel()
        async with patience():
            await asyncio.gather(self._task, return_exceptions=True)
        return int(not self._task.cancelled() and self._task.exception() is not None)


class Failed(Exception):
    """What a handler of a test throws."""


Start = Callable[..., contextlib.AbstractAsyncContextManager[Client]]


def starter(kind: str) -> Start:
    """Return what starts a client of that kind; options are those of the JavaScript client, and those of `run.mjs`."""
    return _python if kind == "python" else lambda **options: _node(kind, options)


@contextlib.asynccontextmanager
async def _node(kind: str, options: dict[str, Any]) -> AsyncIterator[Client]:
    if kind == "ws":
        npm.install(RUN.parent)
    process = await asyncio.create_subprocess_exec(
        *("node", "--experimental-websocket", "--no-warnings", str(RUN), json.dumps({"socket": kind, **options})),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield NodeClient(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _python(**options: Any) -> AsyncIterator[Client]:
    with contextlib.ExitStack() as patched:
        if (chance := options.pop("chance", None)) is not None:
            patched.enter_context(
                mock.patch.object(random, "uniform", lambda least, most: least + chance * (most - least))
            )
        if options.pop("hasten", False):
            patched.enter_context(mock.patch.object(line, "_PROBE_SECONDS", 0.05))
        patched.callback(mock.patch.stopall)
        client = PythonClient(options)
        try:
            yield client
        finally:
            await client.stop()
