"""What other people's generators of types make of `events.yaml`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import npm

pytestmark = pytest.mark.processes

GENERATORS = Path(__file__).with_name("generators")
TYPESCRIPT = Path(__file__).parents[1] / "clients" / "npm"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what Modelina wrote."""
    folder = tmp_path_factory.mktemp("modelina")
    npm.install(GENERATORS)
    subprocess.run(["node", "generate.mjs", str(folder)], cwd=GENERATORS, check=True)
    return folder


@pytest.mark.parametrize("file", ["models.ts", "models.py"])
def test_every_schema_has_a_name(models: Path, file: str) -> None:
    """No generator has to invent one, and the payload of an event is called after it."""
    written = (models / file).read_text()

    assert "anonymous" not in written.lower()
    for name in ("CallEnded", "CallEndedData", "NoteSource", "GapReason", "Hello"):
        assert f" {name}" in written


def test_the_typescript_compiles(models: Path) -> None:
    """Under `--strict`."""
    npm.install(TYPESCRIPT)
    tsc = TYPESCRIPT / "node_modules" / ".bin" / "tsc"
    command = [str(tsc), "--strict", "--noEmit", "--target", "es2022", "--lib", "es2022", str(models / "models.ts")]
    done = subprocess.run(command, cwd=TYPESCRIPT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_python_runs(models: Path) -> None:
    """It is a module, and an event can be made of what the document shows."""
    program = (
        "from models import Gap, GapReason\n"
        "gap = Gap({'epoch': 'e', 'since': 12, 'oldest': 30, 'reason': 'pruned'})\n"
        "assert gap.oldest == 30 and gap.reason is GapReason.PRUNED, gap\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=models, check=True)
