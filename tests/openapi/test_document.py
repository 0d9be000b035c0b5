import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_schema_validator import OAS30Validator, oas30_format_checker
from openapi_spec_validator import validate as validate_document
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError
from referencing.exceptions import Unresolvable

from openapi import document
from openapi.document import Contract, Operation, assemble, load
from openapi.generating import promises
from openapi.references import Document, InvalidDocument, follow
from openapi.schemas import Direction, Schemas
from tests.support.samples import sample

PUBLISHED_SHA256 = "e1228034bc85dd22a38f9ec6c5c1dd64b33057fa2bed40e611b7b789751bb03a"

PETS = b"""
openapi: 3.0.3
info: {title: Pets, version: 1.0.0}
paths:
  /api/pets:
    get:
      operationId: get_pets
      tags: [a]
      responses:
        '200': {description: Pets}
  /api/pets/{petId}:
    get:
      operationId: get_pet
      parameters:
        - {name: petId, in: path, required: true, schema: {type: string}}
      responses:
        '200': {description: A pet}
"""


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load()


def overlay(*actions: dict[str, Any]) -> bytes:
    given = [{"description": "because"} | action for action in actions]
    return json.dumps({"overlay": "1.0.0", "info": {"title": "o", "version": "1"}, "actions": given}).encode()


def served(*actions: dict[str, Any]) -> Document:
    return assemble(PETS, overlay(*actions)).served


def complaint(published: bytes, actions: bytes | None = None) -> str:
    with pytest.raises(InvalidDocument) as caught:
        assemble(published, overlay() if actions is None else actions)
    return str(caught.value)


# The published document


def test_published_document_is_byte_for_byte_the_published_one() -> None:
    """Nobody edits what Tether publishes."""
    assert hashlib.sha256(document.PUBLISHED.read_bytes()).hexdigest() == PUBLISHED_SHA256


def test_published_document_reads_as_others_read_it(contract: Contract) -> None:
    """Our reader of YAML makes the same of the published document as PyYAML."""
    assert contract.published == yaml.safe_load(document.PUBLISHED.read_text())


def test_both_documents_are_valid_openapi(contract: Contract) -> None:
    """The published and the served document pass openapi-spec-validator."""
    validate_document(contract.published)
    validate_document(contract.served)


def test_everything_published_is_served(contract: Contract) -> None:
    """The overlay adds and narrows: nothing published is lost, replaced, said twice or promised less of."""
    assert [*promises.broken(contract), *promises.unanswered(contract)] == []


def test_every_operation_asks_for_its_own_kind_of_token(contract: Contract) -> None:
    """Ingest wants an API key, the tools the tool secret, the configuration a JWT; what is open says why."""
    kinds = {
        operation.key: (operation.token_kinds, [name for one in operation.security for name in one])
        for operation in contract.operations
        if operation.path in contract.published["paths"]
    }
    tool = (["tool secret"], ["bearerAuth"])

    assert [operation.key for operation in contract.operations if operation.is_open and not operation.is_public] == []

    assert (
        kinds.items()
        >= {
            "POST /api/calls/ingest": (["API key"], ["bearerAuth"]),
            "POST /api/calls/voice-ai/config": (None, ["bearerAuth"]),
            "POST /api/webhook/elevenlabs": (["tool secret"], ["bearerAuth", "elevenLabsSignature"]),
            "POST /api/webhook/elevenlabs/personalization": tool,
            "POST /api/webhook/elevenlabs/tools/check-availability": tool,
            "POST /api/webhook/elevenlabs/tools/check-business-hours": tool,
            "POST /api/webhook/elevenlabs/tools/create-note": tool,
            "POST /api/webhook/elevenlabs/tools/send-sms": tool,
            "POST /api/webhook/elevenlabs/tools/transfer": tool,
            "POST /api/webhook/elevenlabs/tools/update-contact": tool,
        }.items()
    )


def examples(node: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(node, dict):
        if "example" in node and "properties" in node:
            yield place, node, node["example"]
        for key, value in node.items():
            yield from examples(value, f"{place}/{key}")


def all_examples() -> list[Any]:
    contract = load()
    found = [*examples(contract.published), *examples(contract.served)]
    return [pytest.param(contract, schema, example, id=place.rpartition("/")[2]) for place, schema, example in found]


@pytest.mark.parametrize(("contract", "schema", "example"), all_examples())
def test_every_example_is_valid(contract: Contract, schema: Document, example: Any) -> None:
    """Each example of both documents is valid to our validators and to OpenAPI's own, travelling either way."""
    ways: tuple[Direction, ...] = ("request", "response")
    ours = [Schemas(contract.served).compile(schema, way).is_valid(example) for way in ways]
    resolved = {**schema, "components": contract.served["components"]}

    assert ours == [True, True]
    assert list(OAS30Validator(resolved, format_checker=oas30_format_checker).iter_errors(example)) == []


def texts(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, str):
        yield place
    for key, child in children:
        yield from texts(child, (*place, key))


def with_nul(value: Any, place: tuple[str | int, ...]) -> Any:
    changed = copy.deepcopy(value)
    node = changed
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] += "\0"
    return changed


