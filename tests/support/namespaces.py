"""Two hosts with public addresses on a cable between them, as network namespaces: no packet leaves the machine.

Needs root and Debian's `iproute2`; `.ci/run` installs it.
"""

import contextlib
import functools
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_IP = shutil.which("ip") or "/usr/sbin/ip"
_numbers = itertools.count()


@functools.cache
def available() -> bool:
    """Tell whether namespaces can be made here."""
    if os.geteuid() != 0 or not Path(_IP).exists():
        return False
    try:
        with two_hosts():
            return True
    except subprocess.CalledProcessError:
        return False


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    name: str

    def ip(self, *arguments: str) -> None:
        """Run `ip` in the namespace."""
        _run("-n", self.name, *arguments)

    def write(self, path: str, value: str) -> None:
        """Set one of the namespace's switches in /proc."""
        _run("netns", "exec", self.name, "sh", "-c", f"echo {value} > {path}")

    def start(self, module: str, *arguments: str) -> "subprocess.Popen[str]":
        """Start a module of this repository in the namespace, with pipes to it."""
        command = [_IP, "netns", "exec", self.name, sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Make two hosts, each with its loopback interface up, connected by `cable` in either."""
    number = f"{os.getpid()}-{next(_numbers)}"
    hosts = Host(f"relay-{number}"), Host(f"vendor-{number}")
    try:
        for host in hosts:
            _run("netns", "add", host.name)
            host.ip("link", "set", "lo", "up")
        hosts[0].ip("link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", hosts[1].name)
        for host in hosts:
            host.ip("link", "set", "cable", "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run([_IP, "netns", "delete", host.name], check=False, capture_output=True)


def _run(*arguments: str) -> None:
    subprocess.run([_IP, *arguments], check=True, capture_output=True)
