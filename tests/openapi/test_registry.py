import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

import handlers as handlers_of_ours
from domain.errors import ConfigurationError
from openapi import models
from openapi.exchange import Binding, Bindings, Request
from openapi.operations import OPERATIONS
from openapi.serving.registry import find_handlers
from tests.support.contract import CONTRACT
from tests.support.contracts import Answered, Lab, bindings_of, build, contract_of

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
    parameters = {"pets.get_pets": {("query", "limit"): "limit"}}
    return Bindings("", {f"GET /{name}": Binding(name, None, parameters.get(name, {}), ()) for name in names})


def test_every_operation_of_ours_has_its_handler() -> None:
    """And there is no handler without an operation."""
    found = find_handlers(handlers_of_ours, OPERATIONS)

    assert list(found) == [operation.key for operation in CONTRACT.operations]


def test_handlers_are_public_coroutines_that_take_a_request(package: ModuleType) -> None:
    """Everything else in a module is its own business."""
    found = find_handlers(package, bindings("pets.get_pets", "pets.get_pet"))

    assert [handler.__name__ for handler in found.values()] == ["get_pets", "get_pet"]


def test_missing_and_surplus_handlers_are_listed_together(package: ModuleType) -> None:
    """With the operation, or with file and line."""
    with pytest.raises(ConfigurationError) as caught:
        find_handlers(package, bindings("pets.get_pets", "pets.delete_pet"))
    message = str(caught.value)

    assert "make generate" in message
    assert "GET /pets.delete_pet has no handler some_handlers.pets.delete_pet" in message
    assert re.search(r"pets\.py:7 pets\.get_pet handles no operation", message)


@pytest.mark.parametrize(
    ("signature", "misfit"),
    [
        ("request", "must take limit"),
        ("request, *, limits", "must take limit"),
        ("request, limit, /, **others", "must not require limit"),
        ("request, *, limit, locale", "must not require locale"),
        ("request, *, limit, body", "must not require body"),
        ("request, *, limit", ""),
        ("request, limit=1, *, locale=None", ""),
        ("request, **everything", ""),
    ],
)
def test_handler_that_cannot_be_called_stops_the_server(package: ModuleType, signature: str, misfit: str) -> None:
    """Each is told with its file, its line and what it must take; types are the type checker's business."""
    folder = Path(str(package.__file__)).parent
    (folder / "pets.py").write_text(f"\nasync def get_pets({signature}): ...\n")
    if not misfit:
        assert list(find_handlers(package, bindings("pets.get_pets"))) == ["GET /pets.get_pets"]
        return

    with pytest.raises(ConfigurationError, match=rf"pets\.py:2 pets\.get_pets {misfit}\n?"):
        find_handlers(package, bindings("pets.get_pets"))


def test_handler_of_another_body_stops_the_server(package: ModuleType) -> None:
    """A model that went by another name would fail at the first request."""
    folder = Path(str(package.__file__)).parent
    (folder / "toys.py").write_text(
        "from openapi import models\n"
        "async def one(request, *, body: models.ElevenLabsTransferRequest): ...\n"
        "async def two(request, *, body: models.ElevenLabsTransferRequest | None): ...\n"
    )
    table = {
        f"POST /{name}": Binding(f"toys.{name}", body, {}, ())
        for name, body in (("one", models.ElevenLabsSendSmsRequest), ("two", models.ElevenLabsTransferRequest))
    }

    with pytest.raises(ConfigurationError) as caught:
        find_handlers(package, Bindings("", {**bindings("pets.get_pets", "pets.get_pet").operations, **table}))
    assert "toys.py:2 toys.one must take a body of the type ElevenLabsSendSmsRequest" in str(caught.value)
    assert "toys.two" not in str(caught.value)


def test_module_that_cannot_be_imported_is_named(package: ModuleType) -> None:
    """A handler that needs types which went away is told from a crash."""
    (Path(str(package.__file__)).parent / "toys.py").write_text(TOYS)

    with pytest.raises(ConfigurationError, match=r"some_handlers\.toys: No module named 'missing_types'"):
        find_handlers(package, bindings("pets.get_pets", "pets.get_pet"))


def test_types_of_another_document_stop_the_server() -> None:
    """What was generated must have been generated from what is served."""
    with pytest.raises(ConfigurationError, match="make generate"):
        build(CONTRACT, Lab(), {}, Bindings("another", OPERATIONS.operations))


@pytest.mark.parametrize(("public", "status"), [({}, 401), ({"x-public": "Everybody may look."}, 200)])
async def test_open_operation_is_closed_until_its_document_says_why(public: dict[str, str], status: int) -> None:
    """A new document that forgets the security of an operation opens it to nobody, not even with a good token."""

    async def see(request: Request[Lab]) -> Answered:
        return Answered({})

    contract = contract_of({"/api/x": {"get": {"responses": {"200": {"description": "ok"}}} | public}})
    app = build(contract, Lab(), {"GET /api/x": see}, bindings_of(contract))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://relay") as http:
        headers: list[dict[str, str]] = [{}, {"Authorization": "Bearer jwt-of-org-1"}]
        assert [(await http.get("/api/x", headers=given)).status_code for given in headers] == [status, status]


def test_nothing_happens_until_the_application_is_called() -> None:
    """Building opens nothing and connects to nothing; a mistake in the contract is found by it all the same."""
    contract = contract_of({"/api/x": {"get": {"responses": {"200": {"description": "ok"}}, "x-public": "a test"}}})
    handlers = {"GET /api/x": find_handlers(handlers_of_ours, OPERATIONS)["GET /api/calls/voice-ai/config"]}
    app = build(contract, Lab(), handlers, bindings_of(contract))

    assert app.middleware_stack is None
