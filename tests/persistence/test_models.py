"""Columns are typed: mypy, in `make check`, knows each of them, those that peewee adds included."""

import inspect
from typing import assert_type

import peewee
import pytest

from persistence.models import MODELS, Call, Contact, ContactNote
from persistence.units import Row

REFERENCES = [
    pytest.param(model, field, id=f"{model.__name__}.{field.name}")
    for model in MODELS
    for field in model._meta.sorted_fields
    if isinstance(field, peewee.ForeignKeyField)
]


@pytest.mark.parametrize(("model", "field"), REFERENCES)
def test_reference_declares_the_column_it_adds(model: type[Row], field: "peewee.ForeignKeyField[Row]") -> None:
    """A declaration that is missing, misspelt or of the wrong type would mislead whoever reads the column."""
    assert inspect.get_annotations(model)[field.object_id_name] == (str | None if field.null else str)


@pytest.mark.parametrize("model", MODELS)
def test_model_declares_no_column_that_is_not_there(model: type[Row]) -> None:
    """Mypy believes a declaration, and reading the column would fail."""
    added = {field.object_id_name for field in model._meta.sorted_fields if isinstance(field, peewee.ForeignKeyField)}

    assert set(inspect.get_annotations(model)) == added


def test_columns_of_a_row_have_their_types_and_no_others() -> None:
    """Each line that expects an error of mypy is an error itself once mypy finds nothing wrong."""
    call, note = Call(contact="a" * 24, duration=1.5), ContactNote(contact="b" * 24)

    assert_type(call.contact_id, str | None)
    assert_type(note.contact_id, str)
    assert_type(call.duration, float)
    assert (call.contact_id, note.contact_id) == ("a" * 24, "b" * 24)
    with pytest.raises(AttributeError):
        call.contcat_id  # type: ignore[attr-defined]  # noqa: B018 - misspelt
    with pytest.raises(AttributeError):
        call.is_edited  # type: ignore[attr-defined]  # noqa: B018 - a column of another table
    with pytest.raises(AttributeError):
        Contact.call_id  # type: ignore[attr-defined]  # noqa: B018 - a column of another table
