"""What is generated is compiled and imported before anything is written."""

from pathlib import Path

import pytest

from openapi.generating import trial
from openapi.references import InvalidDocument

pytestmark = pytest.mark.processes

ROOT = Path(trial.__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"async def f(a, a): ...", r"not Python \(openapi/models\.py:1: duplicate argument"),
        (b"from openapi.exchange import Nothing", r"cannot be imported \(openapi\.models: ImportError"),
        (b"raise SystemExit(0)", r"cannot be imported \(openapi\.models: SystemExit"),
    ],
)
def test_code_that_cannot_be_imported_is_refused(text: bytes, words: str) -> None:
    """In the words of Python, and with what to do about it."""
    with pytest.raises(InvalidDocument, match=words) as caught:
        trial.insist(ROOT, {ROOT / "openapi" / "models.py": text})
    assert "in the overlay" in str(caught.value)


def test_modules_are_imported_as_they_would_be_and_not_as_they_are() -> None:
    """One of them may need what another one is about to have; the tree itself is left alone."""
    present = (ROOT / "openapi" / "models.py").read_bytes()
    trial.insist(
        ROOT,
        {
            ROOT / "openapi" / "models.py": b"NEW = 1",
            ROOT / "openapi" / "operations.py": b"from openapi.models import NEW",
            ROOT / "handlers" / "brand_new.py": b"from openapi.operations import NEW",
            ROOT / "openapi" / "openapi.yaml": b"{}",
        },
    )

    assert (ROOT / "openapi" / "models.py").read_bytes() == present


def test_module_that_people_wrote_need_not_be_importable() -> None:
    """What it needs may have gone away with this very document; the report tells it."""
    trial.insist(ROOT, {ROOT / "handlers" / "calls.py": b"from openapi.operations import Gone"})
