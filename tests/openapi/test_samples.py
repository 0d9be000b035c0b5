"""A new operation whose document gives no example is tested like the others."""

from openapi.schemas import Schemas
from tests.support.contract import CONTRACT
from tests.support.samples import sample


def test_every_answer_has_a_sample_also_without_its_example() -> None:
    """What is made of the schema alone is valid."""
    served = CONTRACT.served
    schemas = Schemas(served)
    bare = {name: {**schema} for name, schema in served["components"]["schemas"].items()}
    for schema in bare.values():
        schema.pop("example", None)
    lean = {**served, "components": {**served["components"], "schemas": bare}}
    wrong = [
        name
        for name, schema in bare.items()
        if name.endswith("Response")
        if not schemas.compile({"$ref": f"#/components/schemas/{name}"}, "response").is_valid(sample(lean, schema))
    ]

    assert wrong == []
