"""Handlers, found in the modules of one package.

A handler is a public coroutine function at the top of its module whose first parameter is called `request`. Which
operation it serves is written in the generated bindings, by METHOD and path, so it is found whatever its operation is
called today. One that cannot be called as its operation is called stops the server: every request of it would be a 500.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import get_args

from pydantic import BaseModel

from domain.errors import ConfigurationError
from openapi.exchange import Binding, Bindings, Handler


def find_handlers(package: ModuleType, bindings: Bindings) -> dict[str, Handler]:
    """Return the handler of every operation, by METHOD and path.

    Raises:
        ConfigurationError: when one is missing, one belongs to no operation, or one does not take what its operation
            is called with; lists them all.
    """
    found = dict(_handlers(package))
    bound = {binding.handler for binding in bindings.operations.values()}
    complaints = [
        f"{key} has no handler {package.__name__}.{binding.handler}"
        for key, binding in bindings.operations.items()
        if binding.handler not in found
    ]
    complaints += [f"{_place(found[name])} {name} handles no operation" for name in sorted(found.keys() - bound)]
    complaints += [
        f"{_place(found[binding.handler])} {binding.handler} {misfit}"
        for binding in bindings.operations.values()
        if binding.handler in found
        for misfit in _misfits(found[binding.handler], binding)
    ]
    if complaints:
        listed = "\n".join(f"  {complaint}" for complaint in complaints)
        raise ConfigurationError(f"The handlers do not match the contract; run `make generate`:\n{listed}")
    return {key: found[binding.handler] for key, binding in bindings.operations.items()}


def _misfits(handler: Handler, binding: Binding) -> Iterator[str]:
    """Yield why `handler` cannot be called with a request and the keywords of `binding`."""
    _, *taken = inspect.signature(handler).parameters.values()
    by_name = {one.name: one for one in taken if one.kind in _BY_NAME}
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken)
    if not takes_all:
        yield from (f"must take {name}" for name in sorted(binding.keywords - by_name.keys()))
    for one in taken:
        is_required = one.default is one.empty and one.kind not in _OF_MANY
        if is_required and (one.name not in binding.keywords or one.name not in by_name):
            yield f"must not require {one.name}"
    if "body" in by_name and not _admits(by_name["body"].annotation, binding.body):
        yield f"must take a body of the type {binding.body.__name__}"


def _admits(annotation: object, body: object) -> bool:
    """Tell whether a parameter annotated so takes a body of the class `body`; the type checker judges other types."""
    classes = [option for option in (annotation, *get_args(annotation)) if isinstance(option, type)]
    models = [option for option in classes if issubclass(option, BaseModel)]
    return not isinstance(body, type) or not models or any(issubclass(body, model) for model in models)


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_OF_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


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
