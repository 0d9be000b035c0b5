"""Handlers, found in the modules of one package.

A handler is a public coroutine function at the top of its module whose first parameter is called `request`. Which
operation it serves is written in the generated bindings, by METHOD and path, so it is found whatever its operation is
called today.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from domain.errors import ConfigurationError
from openapi.exchange import Bindings, Handler, NotWritten


def find_handlers(package: ModuleType, bindings: Bindings) -> dict[str, Handler]:
    """Return the handler of every operation, by METHOD and path.

    Raises:
        ConfigurationError: when one is missing, or one belongs to no operation; lists them all.
    """
    found = dict(_handlers(package))
    bound = {binding.handler for binding in bindings.operations.values()}
    complaints = [
        f"{key} has no handler {package.__name__}.{binding.handler}"
        for key, binding in bindings.operations.items()
        if binding.handler not in found
    ]
    complaints += [f"{_place(found[name])} {name} handles no operation" for name in sorted(found.keys() - bound)]
    if complaints:
        listed = "\n".join(f"  {complaint}" for complaint in complaints)
        raise ConfigurationError(f"The handlers do not match the contract; run `make generate`:\n{listed}")
    return {key: found[binding.handler] for key, binding in bindings.operations.items()}


def is_stub(handler: Handler) -> bool:
    """Tell whether `handler` is a stub nobody has written yet."""
    code = getattr(inspect.unwrap(handler), "__code__", None)
    return code is not None and NotWritten.__name__ in code.co_names


def _handlers(package: ModuleType) -> Iterator[tuple[str, Handler]]:
    for described in pkgutil.iter_modules(package.__path__):
        module = _imported(f"{package.__name__}.{described.name}")
        for name, value in vars(module).items():
            if _is_handler(name, value, module):
                yield f"{described.name}.{name}", value


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        # What a handler needs of the generated types went away with its operation or one of its statuses.
        raise ConfigurationError(f"The handlers do not match the contract: {name}: {error}.") from error


def _is_handler(name: str, value: object, module: ModuleType) -> bool:
    if name.startswith("_") or not inspect.iscoroutinefunction(value) or value.__module__ != module.__name__:
        return False
    return next(iter(inspect.signature(value).parameters), None) == "request"


def _place(handler: Handler) -> str:
    code = inspect.unwrap(handler).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