BODIES = [one for one in load().operations if one.body_schema is not None]


@pytest.mark.parametrize("operation", BODIES, ids=[one.id for one in BODIES])
def test_no_text_of_a_request_may_hold_nul_and_its_schema_says_so(contract: Contract, operation: Operation) -> None:
    """To whoever reads the document alone; what has no schema, and recordings, are refused without its saying so."""
    schema = dict(operation.body_schema or {})
    example = sample(contract.served, follow(contract.served, schema))
    validator = OAS30Validator(
        {**schema, "components": contract.served["components"]}, format_checker=oas30_format_checker
    )
    known = [place for place in texts(example) if not {"recording", "metadata"} & set(place)]

    assert validator.is_valid(example)
    assert [place for place in known if validator.is_valid(with_nul(example, place))] == []


# The overlay


def test_update_merges_objects_and_joins_arrays() -> None:
    """Overlay 1.0: objects merge, arrays are joined, and what an earlier action said is replaced."""
    target = "$.paths['/api/pets'].get"
    result = served(
        {"target": target, "update": {"summary": "Some"}},
        {"target": target, "update": {"tags": ["b"], "summary": "All", "x-a": {"b": 1}}},
    )
    operation = result["paths"]["/api/pets"]["get"]

    assert operation["tags"] == ["a", "b"]
    assert operation["summary"] == "All"
    assert operation["responses"] == {"200": {"description": "Pets"}}


def test_update_of_an_array_appends_one_entry() -> None:
    """Overlay 1.0: what updates an array is an entry for it."""
    assert served({"target": "$.paths['/api/pets'].get.tags", "update": "b"})["paths"]["/api/pets"]["get"]["tags"] == [
        "a",
        "b",
    ]


def test_remove_takes_every_match_out_of_objects_and_arrays() -> None:
    """A target with several matches removes all that an action added, whatever order they stand in."""
    result = served(
        {"target": "$.paths['/api/pets'].get.tags", "update": "b"},
        {"target": "$.paths[*].get", "update": {"x-a": 1}},
        {"target": "$.paths['/api/pets'].get.tags[1:]", "remove": True},
        {"target": "$.paths[*].get['x-a']", "remove": True},
    )

    assert result == served()


def test_remove_takes_entries_by_their_number_and_not_by_its_digits() -> None:
    """The ninth and the tenth entry are neighbours."""
    tags = [{"target": "$.paths['/api/pets'].get.tags", "update": f"t{number}"} for number in range(1, 12)]
    result = served(*tags, {"target": "$.paths['/api/pets'].get.tags[9,10]", "remove": True})

    assert result["paths"]["/api/pets"]["get"]["tags"] == ["a", *(f"t{number}" for number in range(1, 9)), "t11"]


def test_actions_on_one_use_of_an_anchor_leave_the_others_alone() -> None:
    """An alias is a copy: YAML shares it, the document does not."""
    published = PETS.replace(b"responses:", b"responses: &answers", 1).replace(
        b"responses:\n        '200': {description: A pet}", b"responses: *answers"
    )
    action = {"target": "$.paths['/api/pets'].get.responses['200']", "update": {"x-note": "All of them"}}
    paths = assemble(published, overlay(action)).served["paths"]

    assert paths["/api/pets"]["get"]["responses"]["200"]["x-note"] == "All of them"
    assert paths["/api/pets/{petId}"]["get"]["responses"]["200"] == {"description": "Pets"}


def test_actions_apply_in_order_and_later_ones_see_earlier_ones() -> None:
    """An action may build on the one before it."""
    result = served(
        {"target": "$.info", "update": {"x-a": {"b": 1}}},
        {"target": "$.info['x-a']", "update": {"c": 2}},
    )

    assert result["info"]["x-a"] == {"b": 1, "c": 2}


def minimal(paths: dict[str, Any], **schemas: Any) -> bytes:
    document = {"openapi": "3.0.3", "info": {"title": "t", "version": "1"}, "paths": paths}
    return json.dumps(document | {"components": {"schemas": schemas}}).encode()


