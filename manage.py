"""The command line. `python manage.py --help` lists what it can do; the commands are in `commands/`."""

import sys
import traceback
import warnings

import typer

from commands.terminal import complain, discard_the_rest, show
from domain.errors import RelayError
from version import VERSION

# What keeps running need not hold the rest of the command line in memory.
_SERVERS = (["serve"], ["broadcast"])


def main() -> None:
    """Run the command; what goes wrong is one sentence and a non-zero exit."""
    # Connexion imports Starlette's test client, which warns everybody about a client it would rather use.
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    try:
        _run(sys.argv[1:2])
    except BrokenPipeError:
        # The reader of the output, such as `head`, has enough.
        discard_the_rest()
        sys.exit(1)
    except RelayError as error:
        complain(f"tether-relay: {error}")
        sys.exit(1)
    except Exception:
        # An error nobody expected may quote anything.
        for line in traceback.format_exc().split("\n"):
            complain(line)
        sys.exit(1)


def _run(command: list[str]) -> None:
    cli = typer.Typer(
        help="Tether Relay: the voice slice of Tether's API, self-hosted.",
        no_args_is_help=True,
        # A traceback that shows variables shows secrets; `main` prints a plain one.
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,
    )
    if command == ["--version"]:
        show(VERSION)
        return
    if command == ["contract"]:
        # The contract's commands mend code that may not even import just now, so they must not need it.
        from commands.contract import contract

        contract(sys.argv[2:], prog_name="manage.py contract")
        return
    from commands.serving import serving

    cli.add_typer(serving)
    if command not in _SERVERS:
        _add_the_rest(cli)
    cli()


def _add_the_rest(cli: typer.Typer) -> None:
    from commands.agents import agent
    from commands.auditing import audit
    from commands.backups import backup, restoring
    from commands.contract import contract
    from commands.doctor import doctoring
    from commands.keys import key
    from commands.listening import listening
    from commands.organizations import org
    from commands.retention import retention
    from commands.upkeep import upkeep
    from commands.users import user

    for commands in (listening, upkeep, retention, restoring, doctoring):
        cli.add_typer(commands)
    named = {
        "org": org,
        "user": user,
        "key": key,
        "agent": agent,
        "audit": audit,
        "backup": backup,
        "contract": contract,
    }
    for name, commands in named.items():
        cli.add_typer(commands, name=name)


if __name__ == "__main__":
    main()
