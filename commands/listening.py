"""Following events from a terminal."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer

from commands import demo
from commands.terminal import complain, one_line, show_json, show_parts
from config import load_settings
from domain.errors import ConfigurationError
from realtime import client as realtime_client

listening = typer.Typer()


@listening.command()
def listen(
    url: Annotated[str, typer.Option(help="The broadcaster; by default the one on this machine.")] = "",
    token: Annotated[str, typer.Option(envvar="RELAY_TOKEN", help="An API key or JWT.")] = "",
    since: Annotated[int | None, typer.Option(help="Begin after this sequence.")] = None,
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
    url = url or settings.local_realtime_url
    try:
        frames = realtime_client.listen(
            url, token, since=since, events=event, contact_id=contact, conversation_id=conversation, on_retry=_say_retry
        )
        asyncio.run(_print(frames, as_json=as_json))
    except KeyboardInterrupt:
        sys.exit(0)


async def _print(frames: AsyncIterator[dict[str, Any]], *, as_json: bool) -> None:
    async for frame in frames:
        if as_json:
            show_json(frame)
        else:
            _show(frame)


def _show(frame: dict[str, Any]) -> None:
    if frame["type"] != "event":
        facts = {name: value for name, value in frame.items() if name != "type"}
        show_parts((f"{frame['type']}  {one_line(facts)}", "dim"))
        return
    when, name = f"{frame['at']}  {frame['seq']:>6}  ", f"{frame['event']:<22}"
    show_parts((when, "dim"), (name, "bold cyan"), (one_line(frame["data"]), "default"))


def _say_retry(seconds: float, reason: str) -> None:
    complain(f"{reason}; trying again in {seconds:.1f} s", style="yellow")