EMPTY = b"{overlay: 1.0.0, info: {title: t, version: '1'}, actions: []}"


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize(
    ("schemas", "words"),
    [
        (
            {"A": {"properties": {"x": ref("B/properties/y")}}, "B": {"properties": {"y": {"type": "string"}}}},
            "components/schemas/A/properties/x: the reference #/components/schemas/B/properties/y leads to",
        ),
        ({"A": ref("B/properties/y"), "B": {"properties": {"y": {}}}}, "components/schemas/A: the reference"),
        ({"A": {"allOf": [ref("B")]}, "B": {"allOf": [ref("A")]}}, "components/schemas/A: contains itself: A → B → A"),
        ({"A": {"anyOf": [{"not": ref("A")}]}}, "components/schemas/A: contains itself: A → A"),
        ({"C": ref("A"), "A": {"allOf": [{"oneOf": [ref("A")]}]}}, "components/schemas/A: contains itself: C → A → A"),
    ],
)
def test_schema_that_no_code_can_be_made_of_is_refused_with_its_place(schemas: dict[str, Any], words: str) -> None:
    """And with its reason."""
    with pytest.raises(InvalidDocument) as caught:
        assemble(minimal({}, **schemas), EMPTY)
    assert words in str(caught.value)


def test_schema_may_contain_itself_further_inside() -> None:
    """A tree is a tree."""
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": ref("Tree")}}}
    assert assemble(minimal({}, Tree=tree, Twig={"allOf": [ref("Tree")]}), EMPTY).operations == ()


def test_path_that_is_a_reference_is_served() -> None:
    """Its operations are those of what it refers to."""
    operation = {"operationId": "get_a", "responses": {"200": {"description": "ok"}}}
    other = {"operationId": "get_a", "responses": {"200": {"description": "ok"}}}
    paths = {"/api/a": {"$ref": "#/components/x-items/shared"}}
    text = json.loads(minimal(paths))
    text["components"]["x-items"] = {"shared": {"get": operation}}
    contract = assemble(json.dumps(text).encode(), EMPTY)

    assert [each.key for each in contract.operations] == ["GET /api/a"]
    assert contract.operations[0].definition == other


def test_json_may_write_any_character_as_an_escape() -> None:
    """A pair of surrogates is one character; half of one is refused, with what stands around it."""
    whole = minimal({}).replace(b'"t"', b'"\\ud83d\\ude00 \\/"')
    half = minimal({}).replace(b'"t"', b'"title: \\ud83d!"')

    assert document.parse(whole, "new.json")["info"]["title"] == "😀 /"
    with pytest.raises(InvalidDocument, match=r"new\.json contains half of a surrogate pair: .*title: .ud83d"):
        document.parse(half, "new.json")


def test_json_that_repeats_a_key_is_refused() -> None:
    """As YAML is."""
    with pytest.raises(InvalidDocument, match=r"new\.json repeats the key 'a' in one object"):
        document.parse(b'{"openapi": "3.0.3", "a": 1, "a": 2}', "new.json")


def test_the_documents_given_are_left_alone(contract: Contract) -> None:
    """What an overlay adds is nobody else's to change: two matches get two copies."""
    shared = {"x-list": [1]}
    result = served({"target": "$.paths[*].get", "update": shared})
    result["paths"]["/api/pets"]["get"]["x-list"].append(2)

    assert result["paths"]["/api/pets/{petId}"]["get"]["x-list"] == [1]
    assert load().published == contract.published


def test_action_that_matches_nothing_is_an_error_with_its_reason() -> None:
    """An overlay cannot silently stop doing what it is for."""
    message = complaint(PETS, overlay({"target": "$.paths['/api/cats'].get", "update": {}, "description": "cats purr"}))

    assert "action 1" in message
    assert "cats purr" in message
    assert "$.paths['/api/cats'].get" in message


def test_target_of_names_must_find_each_of_them() -> None:
    """Two operations listed and one of them gone is an error, not half a success."""
    message = complaint(PETS, overlay({"target": "$.paths['/api/pets','/api/cats'].get", "update": {"x-a": 1}}))

    assert "or not all of it" in message


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ({"target": "$.paths[", "update": {}}, "is not JSONPath"),
        ({"target": "$.info.title", "update": {"a": 1}}, "neither an object nor an array"),
        ({"target": "$.info"}, "neither updates nor removes"),
        ({"target": "$.info", "update": {}, "description": None}, "gives its reason"),
        ({"update": {}}, "`target`"),
    ],
)
def test_malformed_action_is_named(action: dict[str, Any], words: str) -> None:
    """Every mistake in an overlay is an error that says which action it is in."""
    message = complaint(PETS, overlay(action))

    assert words in message
    assert "action 1" in message


