"""The README, followed to the letter."""

import asyncio
import json
import re
from pathlib import Path

from tests.support.up import ROOT, environment, running_up

SECTION = (ROOT / "README.md").read_text().partition("## The five operations\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)


async def test_every_operation_answers_as_the_readme_shows(tmp_path: Path) -> None:
    """Its curl commands, pasted into a shell, succeed; only the folder is another one."""
    env = environment(tmp_path / "var")
    commands = [block for block in BLOCKS if block.startswith("curl")]
    async with running_up(env) as running:
        answers = []
        for command in commands:
            script = f". {running.data_dir}/demo.env\n{command}"
            process = await asyncio.create_subprocess_exec("sh", "-c", script, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
            printed, _ = await process.communicate()
            answers.append(json.loads(printed))

    assert len(commands) == 5
    note, text, transfer, call, config = answers
    assert note["success"] is True
    assert text == {"success": True, "message": "SMS sent"}
    assert transfer["message"].startswith("Transfer is not yet implemented")
    assert len(call["callId"]) == 24
    assert len(config["elevenlabsToolSecret"]) == 64


def test_the_readme_reads_the_file_that_make_run_writes() -> None:
    """The examples begin with it."""
    assert ". var/demo.env\n" in BLOCKS
