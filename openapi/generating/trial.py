"""What is about to be written, compiled and imported before anything is written.

Names that are distinct in a document can become one in Python, and a schema may be called what a module already is.
Whatever the reason, code that cannot be imported is never written. It is imported in a process of its own, from a
folder of its own that stands in front of the tree.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from openapi.references import InvalidDocument

_IMPORT = """
import importlib, importlib.util, sys, warnings
warnings.simplefilter("ignore")
trial, names = sys.argv[1], sys.argv[2:]

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in names:
            return importlib.util.spec_from_file_location(name, f"{trial}/{name}.py")

sys.meta_path.insert(0, Finder)
for name in names:
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(f"{name}: {type(error).__name__}: {error}"[:500].replace("\\n", " "), file=sys.stderr)
        sys.exit(1)
"""


def insist(root: Path, files: Mapping[Path, bytes]) -> None:
    """Insist that the Python among `files`, which belong into the tree at `root`, can be imported there.

    Hand-written modules that a stub is added to are compiled only: what they need may have gone away with this very
    document, and is told by the report.

    Raises:
        InvalidDocument: when a file cannot be compiled, or imported.
    """
    modules = {".".join(path.relative_to(root).with_suffix("").parts): path for path in files if path.suffix == ".py"}
    for path in modules.values():
        _insist_on_python(path.relative_to(root), files[path])
    # `coverage.py` imports nothing: it is there for the type checker.
    new = {name: path for name, path in modules.items() if name.startswith("openapi.") or not path.exists()}
    if new:
        _insist_on_import(root, {name: files[path] for name, path in new.items()})


def _insist_on_python(path: Path, text: bytes) -> None:
    try:
        compile(text, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        place = f"{path}:{getattr(error, 'lineno', 1)}"
        raise InvalidDocument(
            f"What would be generated is not Python ({place}: {error}); rename what is named there in the overlay."
        ) from error


def _insist_on_import(root: Path, texts: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            Path(folder, f"{name}.py").write_bytes(text)
        try:
            subprocess.check_output(  # noqa: S603 - our own interpreter and our own words
                [sys.executable, "-c", _IMPORT, folder, *texts], cwd=root, stderr=subprocess.STDOUT, text=True
            )
        except subprocess.CalledProcessError as error:
            reason = str(error.output).strip().splitlines() or [f"it ended with {error.returncode}"]
            raise InvalidDocument(
                f"What would be generated cannot be imported ({reason[-1]}); rename what is named there in the overlay."
            ) from error
