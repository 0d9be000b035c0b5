import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import handlers as handlers_of_ours
from domain.errors import ConfigurationError
from openapi import document
from openapi.exchange import Binding, Bindings
from openapi.operations import OPERATIONS
from openapi.serving import assembly
from openapi.serving.registry import find_handlers, is_stub
from tests.support.contracts import Lab, bindings_of, build, contract_of

PETS = """
from openapi import exchange

async def get_pets(request, *, limit):
    return None

async def get_pet(request):
    raise exchange.NotWritten

async def helper(other): ...
async def _hidden(request): ...
def plain(request): ...
"""
TOYS = "from missing_types import Toy\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    folder = tmp_path / "some_handlers"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "pets.py").write_text(PETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("some_handlers")
    for name in [name for name in sys.modules if name.startswith("some_handlers")]:
        del sys.modules[name]


def bindings(*names: str) -> Bindings:
    return Bindings("", {f"GET /{name}": Binding(name, None, {}, ()) for name in names})


def test_every_operation_of_ours_has_its_handler() -> None:
    """And there is no handler without an operation."""
    found = find_handlers(handlers_of_ours, OPERATIONS)

    assert list(found) == [operation.key for operation in document.load().operations]


def test_handlers_are_public_coroutines_that_take_a_request(package: ModuleType) -> None:
    """Everything else in a module is its own business."""
    found = find_handlers(package, bindings("pets.get_pets", "pets.get_pet"))

    assert [handler.__name__ for handler in found.values()] == ["get_pets", "get_pet"]
    assert [is_stub(handler) for handler in found.values()] == [False, True]


def test_missing_and_surplus_handlers_are_listed_together(package: ModuleType) -> None:
    """With the operation, or with file and line."""
    with pytest.raises(ConfigurationError) as caught:
        find_handlers(package, bindings("pets.get_pets", "pets.delete_pet"))
    message = str(caught.value)

    assert "make generate" in message
    assert "GET /pets.delete_pet has no handler some_handlers.pets.delete_pet" in message
    assert re.search(r"pets\.py:7 pets\.get_pet handles no operation", message)


def test_module_that_cannot_be_imported_is_named(package: ModuleType) -> None:
    """A handler that needs types which went away is told from a crash."""
    (Path(str(package.__file__)).parent / "toys.py").write_text(TOYS)

    with pytest.raises(ConfigurationError, match=r"some_handlers\.toys: No module named 'missing_types'"):
        find_handlers(package, bindings("pets.get_pets", "pets.get_pet"))


def test_types_of_another_document_stop_the_server() -> None:
    """What was generated must have been generated from what is served."""
    with pytest.raises(ConfigurationError, match="make generate"):
        build(document.load(), Lab(), {}, Bindings("another", OPERATIONS.operations))


def test_nothing_happens_until_the_application_is_called() -> None:
    """Building opens nothing and connects to nothing; a mistake in the contract is found by it all the same."""
    contract = contract_of({"/api/x": {"get": {"responses": {"200": {"description": "ok"}}, "x-public": "a test"}}})
    handlers = {"GET /api/x": find_handlers(handlers_of_ours, OPERATIONS)["GET /api/calls/voice-ai/config"]}
    app = assembly.build(contract, None, Lab().authenticate, bindings=bindings_of(contract), handlers=handlers)

    assert app.middleware_stack is None
