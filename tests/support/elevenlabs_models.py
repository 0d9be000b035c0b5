"""ElevenLabs' own SDK models, read strictly: an unknown field, an unknown word or a missing field is a problem.

The SDK itself lets everything pass (`extra="allow"`, and `Any` beside every list of words), because it must not break
when ElevenLabs adds something. What we send has to be what is documented today.
"""

import types
import typing
from collections.abc import Iterator
from typing import Any

import pydantic
import typing_extensions
from elevenlabs import types as sdk

Problem = tuple[list[str | int], str]

AGENT_CHANGES: dict[str, Any] = {
    "conversation_config": sdk.ConversationalConfig,
    "platform_settings": sdk.AgentPlatformSettingsRequestModel,
    "name": str,
    "tags": list[str],
    "version_description": str,
}
SETTINGS: dict[str, Any] = {
    "conversation_initiation_client_data_webhook": sdk.ConversationInitiationClientDataWebhook | None,
    "webhooks": sdk.ConvAiWebhooks,
    "can_use_mcp_servers": bool,
    "rag_retention_period_days": int,
}
NEW_SECRET: dict[str, Any] = {"type": typing.Literal["new"], "name": str, "value": str}
CHANGED_SECRET: dict[str, Any] = {"type": typing.Literal["update"], "name": str, "value": str}


def problems(kind: Any, value: Any, place: tuple[str | int, ...] = ("body",)) -> list[Problem]:
    """Return what is wrong with `value` as a `kind`: each problem's place and words."""
    return list(_problems(kind, value, place))


def of_fields(fields: dict[str, Any], document: dict[str, Any], *, required: bool) -> list[Problem]:
    """Return what is wrong with a body of these fields."""
    found: list[Problem] = [(["body", name], "Extra inputs are not permitted") for name in document.keys() - fields]
    if required:
        found += [(["body", name], "Field required") for name in fields.keys() - document.keys()]
    for name in document.keys() & fields:
        found += problems(fields[name], document[name], ("body", name))
    return found


def _problems(kind: Any, value: Any, place: tuple[str | int, ...]) -> Iterator[Problem]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return
    if origin in (typing.Annotated, typing_extensions.Annotated):
        yield from _problems(arguments[0], value, place)
    elif origin in (typing.Union, types.UnionType):
        yield from _of_union(arguments, value, place)
    elif origin is list:
        yield from _of_list(arguments, value, place)
    elif origin is dict:
        yield from _of_dict(arguments, value, place)
    elif isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        yield from _of_model(kind, value, place)
    elif not _is(kind, value):
        yield list(place), f"Input should be {getattr(kind, '__name__', kind)}"


def _of_union(arguments: tuple[Any, ...], value: Any, place: tuple[str | int, ...]) -> Iterator[Problem]:
    # `Any` beside a list of words is the SDK's way of letting the future in.
    chosen = [one for one in arguments if one is not Any] or [Any]
    tried = [problems(one, value, place) for one in chosen]
    if all(tried):
        yield from min(tried, key=lambda found: (_depth(found), len(found)))


def _depth(found: list[Problem]) -> int:
    # The alternative that was meant is the one that goes wrong furthest inside.
    return -max(len(place) for place, _ in found)


def _of_list(arguments: tuple[Any, ...], value: Any, place: tuple[str | int, ...]) -> Iterator[Problem]:
    if not isinstance(value, list):
        yield list(place), "Input should be a valid list"
        return
    for index, one in enumerate(value):
        yield from _problems(arguments[0], one, (*place, index))


def _of_dict(arguments: tuple[Any, ...], value: Any, place: tuple[str | int, ...]) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield list(place), "Input should be a valid dictionary"
        return
    for name, one in value.items():
        yield from _problems(arguments[1], one, (*place, str(name)))


def _of_model(kind: type[pydantic.BaseModel], value: Any, place: tuple[str | int, ...]) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield list(place), f"Input should be a valid {kind.__name__}"
        return
    fields = {field.alias or name: field for name, field in kind.model_fields.items()}
    for name in value.keys() - fields:
        yield [*place, name], "Extra inputs are not permitted"
    for name, field in fields.items():
        if name in value:
            yield from _problems(field.annotation, value[name], (*place, name))
        elif field.is_required():
            yield [*place, name], "Field required"


def _is(kind: Any, value: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(kind, type) and isinstance(value, kind)
