"""An application built from what was compiled for the one before.

Compiling the contract takes most of the time in which a test's API starts, and the result is the same for each.
`tests/test_app.py` and every process that a test starts build theirs without this.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from connexion.spec import OpenAPISpecification

from openapi.document import Contract, Operation
from openapi.exchange import Bindings
from openapi.operations import OPERATIONS
from openapi.references import Document
from openapi.schemas import Schemas
from openapi.serving import assembly, operation
from openapi.serving.description import describe
from openapi.serving.parameters import Parameters
from openapi.serving.problems import Problems
from realtime import pages
from tests.support.contract import CONTRACT

_valid: set[str] = set()
_validate = OpenAPISpecification._validate_spec
_pages = functools.cache(pages.load)
_schemas = functools.cache(lambda: Schemas(CONTRACT.served))
_description = functools.cache(lambda: describe(CONTRACT, OPERATIONS))


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Reuse what was compiled of the served contract, for every application built during the context."""
    with (
        mock.patch.object(assembly, "Schemas", _remembered_schemas),
        mock.patch.object(assembly, "describe", _described),
        mock.patch.object(operation, "Problems", _problems),
        mock.patch.object(operation, "Parameters", _parameters),
        mock.patch.object(pages, "load", _loaded),
        mock.patch.object(OpenAPISpecification, "_validate_spec", staticmethod(_validated)),
    ):
        yield


def _remembered_schemas(document: Document) -> Schemas:
    return _schemas() if document is CONTRACT.served else Schemas(document)


def _described(contract: Contract, bindings: Bindings) -> Document:
    is_ours = contract is CONTRACT and bindings is OPERATIONS
    return _description() if is_ours else describe(contract, bindings)


def _of_an_operation(make: Callable[..., Any]) -> Callable[..., Any]:
    """Remember what is made of an operation and never changed."""
    made: dict[str, Any] = {}

    def remembering(document: Document, of: Operation, schemas: Schemas, *more: Any) -> Any:
        if document is not CONTRACT.served:
            return make(document, of, schemas, *more)
        if of.id not in made:
            made[of.id] = make(document, of, schemas, *more)
        return made[of.id]

    return remembering


_problems, _parameters = _of_an_operation(Problems), _of_an_operation(Parameters)


def _loaded(realtime_url: str = "", *, for_people: bool = True) -> dict[str, pages.StaticPage]:
    return dict(_pages(realtime_url, for_people=for_people))


def _validated(specification: Any) -> None:
    text = json.dumps(specification, sort_keys=True, default=str)
    if text not in _valid:
        _validate(specification)
        _valid.add(text)
