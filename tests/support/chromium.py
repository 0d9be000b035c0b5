"""A headless Chromium, driven over its own debugging protocol; no driver package is needed for that."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support.waiting import patience

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """One page, and what it said on its console."""

    def __init__(self, connection: ClientConnection, session: str) -> None:
        self._connection = connection
        self._session = session
        self._ids = itertools.count(100)
        self.complaints: list[str] = []

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._ids)
        message = {"id": number, "sessionId": self._session, "method": method, "params": params}
        await self._connection.send(json.dumps(message))
        async with patience():
            while True:
                answer = json.loads(await self._connection.recv())
                self._note(answer)
                if answer.get("id") == number:
                    assert "error" not in answer, answer
                    return dict(answer["result"])

    async def open(self, url: str) -> None:
        """Go to `url` and wait until it is loaded."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, expression: str) -> Any:
        """Evaluate JavaScript, awaiting promises; return its value."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until `expression` is true, looking at every frame the page paints."""
        look = f"new Promise((done) => {{ (function look() {{ ({expression}) ? done() : setTimeout(look, 20) }})() }})"
        await self.run(look)

    @contextlib.asynccontextmanager
    async def behind_another(self) -> AsyncIterator[None]:
        """Put another tab in front of this one, and this one back to the front at the end."""
        other = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        await self.until("document.visibilityState === 'hidden'")
        yield
        await self.call("Target.closeTarget", targetId=other)
        await self.call("Page.bringToFront")
        await self.until("document.visibilityState === 'visible'")

    async def set_network(self, *, is_there: bool) -> None:
        """Take the page's network away, or give it back."""
        unlimited = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.call("Network.emulateNetworkConditions", offline=not is_there, **unlimited)

    async def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            text = "\r" if key == "Enter" and kind == "keyDown" else ""
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}
            await self.call("Input.dispatchKeyEvent", **event)

    async def screenshot(self) -> bytes:
        """Return what is seen, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    async def roles(self) -> set[tuple[str, str]]:
        """Return role and name of everything assistive technology is told about."""
        nodes = (await self.call("Accessibility.getFullAXTree"))["nodes"]
        return {
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
        }

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.complaints.append(message["params"]["entry"]["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(message["params"]["exceptionDetails"]))


@contextlib.asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Tab]:
    """Start Chromium with an empty profile and open one tab."""
    assert EXECUTABLE
    process = await asyncio.create_subprocess_exec(
        *(EXECUTABLE, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *(
            "--disable-background-networking",
            "--no-proxy-server",
            "--remote-debugging-port=0",
            "--window-size=900,1100",
        ),
        *(f"--user-data-dir={profile}", "about:blank"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with connect(await _address(process), proxy=None, max_size=None, ping_interval=None) as connection:
            yield await _tab(connection)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr
    async with patience():
        async for line in process.stderr:
            if b"DevTools listening on " in line:
                return line.decode().split("DevTools listening on ")[1].strip()
    raise AssertionError("Chromium did not start")


async def _tab(connection: ClientConnection) -> Tab:
    async def ask(number: int, method: str, **params: Any) -> dict[str, Any]:
        await connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(await connection.recv())).get("id") != number:
            pass
        return dict(answer["result"])

    target = (await ask(1, "Target.createTarget", url="about:blank"))["targetId"]
    session = (await ask(2, "Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
    root = Tab(connection, session)
    for domain in ("Page", "Runtime", "Log", "Accessibility", "Network"):
        await root.call(f"{domain}.enable")
    return root
