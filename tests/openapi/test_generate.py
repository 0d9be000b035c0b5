import ast
from pathlib import Path
from typing import Any

import pytest

from openapi.generating import generate, model_code, operation_code
from openapi.generating.generate import Plan, Report
from openapi.generating.handler_code import Stub, sites, with_stubs
from openapi.generating.handler_fit import misfits
from openapi.references import InvalidDocument, class_name, derived_id, identifier, resource
from tests.support.contracts import contract_of


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("/api/calls/ingest", "calls"),
        ("/api/webhook/elevenlabs/tools/create-note", "webhook"),
        ("/api/contact-notes/{noteId}/reaction", "contact_notes"),
        ("/v2/Things", "v2"),
        ("/{tenant}/pets", "pets"),
        ("/", "root"),
        ("/api/import", "import_"),
        ("/api/health", "health_"),
        ("/api/2fa", "n2fa"),
    ],
)
def test_handlers_live_in_the_module_of_their_resource(path: str, module: str) -> None:
    """The first word of the path, as Python writes it, and never a module that is already something else."""
    assert resource(path) == module


@pytest.mark.parametrize(
    ("name", "snake", "camel"),
    [
        ("post_calls_ingest", "post_calls_ingest", "PostCallsIngest"),
        ("listPets", "list_pets", "ListPets"),
        ("from", "from_", "From"),
        ("id", "id_", "Id"),
        ("X-Request-Id", "x_request_id", "XRequestId"),
    ],
)
def test_names_are_written_as_python_writes_them(name: str, snake: str, camel: str) -> None:
    """snake_case for what is called, CamelCase for what is a type, and no word Python already means something by."""
    assert (identifier(name), class_name(name)) == (snake, camel)


def test_missing_operation_id_is_what_tether_would_derive() -> None:
    """From METHOD and path, as Tether's own script does."""
    assert (
        derived_id("POST", "/api/webhook/elevenlabs/tools/create-note") == "post_webhook_elevenlabs_tools_create_note"
    )


def test_plan_is_carried_out_whole_or_not_at_all(tmp_path: Path) -> None:
    """A file that cannot be written puts back the ones before it, and leaves no draft behind."""
    kept, blocked, new = tmp_path / "kept.py", tmp_path / "blocked.py", tmp_path / "new.py"
    kept.write_text("before")
    (blocked / "child").mkdir(parents=True)
    plan = Plan(Report(), {kept: b"after", new: b"after", blocked: b"after"})

    with pytest.raises(OSError, match="blocked"):
        generate._carry_out(plan)

    assert kept.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocked.py", "kept.py"]


def test_permissions_of_a_file_survive(tmp_path: Path) -> None:
    """Generating changes what is in a file, not who may read it."""
    path = tmp_path / "models.py"
    path.touch(mode=0o600)
    generate._carry_out(Plan(Report(), {path: b"after"}))

    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"after", 0o600)


def test_stub_brings_only_the_imports_that_are_missing(tmp_path: Path) -> None:
    """And stands behind every byte that was there."""
    path = tmp_path / "pets.py"
    present = '"""Pets."""\n\nfrom actions.relay import Relay\nfrom openapi import operations\n\nX = 1  # mine\n\n'
    path.write_text(present)
    text = with_stubs(path, [Stub("pets.get_pets", [("limit", "int | None")], "operations.GetPetsAnswer", "List pets")])

    assert text == present + (
        "\n\nfrom openapi import exchange  # noqa: E402\n"
        "\n\nasync def get_pets(request: exchange.Request[Relay], *, limit: int | None) -> operations.GetPetsAnswer:\n"
        '    """List pets."""\n'
        "    del request, limit\n"
        "    raise exchange.NotWritten\n"
    )


def test_sites_are_found_and_stubs_recognised(tmp_path: Path) -> None:
    """By reading the source: it need not be importable."""
    (tmp_path / "pets.py").write_text(
        "import nowhere\n"
        "async def get_pets(request): return 1\n"
        "async def get_pet(request):\n    raise exchange.NotWritten\n"
        "async def put_pet(request):\n    raise NotWritten()\n"
        "async def post_pet(request):\n    if request.id:\n        return 1\n    raise exchange.NotWritten\n"
        "async def _own(request): ...\n"
        "async def other(connection): ...\n"
        "def sync(request): ...\n"
    )
    found = sites(tmp_path)

    assert {name: (site.line, site.is_stub) for name, site in found.items()} == {
        "pets.get_pets": (2, False),
        "pets.get_pet": (3, True),
        "pets.put_pet": (5, True),
        "pets.post_pet": (7, False),
    }


