"""How much work the contract's code does: calls counted, which are the same on every machine, however busy it is."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from openapi import schemas, yaml_text
from openapi.references import follow, lookup

_COUNTED: dict[str, Callable[..., Any]] = {
    "documents parsed": yaml_text.parse,
    "validators compiled": schemas.Validator,
    "references followed": follow,
    "references looked up": lookup,
}


def count_work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count, from now on, what parses documents, compiles validators and resolves references, in every module."""
    counts: Counter[str] = Counter()
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("openapi.")]
    for what, function in _COUNTED.items():
        for module in modules:
            for name in [name for name, value in vars(module).items() if value is function]:
                monkeypatch.setattr(module, name, _counting(counts, what, function))
    return counts


def _counting(counts: Counter[str], what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        counts[what] += 1
        return function(*arguments, **options)

    return counted
