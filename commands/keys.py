"""API keys, tool secrets and encryption keys."""

import secrets
import sys
from typing import Annotated

import typer
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from actions import administer, control_access
from actions.relay import Relay
from actions.stored_secrets import StoredSecrets, look_at_secrets, rotate_secrets
from commands.opening import in_organization, read_settings, run
from commands.terminal import complain, progress, show, show_json, show_table
from config import change_kept_keys
from domain.errors import InvalidRequest
from domain.principals import KeyKind
from keyring.vault import Vault
from persistence.models import Organization

_RSA_BITS = 3072

key = typer.Typer(help="API keys, tool secrets and encryption keys.", no_args_is_help=True)


Name = Annotated[str | None, typer.Option(help="Which key; without it the one that GET /api/user/api-key shows.")]


@key.command("api")
def key_api(
    email: str,
    name: Name = None,
    kind: Annotated[KeyKind, typer.Option(help="What a new key with a name opens.")] = KeyKind.BOTH,
    expires: Annotated[
        str | None, typer.Option(help="When a new key with a name ends: 2027-05-15T09:10:00Z.", metavar="MOMENT")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Make a new secret; the old one stops working.")] = False,
    overlap: Annotated[
        float | None,
        typer.Option(min=0, metavar="MINUTES", help="How long the old secret keeps working; API_KEY_OVERLAP_MINUTES."),
    ] = None,
) -> None:
    """Print the user's API key, made on first use; with --name make another one, which is shown this once."""
    seconds = None if overlap is None else overlap * 60
    if name is None and (kind is not KeyKind.BOTH or expires is not None):
        raise InvalidRequest("The first key opens everything and has no end; give the key a --name")

    async def act(relay: Relay) -> SecretStr:
        if name is None:
            return await control_access.first_key(relay, email, renew=renew, overlap=seconds)
        made = await control_access.named_key(
            relay, email, name, kind=kind, expires_at=expires, renew=renew, overlap=seconds
        )
        return made.secret

    show(run(act).get_secret_value())


@key.command("list")
def key_list(email: str) -> None:
    """List the user's API keys, without their secrets."""
    found = run(lambda relay: control_access.keys_of(relay, email))
    rows = [
        (one.name, one.kind.value, one.created_at, one.last_used_at or "never", one.expires_at or "") for one in found
    ]
    show_table(("name", "kind", "made", "last used", "ends"), rows)


@key.command("revoke")
def key_revoke(
    email: str,
    name: Annotated[str | None, typer.Option(help="Which key.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every key of the user.")] = False,
) -> None:
    """Revoke an API key of the user, or all of them; requests and sockets with it end within seconds."""
    if (name is None) is not every:
        raise InvalidRequest("Say which key with --name, or --all")
    revoked = run(lambda relay: control_access.revoke_keys(relay, email, name))
    show(f"Revoked {', '.join(revoked)}." if revoked else f"{email} has no API key.")


@key.command("tool")
def key_tool(organization: str) -> None:
    """Make a fresh tool secret, also at ElevenLabs if agents are connected; the one before it works for the overlap."""

    async def act(relay: Relay) -> tuple[SecretStr, str | None]:
        async def renewed(found: Organization) -> tuple[SecretStr, str | None]:
            secret = await administer.new_tool_secret(relay, found.id)
            return secret, await administer.tool_secret_problem(relay, found.id)

        return await in_organization(relay, organization, renewed)

    secret, problem = run(act)
    show(secret.get_secret_value())
    if problem is not None:
        complain(f"ElevenLabs has not taken the new secret: {problem}. The one before it goes on working.")


@key.command("tool-secrets")
def key_tool_secrets(organization: str) -> None:
    """List the tool secrets that work: since when, until when, and when each was last used."""
    found = run(
        lambda relay: in_organization(relay, organization, lambda one: administer.list_tool_secrets(relay, one.id))
    )
    rows = [(one.id, one.created_at, one.expires_at or "", one.last_used_at or "never") for one in found]
    show_table(("id", "made", "ends", "last used"), rows)


@key.command("end-tool-secrets")
def key_end_tool_secrets(
    organization: str,
    secret: Annotated[str | None, typer.Option("--id", help="This one only, even the newest.")] = None,
) -> None:
    """End every replaced tool secret at once; the newest keeps working."""
    ended = run(
        lambda relay: in_organization(
            relay, organization, lambda one: administer.end_tool_secrets(relay, one.id, secret)
        )
    )
    show(f"Ended {ended} tool secrets.")


@key.command("encryption")
def key_encryption() -> None:
    """Print a new key for ENCRYPTION_KEYS."""
    show(Fernet.generate_key().decode())


@key.command("list-encryption")
def key_list_encryption(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the encryption keys by fingerprint, newest first, and how many stored secrets each opens."""
    found = run(look_at_secrets)
    if as_json:
        for fingerprint, count in found.by_key.items():
            show_json(
                {"fingerprint": fingerprint, "secrets": count, "isNewest": fingerprint == next(iter(found.by_key))}
            )
        show_json({"fingerprint": None, "secrets": len(found.unopened), "isNewest": False})
        return
    rows = [(fingerprint, str(count), _meaning(found, fingerprint)) for fingerprint, count in found.by_key.items()]
    rows += [("none of these", str(len(found.unopened)), "put their key back")] if found.unopened else []
    show_table(("fingerprint", "secrets", ""), rows)


@key.command("rotate-encryption")
def key_rotate_encryption(
    add: Annotated[
        bool, typer.Option("--add", help="First step: put a new key in front, where secrets.json keeps them.")
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Last step: remove keys that open nothing from secrets.json.")
    ] = False,
) -> None:
    """Seal every stored secret with the newest key, beside running processes; ended in between, run it again.

    Before: put the new key in front of ENCRYPTION_KEYS (`--add` does it in secrets.json), and restart every process.
    After: remove the old key, when this says that it may go.
    """
    if add and drop:
        raise InvalidRequest("Give --add at the beginning and --drop at the end, not both")
    if add:
        ring = change_kept_keys(read_settings(), lambda keys: [Fernet.generate_key().decode(), *keys])
        show(f"secrets.json has {len(ring)} keys. Restart every process, then run key rotate-encryption.")
        return

    async def act(relay: Relay) -> tuple[int, StoredSecrets]:
        sealed = 0
        with progress() as bar:
            task = bar.add_task("secrets", total=(await look_at_secrets(relay)).of_older_keys)
            async for count in rotate_secrets(relay):
                sealed += count
                bar.advance(task, count)
        return sealed, await look_at_secrets(relay)

    sealed, found = run(act)
    show(f"Sealed {sealed} secrets anew with the key {next(iter(found.by_key))}.")
    if found.problem:
        show(f"{found.problem}.")
    if drop:
        _drop(found)
    elif found.spare_keys:
        show(
            f"The key {', '.join(found.spare_keys)} opens nothing any more. It may go a day after every process was "
            "restarted with the new one: until then reports of texts come back that it signed."
        )
    if found.problem:
        sys.exit(1)


def _drop(found: StoredSecrets) -> None:
    settings = read_settings()
    spare = set(found.spare_keys)
    ring = change_kept_keys(
        settings, lambda keys: [one for one in keys if Vault(SecretStr(one)).fingerprints[0] not in spare]
    )
    show(f"Removed {len(spare)} keys; secrets.json has {len(ring)}. Restart every process.")


def _meaning(found: StoredSecrets, fingerprint: str) -> str:
    if fingerprint == next(iter(found.by_key)):
        return "newest: seals"
    return "may go" if fingerprint in found.spare_keys else "run key rotate-encryption"


@key.command("jwt")
def key_jwt(
    rsa: Annotated[
        bool, typer.Option("--rsa", help="An RSA private key in PEM for JWT_PRIVATE_KEY_FILE (JWT_ALGORITHM=RS256).")
    ] = False,
) -> None:
    """Print a new secret for JWT_SECRET; the one before goes into JWT_PREVIOUS_SECRET while its tokens live."""
    if not rsa:
        show(secrets.token_hex(32))
        return
    made = generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    show(*made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().splitlines())