@pytest.mark.parametrize(
    ("signature", "misfit"),
    [
        ("request", ["must take locale: str | None"]),
        ("request, *, locale: str", ["must take locale: str | None"]),
        ("request, *, locale: int | None", ["must take locale: str | None"]),
        ("request, locale, /", ["must take locale by keyword"]),
        (
            "request, *, locale: str | None, page: int",
            ["must not require page, which its operation does not have"],
        ),
        ("request, *, locale: str | None", []),
        ("request, *, locale: None | int | str, page: int = 1", []),
        ("request, *, locale: Any", []),
        ("request, *, locale", []),
        ("request, *, locale: Locale", []),
        ("request, **arguments", []),
    ],
)
def test_handler_is_told_what_it_must_take(tmp_path: Path, signature: str, misfit: list[str]) -> None:
    """By its source text; a type in words of its own is left to the type checker."""
    (tmp_path / "pets.py").write_text(f"async def get_pets({signature}): ...\n")
    (site,) = sites(tmp_path).values()

    assert list(misfits(site, [("locale", "str | None")])) == misfit


@pytest.mark.parametrize(("given", "fits"), [('Literal["a", "b"]', True), ('Literal["a"]', False), ("str", True)])
def test_handler_must_take_every_word_of_a_parameter(tmp_path: Path, given: str, fits: bool) -> None:
    """A new word in an enumeration is one the handler has never seen."""
    (tmp_path / "pets.py").write_text(f"async def get_pets(request, *, kind: {given}): ...\n")
    (site,) = sites(tmp_path).values()

    assert (list(misfits(site, [("kind", 'Literal["a", "b"]')])) == []) == fits


def test_handler_module_that_is_not_python_is_named(tmp_path: Path) -> None:
    """Before anything is written."""
    (tmp_path / "pets.py").write_text("async def (")

    with pytest.raises(InvalidDocument, match=r"pets\.py is not Python"):
        sites(tmp_path)


def paths(*operation_ids: str) -> dict[str, Any]:
    return {
        f"/api/p{number}": {"get": {"operationId": name, "responses": {"200": {"description": "ok"}}}}
        for number, name in enumerate(operation_ids)
    }


def test_operations_that_would_share_a_type_name_are_refused() -> None:
    """One of them has to be renamed, and the message says which two."""
    contract = contract_of(paths("get_a", "get__a"))

    with pytest.raises(InvalidDocument, match=r"GET /api/p0 and GET /api/p1 would share the name GetA"):
        operation_code.render_operations(contract, {}, {"GET /api/p0": "p0.get_a", "GET /api/p1": "p1.get__a"})


def test_schemas_that_would_share_a_class_are_refused() -> None:
    """Two models cannot have one name."""
    contract = contract_of(paths("get_a"), schemas={"pet-shop": {"type": "object"}, "PetShop": {"type": "object"}})

    with pytest.raises(InvalidDocument, match=r"PetShop, pet-shop|pet-shop, PetShop"):
        model_code.render(contract)


def test_texts_of_the_document_cannot_break_out_of_the_code() -> None:
    """A description is a docstring, whatever quotes and backslashes it holds."""
    nasty = 'Ends here.""" + __import__("os").abort() + """ \\ \\" \\N{x}'
    definition = paths("get_a")
    definition["/api/p0"]["get"] |= {"summary": nasty}
    definition["/api/p0"]["get"]["responses"]["200"] |= {"description": nasty}
    schema = {"type": "object", "description": nasty, "properties": {"a": {"type": "string", "description": nasty}}}
    contract = contract_of(definition, schemas={"Thing": schema})
    texts = [
        model_code.render(contract).text,
        operation_code.render_operations(contract, {}, {"GET /api/p0": "p0.get_a"}),
    ]

    for text in texts:
        called = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        assert [name for name in called if isinstance(name, ast.Name) and name.id == "__import__"] == []
