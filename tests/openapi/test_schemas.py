"""Our validators against OpenAPI's own, on schemas and values nobody wrote by hand."""

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS30ReadValidator, OAS30WriteValidator, oas30_format_checker

from openapi import document
from openapi.schemas import Direction, Schemas
from openapi.serving.findings import findings

NAMES = ["a", "b", "kind", "id"]
WORDS = ["", "x", "cat", "dog", "long word", "ü"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.integers(2**31 - 2, 2**31 + 2)
    | st.sampled_from([0.5, 1.0, -2.5, 3e9])
    | st.sampled_from(WORDS)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


def some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keywords)


nullable = st.just(value=True)
strings = some(
    nullable=nullable,
    minLength=st.integers(0, 4),
    maxLength=st.integers(0, 8),
    pattern=st.sampled_from(["^[a-z]+$", "o", r"^\w* \w*$"]),
    enum=st.lists(st.sampled_from(WORDS) | st.none(), min_size=1, max_size=3, unique=True),
    format=st.sampled_from(["byte", "password", "unheard-of"]),
    example=st.just("not even a string: 5"),
).map(lambda schema: {"type": "string"} | schema)
numbers = st.builds(
    lambda kind, schema: {"type": kind} | schema,
    st.sampled_from(["integer", "number"]),
    some(
        nullable=nullable,
        minimum=st.integers(-3, 3),
        maximum=st.integers(-3, 3),
        exclusiveMinimum=st.booleans(),
        exclusiveMaximum=st.booleans(),
        multipleOf=st.sampled_from([1, 2, 0.5]),
        format=st.sampled_from(["int32", "int64", "float", "double"]),
    ),
)
leaves: st.SearchStrategy[dict[str, Any]] = (
    st.just({}) | strings | numbers | some(nullable=nullable).map(lambda schema: {"type": "boolean"} | schema)
)


def containers(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = st.builds(
        lambda items, schema: {"type": "array", "items": items} | schema,
        inner,
        some(nullable=nullable, minItems=st.integers(0, 2), maxItems=st.integers(0, 3), uniqueItems=st.booleans()),
    )
    one_way = st.sampled_from([{}, {}, {"readOnly": True}, {"writeOnly": True}])
    properties = st.dictionaries(
        st.sampled_from(NAMES), st.builds(lambda schema, way: schema | way, inner, one_way), max_size=3
    )
    objects = some(
        properties=properties,
        required=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True),
        additionalProperties=st.booleans() | inner,
        minProperties=st.integers(0, 2),
        maxProperties=st.integers(0, 3),
        nullable=nullable,
    ).map(lambda schema: {"type": "object"} | schema)
    several = st.lists(inner, min_size=1, max_size=3)
    combined = st.builds(lambda key, schemas: {key: schemas}, st.sampled_from(["allOf", "anyOf", "oneOf"]), several)
    return arrays | objects | combined | inner.map(lambda schema: {"not": schema})


REFERENCES = st.sampled_from([{"$ref": f"#/components/schemas/{name}"} for name in ("Tree", "Word", "Maybe")])
COMPONENTS = {
    "Word": {"type": "string", "minLength": 1},
    "Maybe": {"type": "object", "nullable": True, "properties": {"a": {"$ref": "#/components/schemas/Word"}}},
    "Tree": {
        "type": "object",
        "properties": {"a": {"$ref": "#/components/schemas/Tree"}, "b": {"type": "integer"}},
        "additionalProperties": False,
    },
}
schemas = st.recursive(leaves | REFERENCES, containers, max_leaves=6)


def _one_way_given(schema: dict[str, Any], direction: Direction) -> bool:
    # What may be done with a property that should not have been sent is left open by OpenAPI ("SHOULD NOT").
    return ("'readOnly': True" if direction == "request" else "'writeOnly': True") in repr(schema)


@pytest.mark.parametrize("direction", ["request", "response"])
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(schema=schemas, value=values)
def test_both_validators_agree(direction: Direction, schema: dict[str, Any], value: Any) -> None:
    """What OpenAPI's own validator accepts, ours accepts, and nothing else."""
    assume(not _one_way_given(schema, direction))
    reader = OAS30WriteValidator if direction == "request" else OAS30ReadValidator
    theirs = reader({**schema, "components": {"schemas": COMPONENTS}}, format_checker=oas30_format_checker)
    ours = Schemas({"components": {"schemas": COMPONENTS}}).compile(schema, direction)

    assert ours.is_valid(value) == _accepts(theirs, value)


def _accepts(theirs: Any, value: Any) -> bool:
    try:
        return bool(theirs.is_valid(value))
    except UnicodeEncodeError:
        # It stumbles over text that is not ASCII where base64 is due.
        return False


