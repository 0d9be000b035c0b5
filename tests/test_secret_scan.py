"""No credential, whole or in part, is found in logs, in the database, in a file or in an event."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from clients.python.tether_relay_client import follow
from drills.load import INGEST, TOOLS, Callers
from drills.stage import Process, Stage, staged
from persistence import tables
from tests.support.audio import mp3
from tests.support.faulty_http import FakeVendor, Received, Reply
from tests.support.spellings import Finding, findings
from tests.support.up import manage
from tests.support.vendors import FakeElevenLabs, FakeSinch, FakeTextGrid, FakeTwilio
from tests.support.waiting import PATIENCE_SECONDS, patience

CONFIG = "/api/calls/voice-ai/config"
PUBLIC = "https://relay.example"
NOTE = "a note that must be found, or the scan finds nothing"
REQUEST_ID = "a-request-id-that-must-be-found"


class RecordingHost(FakeVendor):
    """A call system's recordings."""

    def answer(self, request: Received) -> Reply:
        return Reply(200, body=mp3(60), headers={"Content-Type": "audio/mpeg"})


@dataclass
class Scene:
    """An installation with every vendor, and the secrets that went through it, by what each is."""

    stage: Stage
    api: Process
    broadcaster: Process
    http: httpx.AsyncClient
    twilio: FakeTwilio
    sinch: FakeSinch
    textgrid: FakeTextGrid
    elevenlabs: FakeElevenLabs
    host: RecordingHost
    secrets: dict[str, str] = field(default_factory=dict)
    frames: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def plant(self, name: str, secret: str) -> str:
        """Remember a secret under its name, and return it."""
        self.secrets[name] = secret
        return secret

    async def post(self, path: str, token: str, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post(path, json=body, headers={"Authorization": f"Bearer {token}"} | headers)


@contextlib.asynccontextmanager
async def scenery(engine: str, folder: Path) -> AsyncIterator[Scene]:
    async with (
        FakeTwilio() as twilio,
        FakeSinch() as sinch,
        FakeTextGrid() as textgrid,
        FakeElevenLabs() as elevenlabs,
        RecordingHost() as host,
        staged(
            engine,
            folder=folder,
            twilio=twilio,
            sinch_auth_url=sinch.url,
            sinch_sms_url=sinch.url,
            textgrid_url=textgrid.url,
            elevenlabs_url=elevenlabs.url,
            public_url=PUBLIC,
            log_level="debug",
        ) as stage,
    ):
        api, broadcaster = await stage.api(), await stage.broadcaster()
        async with httpx.AsyncClient(base_url=api.url, trust_env=False, timeout=PATIENCE_SECONDS) as http:
            yield Scene(stage, api, broadcaster, http, twilio, sinch, textgrid, elevenlabs, host)


async def test_no_credential_is_found_where_it_does_not_belong(engine: str, tmp_path: Path) -> None:
    """After everything was used, rightly and wrongly: not in a log line, a row, a file, an event or a figure."""
    async with scenery(engine, tmp_path) as scene:
        listening = asyncio.create_task(listen(scene))
        plant_what_is_there(scene)
        await sign_in(scene)
        await configure(scene)
        await text_through_every_vendor(scene)
        await record_and_report(scene)
        await make_mistakes(scene)
        await scene.post(f"{TOOLS}/create-note", scene.secrets["tool secret"], note(scene, NOTE))
        await listening
        places = await everything(scene)

    leaks = {name: found(places, secret) for name, secret in scene.secrets.items()}
    assert len(leaks) >= 25
    assert {name: where for name, where in leaks.items() if where} == {}
    assert holding(places, NOTE) >= {"database", "events"}
    assert holding(places, REQUEST_ID) == {"logs"}


# The scan.


def found(places: dict[str, bytes], secret: str) -> list[tuple[str, Finding]]:
    """Return each place that holds the secret or a part of it, with the way it is written there and what is around."""
    # The head of a JWT and the prefix of a key are the same for everybody.
    own = secret.partition(".")[2] if secret.startswith("eyJ") else secret.removeprefix("tk_live_")
    texts = {name: content.decode("utf-8", "replace") for name, content in places.items()}
    return [(name, finding) for name, text in texts.items() for finding in findings(own, text)]


def holding(places: dict[str, bytes], text: str) -> set[str]:
    """Name the places that hold the text."""
    return {name for name, content in places.items() if text.encode() in content}


async def everything(scene: Scene) -> dict[str, bytes]:
    """Return whatever is kept, said or shown."""
    stage = scene.stage
    async with stage.relay() as relay:
        rows = await relay.database.read(lambda: [repr(tables.page(name, None, 10_000)) for name in tables.names()])
    token = {"Authorization": f"Bearer {scene.secrets['token of a command']}"}
    shown = [(await scene.http.get(page, headers=token)).text for page in (CONFIG, "/metrics", "/readyz", "/live")]
    figures = (await scene.http.get(f"{scene.broadcaster.url}/metrics")).text
    files = (path for path in stage.data_dir.rglob("*") if path.is_file())
    return {
        "logs": stage.logs().encode(),
        "commands": "".join(scene.said).encode(),
        "database": "\n".join(rows).encode(),
        "events": json.dumps(scene.frames).encode(),
        "pages": "".join([*shown, figures]).encode(),
    } | {str(path.relative_to(stage.data_dir)): path.read_bytes() for path in files}


# What happens.


async def listen(scene: Scene) -> None:
    """Follow until the last note is told of; before, show a token wherever a token may be shown."""
    key, url = scene.stage.demo.api_key.get_secret_value(), scene.broadcaster.url.replace("http", "ws") + "/v1"
    for address, protocols in ((f"{url}?token={key}&access_token={key}", None), (url, ["relay.v1", f"bearer.{key}"])):
        with contextlib.suppress(WebSocketException, ConnectionError):
            async with connect(address, subprotocols=protocols) as connection:  # type: ignore[arg-type]
                await connection.send(json.dumps({"type": "auth", "token": scene.stage.superadmin_token[:-1]}))
                await connection.recv()
    following = follow(url, token=key, since=0, on_state=lambda _, detail: scene.frames.append(dict(detail)))
    async with patience(), following as events:
        async for event in events:
            scene.frames.append(dict(event))
            if NOTE in json.dumps(event):
                return


def plant_what_is_there(scene: Scene) -> None:
    """Name what the installation was made with, and what its vendors know it by."""
    demo, environment, sinch = scene.stage.demo, scene.stage.environment, scene.sinch
    known = {
        "JWT secret": environment["JWT_SECRET"],
        "encryption key": environment["ENCRYPTION_KEYS"],
        "password": demo.superadmin_password.get_secret_value(),
        "API key": demo.api_key.get_secret_value(),
        "tool secret": demo.tool_secret.get_secret_value(),
        "JWT": scene.stage.superadmin_token,
        "Twilio token": scene.twilio.auth_token,
        "Twilio key": scene.twilio.api_key_secret,
        "Sinch token": sinch.api_token,
        "Sinch key": sinch.key_secret,
        "Sinch webhook secret": sinch.webhook_secret,
        "TextGrid token": scene.textgrid.auth_token,
        "TextGrid webhook secret": scene.textgrid.webhook_secret,
        "ElevenLabs key": scene.elevenlabs.api_key,
    }
    for name, secret in known.items():
        scene.plant(name, secret)


async def sign_in(scene: Scene) -> None:
    """With the right password, a wrong one, and one in the wrong place; then renew and give back."""
    email, password = scene.stage.demo.superadmin_email, scene.secrets["password"]
    wrong = scene.plant("mistyped password", password[::-1])
    for name, secret in ((email, wrong), (password, password), (email, [password])):
        await scene.http.post("/api/auth/login", json={"email": name, "password": secret})
    signed_in = await scene.http.post("/api/auth/login", json={"email": email, "password": password})
    token = scene.plant("token of a session", signed_in.json()["token"])
    refreshed = await scene.post("/api/auth/refresh", token, {})
    scene.plant("refreshed token", refreshed.json()["token"])
    assert (await scene.post("/api/auth/sign-out", token, {})).is_success
    await scene.post("/api/auth/sign-out", token, {})
    output = await manage(scene.stage.environment, "user", "token", email)
    scene.plant("token of a command", output[1].strip())


async def configure(scene: Scene) -> None:
    """First with a key that ElevenLabs quotes back at us, then with one it takes."""
    token = scene.secrets["token of a command"]  # signing out ended those before it
    wrong = scene.plant("mistyped ElevenLabs key", "sk_" + "0a1b2c3d4e5f" * 4)
    scene.elevenlabs.behave(Reply(401, {"detail": {"message": f"Invalid API key: {wrong}"}}), always=True)
    await scene.post(CONFIG, token, {"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": wrong})
    scene.elevenlabs.behave()
    right = {"aiVoiceProvider": "elevenlabs", "elevenlabsApiKey": scene.elevenlabs.api_key}
    for name in ("former tool secret", "tool secret"):
        saved = await scene.post(CONFIG, token, right | {"generateToolSecret": True})
        assert saved.is_success, saved.text
        scene.plant(name, saved.json()["elevenlabsToolSecret"])
    await scene.post(CONFIG, token, {"elevenlabsApiKey": [scene.elevenlabs.api_key]})
    assert len(scene.elevenlabs.secrets) == 1
    for name, secret in scene.elevenlabs.secrets.items():
        scene.plant(f"webhook secret {name}", secret)


async def text_through_every_vendor(scene: Scene) -> None:
    """By each kind of credentials, given on the command line's input; refused first, with the credentials quoted."""
    ways: list[tuple[str, FakeVendor, dict[str, Any]]] = [
        ("twilio", scene.twilio, dict(scene.twilio.credentials)),
        ("twilio", scene.twilio, dict(scene.twilio.api_key_credentials)),
        ("sinch", scene.sinch, scene.sinch.service_plan | {"webhook_secret": scene.sinch.webhook_secret}),
        ("sinch", scene.sinch, dict(scene.sinch.project)),
        ("textgrid", scene.textgrid, scene.textgrid.credentials | {"webhook_secret": scene.textgrid.webhook_secret}),
    ]
    callers, tool = Callers(scene.stage, [scene.api]), scene.secrets["tool secret"]
    for number, (name, vendor, credentials) in enumerate(ways):
        document = json.dumps(credentials)
        chosen = await manage(scene.stage.environment, "org", "sms", "Demo", name, "--credentials", "-", stdin=document)
        assert chosen[0] == 0, chosen
        scene.said += chosen[1:]
        vendor.behave(Reply(401, {"code": 20003, "message": f"Authenticate: {document}", "text": document}))
        refused = await scene.post(f"{TOOLS}/send-sms", tool, callers.text(f"{number} refused"))
        sent = await scene.post(f"{TOOLS}/send-sms", tool, callers.text(f"{number}"))
        assert (refused.json()["success"], sent.json()["success"]) == (False, True)
        for sold in itertools.chain(scene.sinch.tokens):
            scene.plant(f"access token {sold[:4]}", sold)
    for number, message in enumerate(scene.twilio.messages):
        scene.plant(f"callback token {number}", message["status_callback"].partition("token=")[2])


async def record_and_report(scene: Scene) -> None:
    """Calls with recordings at addresses that hold a credential, reports that are signed, and some that are not."""
    callers, key = Callers(scene.stage, [scene.api]), scene.secrets["API key"]
    link = scene.plant("token in an address", "3f9c1e7a5b2d4860") + "9182736450fedcba"
    user = scene.plant("password in an address", "hunter2-hunter3-hunter4")
    plain = scene.host.url.removeprefix("http://")
    for number, url in enumerate((f"http://{plain}/1.mp3?token={link}", f"http://bob:{user}@{plain}/2.mp3")):
        await scene.post(INGEST, key, callers.call(f"linked-{number}") | {"recording": url})
    await scene.post(INGEST, key, callers.call("whole"))
    (webhook,) = scene.elevenlabs.webhooks
    for document in ({"type": "unknown"}, {"type": "post_call_transcription", "data": {}}):
        delivery = scene.elevenlabs.delivery(webhook, document)
        for headers in (delivery.headers, {"ElevenLabs-Signature": f"t=1,v0={scene.secrets['JWT secret']}"}):
            await scene.http.post("/api/webhook/elevenlabs", content=delivery.body, headers=headers)
    for message in scene.twilio.messages:
        report = scene.twilio.status_callback(message, "delivered")
        await scene.http.post(report.url.removeprefix(PUBLIC), content=report.body, headers=report.headers)


async def make_mistakes(scene: Scene) -> None:
    """Show each secret where it does not belong, as people and programs do."""
    for secret in list(scene.secrets.values()):
        with contextlib.suppress(httpx.InvalidURL):
            await scene.http.get("/api/calls/ingest", params={"token": secret, "api_key": secret})
        await scene.post(CONFIG, secret, {secret: secret})
        await scene.http.post(INGEST, content=secret, headers={"Authorization": f"Basic {secret}", "X-Api-Key": secret})
        await scene.http.post(f"{TOOLS}/create-note", headers={"Authorization": secret}, json={"note": [secret]})
    await scene.http.get("/healthz", headers={"X-Request-Id": scene.secrets["API key"]})
    await scene.http.get(f"/api/{scene.secrets['API key']}")
    await scene.http.get("/nowhere", headers={"X-Request-Id": REQUEST_ID})


def note(scene: Scene, text: str) -> dict[str, str]:
    return {"phone_number": scene.stage.demo.contact_phone, "note": text}