def test_overlay_that_breaks_the_document_is_refused() -> None:
    """The two documents together must be OpenAPI again; what is in the way is told with its action."""
    extra = {"get": {"operationId": "get_cats", "parameters": [], "responses": {"200": {"description": "A cat"}}}}
    message = complaint(PETS, overlay({"target": "$.paths", "update": {"/api/pets/{id}": extra}}))

    assert "openapi.yaml with overlay.yaml" in message
    assert "/api/pets/{id}: is the same path as /api/pets/{petId}" in message
    assert "(see action 1 (because))" in message


def test_every_action_of_ours_gives_a_reason(contract: Contract) -> None:
    """Each local deviation says why it is there, and where it took effect."""
    assert all(len(action.reason) > 20 and action.places for action in contract.actions)


# What is not a contract


def changed(change: str) -> bytes:
    pets = yaml.safe_load(PETS)
    broken = copy.deepcopy(pets)
    if change == "duplicate operationId":
        broken["paths"]["/api/pets/{petId}"]["get"]["operationId"] = "get_pets"
    elif change == "dangling reference":
        schema = {"$ref": "#/components/schemas/Pet"}
        broken["paths"]["/api/pets"]["get"]["responses"]["200"]["content"] = {"application/json": {"schema": schema}}
    elif change == "undeclared path parameter":
        del broken["paths"]["/api/pets/{petId}"]["get"]["parameters"]
    elif change == "same path twice":
        broken["paths"]["/api/pets/{id}"] = {
            "get": {
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
                "responses": {"200": {"description": "A pet"}},
            }
        }
    elif change == "bad shape":
        broken["paths"]["/api/pets"]["get"]["responses"]["200"] = {}
    elif change == "other version":
        broken["openapi"] = "3.1.0"
    return json.dumps(broken).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("duplicate operationId", ["paths//api/pets/{petId}/get", "get_pets", "GET /api/pets"]),
        ("dangling reference", ["paths//api/pets/get/responses/200", "#/components/schemas/Pet", "leads nowhere"]),
        ("undeclared path parameter", ["petId", "not declared"]),
        ("same path twice", ["/api/pets/{id}", "same path as /api/pets/{petId}"]),
        ("bad shape", ["paths//api/pets/get/responses/200"]),
        ("other version", ["3.0", "3.1.0"]),
    ],
)
def test_unusable_document_is_refused_with_the_place(change: str, words: list[str]) -> None:
    """What is no usable OpenAPI 3.0 is refused, and the message says where."""
    message = complaint(changed(change))
    if change not in ("other version", "same path twice"):
        with pytest.raises((OpenAPIValidationError, Unresolvable)):
            validate_document(json.loads(changed(change)))

    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: [1, 2", "line 2, column 1"),
        (b"a: 1\nb: 2\na: 3", "repeated, line 3, column 1"),
        (b"- 1", "not an object"),
        (b"", "not an object"),
        (b"\xff\xfe\xff", "not YAML"),
        (b"? [a]\n: 1", "not a word"),
        (b"[" * 100_000, "not"),
        (b"a: &x [*x]", "not"),
    ],
)
def test_what_is_not_yaml_is_refused_with_the_place(text: bytes, words: str) -> None:
    """Broken YAML, repeated keys and other roots than objects are clear errors."""
    with pytest.raises(InvalidDocument, match=words):
        document.parse(text, "new.yaml")


def test_words_are_read_as_yaml_1_2_reads_them() -> None:
    """`no`, `on` and dates are text; numbers, true and null are not, unless quoted."""
    text = b"a: no\nb: on\nc: 2026-05-15\nd: 12\ne: 1.5\nf: true\ng: null\nh: '12'\ni: 1e3\nj: 010\nk: 1_000"

    assert document.parse(text, "x") == {
        "a": "no",
        "b": "on",
        "c": "2026-05-15",
        "d": 12,
        "e": 1.5,
        "f": True,
        "g": None,
        "h": "12",
        "i": 1000.0,
        "j": 10,
        "k": "1_000",
    }


def test_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    """A contract that is not there is one sentence."""
    with pytest.raises(InvalidDocument, match=r"gone\.yaml cannot be read"):
        load(tmp_path / "gone.yaml")


def test_self_referring_reference_is_refused() -> None:
    """A reference that only leads back to itself leads nowhere."""
    with pytest.raises(LookupError):
        follow({"a": {"$ref": "#/a"}}, {"$ref": "#/a"})
