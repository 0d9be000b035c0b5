"""An application built from what was compiled for the one before.

Compiling the contract takes most of the time in which a test's API starts, and the result is the same for each.
`tests/test_app.py` and every process that a test starts build theirs without this.
"""

import contextlib
import copy
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from connexion.spec import OpenAPISpecification

from openapi import enforcement
from openapi.description import describe
from openapi.document import Contract, Document, Operation
from openapi.enforcement import Enforced
from openapi.exchange import Binding, Handler
from openapi.schemas import Schemas
from realtime import pages
from tests.support.contract import CONTRACT

_operations: dict[tuple[str, Handler], Enforced] = {}
_descriptions: dict[tuple[Handler, ...], Document] = {}
_valid: set[str] = set()
_validate = OpenAPISpecification._validate_spec
_pages = functools.cache(pages.load)


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Reuse what was compiled of the served contract, for every application built during the context."""
    with (
        mock.patch.object(enforcement, "Enforced", _enforced),
        mock.patch.object(enforcement, "describe", _described),
        mock.patch.object(pages, "load", _loaded),
        mock.patch.object(OpenAPISpecification, "_validate_spec", staticmethod(_validated)),
    ):
        yield


def _enforced(
    document: Document, operation: Operation, schemas: Schemas, binding: Binding, handler: Handler
) -> Enforced:
    if document is not CONTRACT.served:
        return Enforced(document, operation, schemas, binding, handler)
    key = (operation.id, handler)
    if key not in _operations:
        _operations[key] = Enforced(document, operation, schemas, binding, handler)
    return copy.copy(_operations[key])  # each application hands its own services to its own


def _described(contract: Contract, handlers: Mapping[str, Handler]) -> Document:
    if contract is not CONTRACT:
        return describe(contract, handlers)
    key = tuple(handlers.values())
    if key not in _descriptions:
        _descriptions[key] = describe(contract, handlers)
    return _descriptions[key]


def _loaded(realtime_url: str = "", *, for_people: bool = True) -> dict[str, pages.Page]:
    return dict(_pages(realtime_url, for_people=for_people))


def _validated(specification: Any) -> None:
    text = json.dumps(specification, sort_keys=True, default=str)
    if text not in _valid:
        _validate(specification)
        _valid.add(text)
