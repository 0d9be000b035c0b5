"""The demo organization: its credentials on disk, and how to try it."""

import json
import os
import shlex
import sys
from pathlib import Path

from actions import administer
from actions.set_up_demo import set_up_demo
from app import open_relay
from commands import terminal
from config import Settings
from domain.errors import ConfigurationError, NotFound

_DEMO_FILE = "demo.json"
_DEMO_KEYS = {"superadminEmail", "superadminPassword", "apiKey", "toolSecret", "contactPhone", "organizationPhone"}
_TOKEN_DAYS = 30


def credentials(settings: Settings) -> dict[str, str]:
    """Return what `prepare` wrote, or nothing when there is no demo.

    Raises:
        ConfigurationError: when it cannot be read.
    """
    path = settings.data_dir / _DEMO_FILE
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
        if not isinstance(found, dict) or (found and not found.keys() >= _DEMO_KEYS):
            raise ValueError("something is missing")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read; repair it, or remove it to go on without it.") from error
    return found


async def prepare(settings: Settings) -> dict[str, str]:
    """Make the demo organization on first use, and write down what it takes to try it."""
    async with open_relay(settings) as relay:
        made = await set_up_demo(relay)
        known = credentials(settings)
        if made is not None:
            known = {
                "superadminEmail": made.superadmin_email,
                "superadminPassword": made.superadmin_password.get_secret_value(),
                "apiKey": made.api_key.get_secret_value(),
                "toolSecret": made.tool_secret.get_secret_value(),
                "contactPhone": made.contact_phone,
                "organizationPhone": made.organization_phone,
            }
        if known:
            try:
                token = await administer.issue_token(relay, known["superadminEmail"], _TOKEN_DAYS * 86_400)
            except NotFound:
                return {}  # they are of another database, and stay for when that is used again
            known |= {
                "apiUrl": settings.local_url,
                "realtimeUrl": settings.local_realtime_url,
                "superadminToken": token.get_secret_value(),
            }
            _write_private(settings.data_dir / _DEMO_FILE, json.dumps(known, indent=2))
            _write_private(settings.data_dir / "demo.env", _for_shells(known))
    return known


def _for_shells(known: dict[str, str]) -> str:
    names = {
        "API": "apiUrl",
        "JWT": "superadminToken",
        "KEY": "apiKey",
        "TOOL": "toolSecret",
        "PHONE": "contactPhone",
        "OURS": "organizationPhone",
        "EMAIL": "superadminEmail",
        "PASSWORD": "superadminPassword",
    }
    return "".join(f"{name}={shlex.quote(known[key])}\n" for name, key in names.items())


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # a draft that a crash left behind keeps the mode it had
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def show(demo: dict[str, str], settings: Settings) -> None:
    """Print the credentials, and for each operation something to paste."""
    if not demo:
        terminal.show("", f"Tether Relay is running at {settings.local_url}. Ctrl-C stops it; its data stays.", "")
        return
    # A line's end in what is shown would be one of the text it stands in.
    demo = {name: terminal.printable(value) for name, value in demo.items()}
    api, tool, phone = demo["apiUrl"], demo["toolSecret"], demo["contactPhone"]
    tools = f"{api}/api/webhook/elevenlabs/tools"
    text = f"""
Tether Relay is running. Ctrl-C stops it; its data stays.

  API          {api}     (try it in a browser: {api}/docs)
  Realtime     {demo["realtimeUrl"]}
  Superadmin   {demo["superadminEmail"]} / {demo["superadminPassword"]}
  API key      {demo["apiKey"]}
  Tool secret  {tool}
  Contact      {phone}
  Our number   {demo["organizationPhone"]}

Save a note, as the agent does in the middle of a call:

{_curl(f"{tools}/create-note", tool, {"phone_number": phone, "note": "Wants a callback on Friday."})}

Text the caller (the demo's provider only writes to the log):

{_curl(f"{tools}/send-sms", tool, {"phone_number": phone, "message": "Here is the link we spoke about."})}

Ask for a person:

{_curl(f"{tools}/transfer", tool, {"reason": "Caller asked for a supervisor"})}

Push a finished call:

{_curl(f"{api}/api/calls/ingest", demo["apiKey"], _EXAMPLE_CALL)}

Configure voice AI:

{_curl(f"{api}/api/calls/voice-ai/config", demo["superadminToken"], {"sinchEstTrunkDomain": "example.sip.sinch.com"})}

Listen to what happens:

  {terminal.printable(_listen(settings))}

The same for scripts: {terminal.printable(str(settings.data_dir / _DEMO_FILE))}
"""
    terminal.show(*text.split("\n"))


def _listen(settings: Settings) -> str:
    # The credentials are looked up where the state lives, and what we were started with is not in every shell.
    elsewhere = settings.data_dir != Settings.model_fields["data_dir"].default
    place = f"DATA_DIR={shlex.quote(str(settings.data_dir))} " if elsewhere else ""
    return f"{place}{_python()} manage.py listen"


def _python() -> str:
    relative = os.path.relpath(sys.executable)
    return sys.executable if relative.startswith("..") else relative


_EXAMPLE_CALL = {
    "direction": "outbound",
    "fromNumber": "+12362320246",
    "toNumber": "+14165550100",
    "duration": 0,
    "status": "no-answer",
    "externalCallId": "demo-call-1",
}


def _curl(url: str, token: str, body: dict[str, object]) -> str:
    return f"""  curl -s {url} \\
    -H 'Authorization: Bearer {token}' \\
    -H 'Content-Type: application/json' \\
    -d '{json.dumps(body)}'"""
