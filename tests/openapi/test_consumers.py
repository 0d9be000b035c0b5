"""What generators make of the served document: clients that see what the page says, and call the running server.

The three that most people use. What does not fit the page must not compile: each program says so of some calls, and
the compiler and the type checker insist that they are right.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from openapi import document
from tests.support import npm
from tests.support.api import Api, running_api

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_scope="module")]

TOOLS = Path(__file__).with_name("consumers")
PROGRAM = "by_openapi_python_client.py"


def run(*command: str, cwd: Path) -> tuple[int, str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the served document and the programs that call it."""
    folder = tmp_path_factory.mktemp("consumers")
    (folder / "served.json").write_text(json.dumps(document.load().served))
    for program in TOOLS.glob("by_*"):
        shutil.copy(program, folder)
    return folder


@pytest.fixture(scope="module")
def typescript(folder: Path) -> Path:
    """The folder with what the two generators of TypeScript made, and the compiler's options."""
    npm.install(TOOLS)
    (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    subprocess.run(["node", "generate.mjs", str(folder)], cwd=TOOLS, check=True)
    options = {
        "strict": True,
        "skipLibCheck": True,
        "target": "es2022",
        "lib": ["es2022", "dom", "dom.iterable"],
        "module": "commonjs",
        "moduleResolution": "node10",
        "types": [],
        "outDir": "made",
    }
    shape = {"compilerOptions": options, "files": ["by_openapi_fetch.ts", "by_hey_api.ts", "process.d.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(shape))
    (folder / "process.d.ts").write_text("declare const process: { env: Record<string, string | undefined> };\n")
    return folder


@pytest.fixture(scope="module")
def python(folder: Path) -> Path:
    """The folder with the package that openapi-python-client made, its formatter left out."""
    (folder / "config.yml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "served.json", "--meta", "none"]
    package = "tether_relay_and_tether_api_client"
    subprocess.run(
        [*command, "--config", "config.yml", "--output-path", package], cwd=folder, check=True, capture_output=True
    )
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with running_api(tmp_path_factory.mktemp("consumed")) as running:
        yield running


async def told_by(api: Api, folder: Path, *command: str) -> dict[str, Any]:
    """Run one of the programs against the server and return what it tells."""
    own = {
        "RELAY_URL": api.url,
        "RELAY_JWT": api.superadmin_token,
        "RELAY_API_KEY": api.demo.api_key.get_secret_value(),
        "RELAY_TOOL_SECRET": api.demo.tool_secret.get_secret_value(),
    }
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(*command, cwd=folder, env=os.environ | own, stdout=pipe, stderr=pipe)
    said, complained = await running.communicate()
    assert running.returncode == 0, complained.decode()
    told: dict[str, Any] = json.loads(said)
    return told


def assert_all_five_answered(told: dict[str, Any]) -> None:
    assert told["answers"] == [201, 200, 200, 200, 200]
    assert (len(told["callId"]), len(told["noteId"]), told["texted"]) == (24, 24, True)
    assert told["saved"] == "Configuration saved"


async def test_typescript_clients_are_typed_and_reach_all_five(api: Api, typescript: Path) -> None:
    """Of openapi-typescript and of hey-api, under `--strict`; `body: 42` does not compile."""
    tsc = str(typescript / "node_modules" / "typescript" / "bin" / "tsc")
    compiled = await asyncio.to_thread(run, "node", tsc, "--project", ".", cwd=typescript)

    assert compiled == (0, "")
    for program in ("by_openapi_fetch", "by_hey_api"):
        assert_all_five_answered(await told_by(api, typescript, "node", f"made/{program}.js"))


async def test_python_client_is_typed_and_reaches_all_five(api: Api, python: Path) -> None:
    """Of openapi-python-client, under `mypy --strict`; no field is lost."""
    command = (sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--no-error-summary")
    checked = await asyncio.to_thread(run, *command, "--cache-dir", "types", PROGRAM, cwd=python)

    assert checked == (0, "")
    assert_all_five_answered(await told_by(api, python, sys.executable, PROGRAM))
