"""The version of this program, as the file `VERSION` says it."""

from pathlib import Path

VERSION = (Path(__file__).parent / "VERSION").read_text().strip()
