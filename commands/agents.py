"""Voice agents at ElevenLabs: giving them the contract's tools, checking them, and taking the tools away again."""

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from actions.agent_survey import public_address
from actions.connect_agent import Wish, check_agent, connect_agent, disconnect_agent, tool_definitions
from actions.relay import Relay
from commands.opening import in_organization, run
from commands.terminal import complain, show, show_json, show_table
from domain.agents import Connection, Part, PartState
from domain.audit import COMMAND_LINE
from domain.errors import InvalidRequest
from persistence import organizations
from persistence.models import Organization
from providers.elevenlabs_agents import Config

R = TypeVar("R")

agent = typer.Typer(help="ElevenLabs agents: connect them to the relay's tools.", no_args_is_help=True)

_STYLES = {
    PartState.OK: "green",
    PartState.DRIFTED: "yellow",
    PartState.MISSING: "yellow",
    PartState.REFUSED: "red",
}

AgentId = Annotated[str, typer.Argument(metavar="AGENT_ID", help="The agent's id at ElevenLabs.")]
Of = Annotated[str | None, typer.Option("--organization", help="Id or name; may be left out if there is only one.")]


@agent.command("connect")
def agent_connect(
    agent_id: AgentId,
    organization: Of = None,
    transfer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="+E164|sip:…|available",
            help="Where the agent may transfer a call to, or to whoever is available; may be repeated.",
        ),
    ] = None,
    when: Annotated[
        list[str] | None, typer.Option(help="When to transfer there, one for each --transfer, in the same order.")
    ] = None,
    no_transfer: Annotated[bool, typer.Option("--no-transfer", help="Take our transfers away.")] = False,
    transfer_text: Annotated[
        str | None, typer.Option(help="What the transfer tool answers once an agent has a transfer.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask at a terminal.")] = False,
) -> None:
    """Make the agent's tools, their secret, webhooks and transfers; what the agent has of others stays."""
    wish = Wish(_transfers(transfer or [], when or [], none=no_transfer), transfer_text)
    if dry_run or (sys.stdin.isatty() and not yes):
        _show(_connected(organization, agent_id, wish, is_dry_run=True), planned=True)
        if dry_run or not typer.confirm("Do this?"):
            return
    done = _connected(organization, agent_id, wish, is_dry_run=False)
    _show(done)
    _end(done)


@agent.command("check")
def agent_check(agent_id: AgentId, organization: Of = None) -> None:
    """Say how the agent is connected; exit with 1 if anything is missing, refused or not as the contract has it."""
    found = run(lambda relay: _of(relay, organization, lambda one: check_agent(relay, one.id, agent_id)))
    _show(found)
    _end(found)


@agent.command("disconnect")
def agent_disconnect(agent_id: AgentId, organization: Of = None) -> None:
    """Take from the agent what is ours, and remove what no other agent uses."""
    done = run(
        lambda relay: _of(relay, organization, lambda one: disconnect_agent(relay, one.id, agent_id, COMMAND_LINE))
    )
    show(*(done or ["There was nothing of ours."]))


@agent.command("show")
def agent_show(
    organization: Of = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the definitions, to be pasted into ElevenLabs.")
    ] = False,
) -> None:
    """Show the tools with every value, for an agent that is connected by hand."""

    async def read(relay: Relay) -> tuple[list[Config], str | None]:
        definitions = await _of(relay, organization, lambda one: tool_definitions(relay, one.id))
        path = relay.agent_contract().pre_call
        return definitions, None if path is None else public_address(relay) + path

    definitions, pre_call = run(read)
    if as_json:
        show_json({"tools": definitions}, indent=2)
        return
    for definition in definitions:
        _show_definition(definition)
    show(f"Before a call ElevenLabs asks {pre_call}." if pre_call else "The contract has no webhook before a call.")


def _show_definition(definition: Config) -> None:
    schema = definition["api_schema"]
    told = {name: value for name, value in definition.items() if name not in ("api_schema", "type", "name")}
    rows = [(name, str(value)) for name, value in told.items()]
    rows += [("url", schema["url"]), ("method", schema["method"])]
    rows += [(f"header {name}", _header(value)) for name, value in schema["request_headers"].items()]
    required = schema["request_body_schema"]["required"]
    for name, field in schema["request_body_schema"]["properties"].items():
        source = f"variable {field['dynamic_variable']}" if "dynamic_variable" in field else field["description"]
        rows.append((f"body {name}", f"{field['type']}{', required' if name in required else ''}: {source}"))
    show_table(("setting", "value"), rows, title=f"Webhook tool {definition['name']}")


def _header(value: object) -> str:
    return f"secret {value['secret_id']}" if isinstance(value, dict) else str(value)


def _transfers(to: list[str], when: list[str], *, none: bool) -> tuple[tuple[str, str | None], ...] | None:
    if none and to:
        raise InvalidRequest("Give either --transfer or --no-transfer")
    if len(when) > len(to):
        raise InvalidRequest("Each --when belongs to a --transfer; there are more of them")
    if not to:
        return () if none else None
    conditions = [*when, *([None] * (len(to) - len(when)))]
    return tuple(zip(to, conditions, strict=True))


def _connected(organization: str | None, agent_id: str, wish: Wish, *, is_dry_run: bool) -> Connection:
    return run(
        lambda relay: _of(
            relay,
            organization,
            lambda one: connect_agent(relay, one.id, agent_id, wish, COMMAND_LINE, is_dry_run=is_dry_run),
        )
    )


async def _of(relay: Relay, organization: str | None, act: Callable[[Organization], Awaitable[R]]) -> R:
    if organization is not None:
        return await in_organization(relay, organization, act)
    everyone: list[Organization] = await relay.database.read(organizations.everyone)
    if len(everyone) != 1:
        raise InvalidRequest(f"There are {len(everyone)} organizations; say which one with --organization")
    return await act(everyone[0])


def _show(connection: Connection, *, planned: bool = False) -> None:
    rows = [_row(part, planned=planned) for part in connection.parts]
    columns = ("part", "name", "state", "detail", "would do" if planned else "done")
    show_table(columns, rows, title=f"Agent {connection.agent_name or connection.agent_id}")
    if connection.problem is not None:
        complain(connection.problem, style="red")


def _row(part: Part, *, planned: bool) -> tuple[str, str, tuple[str, str], str, str]:
    nothing = "leave" if planned else ""
    state = (part.state.value, _STYLES[part.state])
    return part.kind.value, part.name, state, part.detail, part.change or nothing


def _end(connection: Connection) -> None:
    if not connection.is_whole:
        sys.exit(1)
