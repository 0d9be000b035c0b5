"""Connections and descriptors of a real `manage.py serve`."""

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from tests.support.processes import Running, accepts, environment, run, running
from tests.support.waiting import patience
from tests.support.wire import Wire, exchange, request, wire

HEALTH = request("GET", "/healthz")


def limits_of(process: Running) -> list[str]:
    """Return the soft and the hard limit of its descriptors."""
    lines = Path(f"/proc/{process.process.pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max open files")).split()[3:5]


@pytest.mark.parametrize(("command", "port"), [("serve", "API_PORT"), ("broadcast", "REALTIME_PORT")])
def test_the_limit_of_descriptors_is_raised_to_the_hard_one(tmp_path: Path, command: str, port: str) -> None:
    """What a shell or a unit file gives a process to begin with does not decide how many clients it can serve."""
    env = environment(tmp_path)
    assert run("migrate", env=env, folder=tmp_path).returncode == 0
    with running(command, env=env, folder=tmp_path, descriptors=(256, 5000)) as process:
        process.until(lambda: accepts(env[port]))

        assert limits_of(process) == ["5000", "5000"]


async def test_connections_are_refused_at_the_limit_and_the_others_are_served(tmp_path: Path) -> None:
    """With a word and at once; and there is room again when one of them ends."""
    env = environment(tmp_path, max_connections=5, request_head_seconds=600)
    assert run("migrate", env=env, folder=tmp_path).returncode == 0
    url = f"http://127.0.0.1:{env['API_PORT']}"
    with running("serve", env=env, folder=tmp_path) as process:
        process.until(lambda: accepts(env["API_PORT"]))
        async with contextlib.AsyncExitStack() as stack, patience():
            lines: list[Wire] = []
            while len(lines) < 5:
                line = await stack.enter_async_context(wire(url))
                await line.send(HEALTH)
                # A connection of the look at its port may still be on its way out.
                if (await line.answer()).status == 200:
                    lines.append(line)
            refused = await exchange(url, HEALTH)
            assert (refused.status, refused.header("retry-after")) == (503, "5")
            for line in lines:
                await line.send(HEALTH)
                assert (await line.answer()).status == 200
            await lines[0].send(request("GET", "/metrics"))
            metrics = (await lines[0].answer()).body.decode()
            assert "relay_connections 5.0\n" in metrics
            (count,) = re.findall(r'^relay_connections_refused_total\{limit="all"\} (\S+)$', metrics, re.MULTILINE)
            assert float(count) >= 1

            lines[0].abort()
            while (await exchange(url, HEALTH)).status != 200:  # noqa: ASYNC110 - the server has no event to wait for
                await asyncio.sleep(0.01)


def test_the_limit_of_connections_follows_the_descriptors(tmp_path: Path) -> None:
    """What cannot be opened is not promised: a quarter is left for the database, files and downloads."""
    env = environment(tmp_path, log_format="json")
    assert run("migrate", env=env, folder=tmp_path).returncode == 0
    with running("serve", env=env, folder=tmp_path, descriptors=(400, 400)) as process:
        process.until(lambda: accepts(env["API_PORT"]))

        assert '"connections":300' in process.errors.replace(" ", "")
