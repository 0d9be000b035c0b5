"""What random data never hits on: credentials, ids of what is there, links that are signed, addresses handed out."""

import hashlib
import hmac
import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from actions import administer, control_access
from actions.status_callbacks import callback_url
from domain.identifiers import new_id
from persistence.models import Message, VoiceAiConfig
from tests.support.api import Api
from tests.support.audio import mp3_base64
from tests.support.reading import contact_of, conversation_row, message_row
from tests.support.vendors import FakeTwilio

POST_CALL = "/api/webhook/elevenlabs"
CONNECT = "/api/calls/voice-ai/agents/{agentId}/connect"
AGENT = "agent_fuzz"
SMS_STATUS = "/api/webhook/sms/{provider}/{messageId}"

# Which environment variable holds a bearer token of which kind.
TOKENS = {"JWT": "FUZZ_JWT", "API key": "FUZZ_API_KEY", "tool secret": "FUZZ_TOOL_SECRET"}

_SPARE_PHONE, _TEXTED_PHONE, _ERASED_PHONE = "+14165550177", "+14165550166", "+14165550155"
_CALL = {
    "direction": "inbound",
    "toNumber": "+12362320246",
    "duration": 3,
    "status": "completed",
    "summary": "Fuzzed.",
    "transcript": [{"role": "user", "message": "Hello."}],
    "recording": mp3_base64(40),
}


def meant(operation_path: str, name: str) -> str:
    """Return what a parameter of a path is by its own name; the vendor calls several of them `id`."""
    if name != "id":
        return name
    return "contactId" if operation_path.startswith("/api/contacts/") else "conversationId"


