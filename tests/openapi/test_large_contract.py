"""The work that a large contract costs, counted: it must grow with the number of operations, and no faster."""

import json
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from openapi import document
from openapi.document import Contract
from openapi.exchange import NotWritten, Request, Response
from openapi.generating import generate
from tests.support.contracts import Lab, bindings_of, build
from tests.support.synthetic import synthetic
from tests.support.tree import ROOT
from tests.support.work import count_work


async def unwritten(request: Request[Lab]) -> Response[object]:
    del request
    raise NotWritten


def start(published: bytes) -> None:
    """Do what a server does with the contract when it starts."""
    contract: Contract = document.assemble(published, document.OVERLAY.read_bytes())
    build(contract, Lab(), {each.key: unwritten for each in contract.operations}, bindings_of(contract))


def plan_update(published: bytes) -> None:
    """Do what `contract update` does, short of writing files."""
    generate.plan(ROOT, published)


def work_of(act: Callable[[bytes], None], resources: int) -> Mapping[str, int]:
    """Count what `act` does with the published contract and eight operations on each of `resources` more."""
    published = json.dumps(synthetic(resources)).encode()
    with pytest.MonkeyPatch.context() as patch:
        counts: Counter[str] = count_work(patch)
        act(published)
    return counts


@pytest.mark.parametrize(
    ("act", "counted"),
    [
        (start, {"documents parsed", "validators compiled", "references followed", "references looked up"}),
        (plan_update, {"documents parsed", "references followed", "references looked up"}),
    ],
)
def test_work_of_a_contract_grows_no_faster_than_its_operations(
    act: Callable[[bytes], None], counted: set[str]
) -> None:
    """Eighty operations more cost at most twice what forty more cost; documents are parsed as often as ever."""
    none, some, twice_as_many = (work_of(act, resources) for resources in (0, 5, 10))

    assert none.keys() == counted
    assert none["documents parsed"] == some["documents parsed"] == twice_as_many["documents parsed"]
    for what in counted - {"documents parsed"}:
        added = some[what] - none[what]
        assert added > 0, what
        assert twice_as_many[what] - none[what] <= 2 * added, what
