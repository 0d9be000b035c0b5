"""A copy of this repository, for tests that change what they stand on."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "clients",
    "commands",
    "openapi",
    "handlers",
    "actions",
    "keyring",
    "domain",
    "persistence",
    "providers",
    "realtime",
)

_START = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
import httpx, handlers
from domain.errors import ConfigurationError, Unauthenticated
from domain.principals import Principal, TokenKind
from openapi import document
from openapi.serving import assembly
from openapi.serving.bodies import BodyLimits
from openapi.operations import OPERATIONS
from openapi.serving.registry import find_handlers

async def authenticate(kind, token):
    if token != kind.value.replace(" ", "-"):
        raise Unauthenticated
    return Principal(kind, "org")

async def main():
    try:
        app = assembly.build(
            document.load(), None, authenticate, bindings=OPERATIONS, handlers=find_handlers(handlers, OPERATIONS),
            bodies=BodyLimits(1 << 20, 1 << 20, 1000, 1 << 22, 1 << 22))
    except ConfigurationError as error:
        sys.exit(str(error))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        response = await http.request(
            sys.argv[1], sys.argv[2], headers={"Authorization": "Bearer " + sys.argv[3]}, content=sys.argv[4])
        print(response.status_code, response.text)

asyncio.run(main())
"""


@dataclass(frozen=True)
class Run:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON it printed."""
        report: dict[str, Any] = json.loads(self.out)
        return report


@dataclass(frozen=True)
class Tree:
    """A working copy of the code, and what a person does with it."""

    root: Path

    def run(self, *arguments: str, **environment: str) -> Run:
        """Run Python with `arguments` in the tree."""
        is_ours = arguments[0] != "-m" or arguments[1].startswith("commands.")
        is_as_ever = "PYTHONHASHSEED" not in environment  # which is read when Python starts
        environment = dict(os.environ) | {"PYTHONWARNINGS": "ignore", "COLUMNS": "200"} | environment
        if is_ours and is_as_ever:
            return self._fork(arguments, environment)
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.root, env=environment, capture_output=True, text=True
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def _fork(self, arguments: Sequence[str], environment: Mapping[str, str]) -> Run:
        """Run it where all that it takes from elsewhere is loaded, which is most of its time."""
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        wanted = {"arguments": arguments, "environment": environment, "folder": str(self.root)}
        server.stdin.write(json.dumps(wanted) + "\n")
        server.stdin.flush()
        return Run(**json.loads(server.stdout.readline()))

    def contract(self, *arguments: str, **environment: str) -> Run:
        """Run what `manage.py contract …` runs, without loading the rest of the command line."""
        return self.run("-m", "commands.contract", *arguments, **environment)

    def update(self, published: dict[str, Any] | bytes, *arguments: str) -> Run:
        """Take a new document."""
        new = self.root.parent / "new.yaml"
        new.write_bytes(published if isinstance(published, bytes) else json.dumps(published).encode())
        return self.contract("update", str(new), *(arguments or ("--json",)))

    def types(self, cache: Path) -> list[str]:
        """Return what the type checker holds against the contract and the handlers."""
        done = self.run("-m", "mypy", "--cache-dir", str(cache), "--no-error-summary", "openapi", "handlers")
        return [
            line for line in done.out.splitlines() if line.startswith(("openapi/", "handlers/")) and "error:" in line
        ]

    def request(self, method: str, path: str, token: str, body: str = "") -> Run:
        """Start the application and send it one request; `out` is the status and the body."""
        run = self.run("-c", _START, method, path, token, body)
        return Run(run.code, "".join(run.out.splitlines()[-1:]), run.err)

    def files(self) -> dict[str, bytes]:
        """Return every file a contract command could touch."""
        paths = [path for room in ("openapi", "handlers") for path in sorted((self.root / room).rglob("*"))]
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in paths
            if path.is_file() and "__pycache__" not in path.parts
        }


@functools.cache
def _server() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("forked.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process


def copy_tree(root: Path) -> Tree:
    """Copy the repository's code to `root`."""
    root.mkdir(parents=True)
    for room in ROOMS:
        # With what Python made of the modules, which fits the copies as they keep their times.
        shutil.copytree(ROOT / room, root / room)
    for path in [*ROOT.glob("*.py"), ROOT / "pyproject.toml", ROOT / "VERSION"]:
        shutil.copy2(path, root / path.name)
    return Tree(root)