@dataclass(frozen=True)
class Known:
    """What there is before a run, in the contract's words; `path`, `query` and `body` by name."""

    path: dict[str, str]
    query: dict[str, str]
    body: dict[str, str]
    link: dict[str, str]
    link_to_nothing: str
    spare_contact: str
    spare_key: str
    webhook_secret: str
    twilio_token: str
    callback: str

    def dumps(self) -> str:
        """Return it as the text an environment variable can hold."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Known":
        """Read that text."""
        return cls(**json.loads(text))

    def sparing(self) -> "Known":
        """Return the same with a contact that may be erased and an API key that may be revoked."""
        return replace(self, path=self.path | {"contactId": self.spare_contact, "keyId": self.spare_key})

    def signature(self, path: str, body: bytes) -> dict[str, str]:
        """Return the headers by which a vendor proves that `body`, sent to the operation at `path`, is from it."""
        if path == POST_CALL:
            moment = int(time.time())
            digest = hmac.new(self.webhook_secret.encode(), f"{moment}.".encode() + body, hashlib.sha256)
            return {"ElevenLabs-Signature": f"t={moment},v0={digest.hexdigest()}"}
        if path == SMS_STATUS:
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
            return FakeTwilio.signature(self.twilio_token, self.callback, fields)
        return {}


async def prepare(api: Api, twilio: FakeTwilio) -> Known:
    """Make one of everything: a call with its recording, a text that was sent, a contact that may be erased."""
    await administer.configure_sms(api.relay, api.organization_id, "twilio", dict(twilio.credentials))
    call = (await api.ingest({**_CALL, "fromNumber": api.demo.contact_phone})).json()
    spare = (await api.ingest({**_CALL, "fromNumber": _SPARE_PHONE})).json()
    await api.tool("send-sms", {"phone_number": api.demo.contact_phone, "message": "Fuzzed."})
    note = (await api.tool("create-note", {"phone_number": api.demo.contact_phone, "note": "Fuzzed."})).json()
    bearer = {"Authorization": f"Bearer {api.superadmin_token}"}
    recording = (await api.http.get(f"/api/calls/{call['callId']}/recording", headers=bearer)).json()
    message = await api.read(lambda: Message.select().get())
    callback = twilio.messages[-1]["status_callback"] or ""
    secret = await _with_webhook(api)
    made = [await control_access.named_key(api.relay, api.demo.superadmin_email, name) for name in ("kept", "spare")]
    keys = [fresh.key.id for fresh in made]
    return Known(
        path={
            "callId": call["callId"],
            "contactId": call["contactId"],
            "conversationId": call["conversationId"],
            "recordingId": recording["recordingId"],
            "provider": "twilio",
            "messageId": message.id,
            "keyId": keys[0],
            "noteId": note["note_id"],
            "organizationId": api.organization_id,
            "agentId": AGENT,
        },
        query={"contactId": call["contactId"]} | dict(parse_qsl(urlsplit(callback).query)),
        body={
            "phone_number": api.demo.contact_phone,
            "recording": mp3_base64(2),
            "contactId": call["contactId"],
            "phoneNumber": api.demo.contact_phone,
            "refreshToken": api.superadmin_token,
            "email": api.demo.superadmin_email,
            "password": api.demo.superadmin_password.get_secret_value(),
        },
        link=dict(parse_qsl(urlsplit(recording["audioUrl"]).query)),
        link_to_nothing=await _link_to_nothing(api, bearer),
        spare_contact=spare["contactId"],
        spare_key=keys[1],
        webhook_secret=secret,
        twilio_token=twilio.auth_token,
        callback=callback,
    )


async def _link_to_nothing(api: Api, bearer: dict[str, str]) -> str:
    """Return a link to a recording whose contact was erased since."""
    call = (await api.ingest({**_CALL, "fromNumber": _ERASED_PHONE})).json()
    recording = (await api.http.get(f"/api/calls/{call['callId']}/recording", headers=bearer)).json()
    erased = await api.http.delete(f"/api/contacts/{call['contactId']}", headers=bearer)
    assert erased.status_code == 200, erased.text
    return str(urlsplit(recording["audioUrl"])._replace(scheme="", netloc="").geturl())


async def callbacks_by_token(api: Api) -> list[str]:
    """Return where a vendor reports that signs nothing: about a message there is, and about one that has gone."""
    contact_id = await contact_of(api, _TEXTED_PHONE)

    def unit() -> Message:
        conversation = conversation_row(api.organization_id, contact_id)
        sent = {"provider": "sinch", "provider_message_id": "01FUZZED"}
        return message_row(api.organization_id, contact_id, conversation.id, **sent)

    messages = [await api.relay.database.write(unit), Message(id=new_id(), provider="sinch")]
    urls = [callback_url(api.relay, message) or "" for message in messages]
    return [url.removeprefix(api.relay.rules.public_url or "") for url in urls]


async def _with_webhook(api: Api) -> str:
    secret = "wsec_" + "0" * 64
    sealed = api.relay.vault.seal(secret)

    def unit() -> None:
        mine = VoiceAiConfig.organization == api.organization_id
        VoiceAiConfig.update(webhook_secret_sealed=sealed, webhook_id="wh_fuzz").where(mine).execute()

    await api.relay.database.write(unit)
    return secret


async def with_key(api: Api, key: str) -> None:
    """Give the organization the key of a workspace, whatever the run has made of it."""
    sealed = api.relay.vault.seal(key)

    def unit() -> None:
        mine = VoiceAiConfig.organization == api.organization_id
        VoiceAiConfig.update(elevenlabs_api_key_sealed=sealed).where(mine).execute()

    await api.relay.database.write(unit)


def known_parameters(known: Known, operation_path: str, query: dict[str, Any]) -> dict[str, Any]:
    """Return the query of an operation with what is known in the place of what is random."""
    mine = known.query | (known.link if operation_path.endswith("/audio") else {})
    return query | {name: value for name, value in mine.items() if name in query}


def known_body(known: Known, body: Any) -> Any:
    """Return `body` with what is known in the place of its random texts."""
    if not isinstance(body, dict):
        return body
    return {name: known.body.get(name, old) if isinstance(old, str) else old for name, old in body.items()}