@settings(max_examples=300, deadline=None)
@given(schema=schemas, value=values)
def test_whatever_is_wrong_can_be_said(schema: dict[str, Any], value: Any) -> None:
    """A value that is refused has a finding, with a sentence for developers and one for callers."""
    validator = Schemas({"components": {"schemas": COMPONENTS}}).compile(schema, "request")
    found = findings(validator, value)

    assert bool(found) != validator.is_valid(value)
    assert all(finding.sentence() and 0 < len(finding.spoken()) < 200 for finding in found)


PET: dict[str, Any] = {
    "oneOf": [{"$ref": "#/components/schemas/Cat"}, {"$ref": "#/components/schemas/Dog"}],
    "discriminator": {"propertyName": "kind", "mapping": {"kitty": "#/components/schemas/Cat"}},
}
ANIMALS = {
    name: {"type": "object", "required": ["kind", part], "properties": {part: {"type": "integer"}}}
    for name, part in {"Cat": "lives", "Dog": "tricks"}.items()
}


@pytest.mark.parametrize(
    ("pet", "valid"),
    [
        ({"kind": "kitty", "lives": 9}, True),
        ({"kind": "Cat", "lives": 9}, True),
        ({"kind": "Dog", "tricks": 1}, True),
        ({"kind": "Dog", "tricks": 1, "lives": 9}, True),
        ({"kind": "kitty", "tricks": 1}, False),
        ({"kind": "Bird", "lives": 9}, False),
        ({"lives": 9}, False),
    ],
)
def test_discriminator_chooses_the_alternative(pet: dict[str, Any], valid: bool) -> None:
    """By its mapping or by the name of the schema; the others are not even tried."""
    document = {"components": {"schemas": ANIMALS}}
    theirs = OAS30WriteValidator({**PET, **document}).is_valid(pet)

    assert (Schemas(document).compile(PET, "request").is_valid(pet), theirs) == (valid, valid)


def test_properties_travel_one_way() -> None:
    """A readOnly property is not missed in a request, a writeOnly one not in a response."""
    schema = {
        "type": "object",
        "required": ["id", "password"],
        "properties": {"id": {"type": "string", "readOnly": True}, "password": {"type": "string", "writeOnly": True}},
    }
    compile_ = Schemas({}).compile

    assert compile_(schema, "request").is_valid({"password": "x"})
    assert not compile_(schema, "request").is_valid({"id": "x"})
    assert compile_(schema, "response").is_valid({"id": "x"})
    assert not compile_(schema, "response").is_valid({"password": "x"})


def test_formats_are_checked() -> None:
    """Formats are part of the contract, not a hint."""
    bad = {"date": "2026-02-30", "date-time": "2026-05-15", "uuid": "x", "byte": "?", "email": "x", "ipv4": "1.2.3"}

    for name, value in bad.items():
        assert not Schemas({}).compile({"type": "string", "format": name}, "request").is_valid(value), name


@pytest.mark.parametrize(("name", "bits"), [("int32", 31), ("int64", 63)])
def test_an_integer_of_a_format_fits_its_bits(name: str, bits: int) -> None:
    """The smallest and the largest are let in, and nothing beside them."""
    validator = Schemas({}).compile({"type": "integer", "format": name}, "request")

    assert [validator.is_valid(number) for number in (-(2**bits) - 1, -(2**bits), 2**bits - 1, 2**bits)] == [
        False,
        True,
        True,
        False,
    ]


WHOLE: dict[str, Any] = {
    "transcript": [{"role": "user", "message": "Hello."}],
    "summary": "Said hello.",
    "recording": "https://vendor.example/1.mp3",
}
PARTS = [names for count in range(4) for names in itertools.combinations(WHOLE, count)]


@pytest.mark.parametrize("status", ["completed", "busy"])
@pytest.mark.parametrize("given", PARTS, ids=["+".join(names) or "nothing" for names in PARTS])
def test_completed_call_needs_all_three_and_others_none(status: str, given: tuple[str, ...]) -> None:
    """The rule is spelled so that generators keep every type; sixteen cases, and OpenAPI's own validator agrees."""
    served = document.load().served
    schema = served["components"]["schemas"]["CallsIngestExternalCallRequest"]
    numbers = {"fromNumber": "+14165550100", "toNumber": "+14165550199"}
    call = {"direction": "inbound", "duration": 1, "status": status, **numbers, **{name: WHOLE[name] for name in given}}
    validator = Schemas(served).compile(schema, "request")
    lacking = [name for name in WHOLE if name not in given] if status == "completed" else []
    found = findings(validator, call, list(schema["properties"]))

    assert [finding.sentence() for finding in found] == [f"Missing required field: {name}" for name in lacking]
    assert OAS30WriteValidator({**schema, "components": served["components"]}).is_valid(call) is not bool(lacking)
    assert not {"anyOf", "oneOf", "allOf"} & schema.keys()
