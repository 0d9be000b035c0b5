"""Two SIP peers that we did not write: `sipp` plays a trunk, and the agent that refers a call on it."""

import asyncio
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import patience

EXECUTABLE = shutil.which("sipp")

_SCENARIOS = Path(__file__).parent / "sip"


@dataclass(frozen=True)
class Referral:
    """What the trunk made of a REFER: whether it took it, and what it wrote down."""

    is_accepted: bool
    log: str


async def refer(folder: Path, refer_to: str, header: str, conversation_id: str) -> Referral:
    """Have a call on a loopback trunk referred to an address, with a header of ours."""
    trunk_port, agent_port = _free_port(), _free_port()
    log = folder / "trunk.log"
    common = ("-i", "127.0.0.1", "-m", "1", "-nostdin", "-timeout", "20s", "-timeout_error")
    traced = ("-trace_logs", "-log_file", str(log))
    trunk = await _start(folder, "-sf", "trunk.xml", "-p", str(trunk_port), *traced, *common)
    keys = ("-key", "refer_to", refer_to, "-key", "header", header, "-key", "conversation", conversation_id)
    called = (f"127.0.0.1:{trunk_port}", "-s", "12365550100")
    agent = await _start(folder, *called, "-sf", "agent.xml", "-p", str(agent_port), *keys, *common)
    async with patience():
        statuses = await asyncio.gather(trunk.wait(), agent.wait())
    return Referral(not any(statuses), log.read_text() if log.exists() else "")


async def _start(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    assert EXECUTABLE is not None
    named = [str(_SCENARIOS / one) if one.endswith(".xml") else one for one in arguments]
    return await asyncio.create_subprocess_exec(
        EXECUTABLE, *named, cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])
