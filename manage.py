"""The command line. `python manage.py --help` lists what it can do; the commands are in `commands/`."""

import sys
import warnings

import typer

from domain.errors import RelayError
from openapi.commands import contract


def main() -> None:
    """Run the command; what goes wrong is one sentence and a non-zero exit."""
    # Connexion imports Starlette's test client, which warns everybody about a client it would rather use.
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    try:
        # The contract's commands mend code that may not even import just now, so they must not need it.
        contract(sys.argv[2:], prog_name="manage.py contract") if sys.argv[1:2] == ["contract"] else _everything()()
    except RelayError as error:
        print(f"tether-relay: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _everything() -> typer.Typer:
    from commands.auditing import audit
    from commands.keys import key
    from commands.listening import listening
    from commands.organizations import org
    from commands.retention import retention
    from commands.serving import serving
    from commands.upkeep import upkeep
    from commands.users import user

    cli = typer.Typer(
        help="Tether Relay: the voice slice of Tether's API, self-hosted.",
        no_args_is_help=True,
        # A traceback that shows variables shows secrets.
        pretty_exceptions_show_locals=False,
    )
    for commands in (serving, listening, audit, upkeep, retention):
        cli.add_typer(commands)
    for name, commands in (("org", org), ("user", user), ("key", key), ("contract", contract)):
        cli.add_typer(commands, name=name)
    return cli


if __name__ == "__main__":
    main()
