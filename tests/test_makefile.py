"""What `make` installs is locked."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))


def test_every_installation_is_from_a_lock_with_hashes() -> None:
    """No target takes whatever version is newest on the day it runs."""
    installed = re.findall(r"^.*\b(?:pip install|npm (?:install|ci|i))\b.*$", MAKEFILE, re.MULTILINE)
    loose = [line for line in installed if "--require-hashes" not in line and "npm ci" not in line]

    assert len(installed) >= 5
    assert loose == []


def test_every_lock_is_installed_and_can_be_made_anew() -> None:
    """A lock that nobody reads protects nobody."""
    assert set(re.findall(r"-r (requirements\S*\.lock)", MAKEFILE)) == set(LOCKS)
    assert set(re.findall(r"--output-file (requirements\S*\.lock)", MAKEFILE)) == set(LOCKS)


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_every_package_with_its_hashes(name: str) -> None:
    """And names no index, so that it can be installed from a mirror."""
    text = (ROOT / name).read_text()
    packages = re.findall(r"^[A-Za-z0-9].*$", text, re.MULTILINE)

    assert packages
    assert [line for line in packages if not re.match(r"\S+==\S+.* \\$", line)] == []
    assert text.count(" \\\n    --hash=sha256:") >= len(packages)
    assert "://" not in text


def test_help_says_how_long_a_target_takes_if_it_takes_a_while() -> None:
    """A person decides by it what to run while writing, and what before committing."""
    described = dict(re.findall(r"^([a-z-]+):.*## (.*)$", MAKEFILE, re.MULTILINE))
    lengthy = {"test", "test-quick", "test-both", "check", "fuzz", "mutants", "drill", "bench", "bench-realtime"}

    assert [name for name in sorted(lengthy) if not re.search(r"\babout (a|[a-z]+) minutes?\b", described[name])] == []
