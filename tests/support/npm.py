"""Packages of npm that tests run, installed from their lock when they are first needed."""

import fcntl
import shutil
import subprocess
from functools import cache
from pathlib import Path

EXECUTABLE = shutil.which("npm")


@cache
def install(folder: Path) -> None:
    """Install what the lock in `folder` names, unless that is there already; workers wait for each other."""
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
            return
        subprocess.run(
            ["npm", "ci", "--silent", "--no-audit", "--no-fund", "--omit=optional", "--ignore-scripts"],
            cwd=folder,
            check=True,
        )
        installed.touch()
