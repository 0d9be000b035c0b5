"""Following events from a terminal."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from clients.python.tether_relay_client import Follow, OptionError, Problem, Refused, TokenRefused, follow
from commands import demo
from commands.terminal import complain, one_line, show_json, show_parts
from config import load_settings
from domain.errors import ConfigurationError, InvalidRequest, Unauthenticated

listening = typer.Typer()

_FINAL = ("unauthenticated", "invalid_message")


@listening.command()
def listen(
    url: Annotated[str, typer.Option(help="The broadcaster; by default the one on this machine.")] = "",
    api: Annotated[
        str,
        typer.Option(help="Where GET /api/events is, for networks that block WebSockets; by default on this machine."),
    ] = "",
    token: Annotated[str, typer.Option(envvar="RELAY_TOKEN", help="An API key or JWT.")] = "",
    since: Annotated[int | None, typer.Option(help="Begin after this sequence.")] = None,
    epoch: Annotated[str | None, typer.Option(help="The epoch of the log that the sequence belongs to.")] = None,
    event: Annotated[list[str] | None, typer.Option(help="Only events of this name; may be repeated.")] = None,
    contact: Annotated[str | None, typer.Option(help="Only events about this contact.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Only events of this conversation.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each frame as one line of JSON.")] = False,
) -> None:
    """Print events as they happen, reconnecting and resuming by itself."""
    settings = load_settings()
    token = token or demo.credentials(settings).get("apiKey", "")
    if not token:
        raise ConfigurationError("Give an API key or JWT with --token or in RELAY_TOKEN.")
    fallback = api or ("" if url else f"{settings.local_url}/api/events")
    try:
        following = follow(
            url or settings.local_realtime_url,
            token=token,
            since=since,
            epoch=epoch,
            events=event or None,
            contact_id=contact,
            conversation_id=conversation,
            fallback_url=fallback or None,
            on_gap=lambda gap: _show(gap, as_json=as_json),
            on_state=lambda name, detail: _say_state(name, detail, as_json=as_json),
            on_error=_say_problem,
        )
        asyncio.run(_print(following, as_json=as_json))
    except OptionError as error:
        raise ConfigurationError(f"{url} cannot be followed: {error}" if url else str(error)) from error
    except TokenRefused as refused:
        raise Unauthenticated(str(refused)) from refused
    except Refused as refused:
        raise InvalidRequest(f"The server refused what was asked for: {refused}") from refused
    except KeyboardInterrupt:
        sys.exit(0)


async def _print(following: Follow, *, as_json: bool) -> None:
    async with following as events:
        async for event in events:
            _show(event, as_json=as_json)


def _show(frame: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(dict(frame))
    elif frame["type"] == "event":
        when, name = f"{frame['at']}  {frame['seq']:>6}  ", f"{frame['event']:<22}"
        show_parts((when, "dim"), (name, "bold cyan"), (one_line(frame["data"]), "default"))
    else:
        facts = {name: value for name, value in frame.items() if name != "type"}
        show_parts((f"{frame['type']}  {one_line(facts)}", "dim"))


def _say_state(name: str, detail: Mapping[str, Any], *, as_json: bool) -> None:
    if name == "live":
        _show(detail, as_json=as_json)
    elif name == "polling":
        complain("Sockets are blocked here; events are read over HTTP.", style="yellow")
    elif name == "waiting":
        complain(f"{detail['reason']}; trying again in {detail['seconds']:.1f} s", style="yellow")


def _say_problem(problem: Problem) -> None:
    if problem["code"] not in _FINAL:  # the command ends with the same words
        complain(problem["message"], style="yellow")
