"""What the generated models are made of: bodies that keep their values to themselves, and moments in UTC."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, PlainSerializer, WithJsonSchema

from domain.times import to_wire


class Body(BaseModel):
    """One object of the contract. Its `repr` names the fields that were given and never their values.

    Handlers make one by the names of its fields (`from_`), requests by the names in the document (`from`).
    """

    model_config = ConfigDict(hide_input_in_errors=True, protected_namespaces=(), validate_by_name=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(None, name) for name in sorted(self.model_fields_set)]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the years 1 to 9999") from error


Moment = Annotated[
    AwareDatetime,
    AfterValidator(_in_utc),
    PlainSerializer(to_wire, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""An aware datetime in UTC; written in the wire form of `domain.times`."""
