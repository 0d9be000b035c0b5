"""Every operation of the served document, against every token that must not open it."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from actions import administer
from actions.authenticate import authenticate
from app import body_limits
from domain.principals import KeyKind, Principal, Role, TokenKind
from openapi.document import Operation
from openapi.exchange import Handler, NotWritten, Request
from openapi.operations import OPERATIONS
from openapi.serving import assembly
from persistence import users
from persistence.models import MODELS, User
from tests.support.api import Api, running_api, serving
from tests.support.contract import CONTRACT, PUBLISHED, assert_documented, good_body, kinds_of, target_of
from tests.support.kinds import Kinds
from tests.support.wire import JSON, Answer, bearer, exchange, request

# Who is let in has nothing to do with the database, so it is tried on one engine.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.parametrize("engine", ["sqlite"])]

CLOSED = [operation for operation in CONTRACT.operations if not operation.is_public]
EVERY = pytest.mark.parametrize("operation", CLOSED, ids=lambda operation: operation.key)
SECRET = "a secret that signs tokens, long enough for HS512, and known to this test alone"
AUDIENCE = "tether-relay"


@dataclass(frozen=True)
class Fort:
    """The API, a second front whose handlers only write down that they ran, and who may enter."""

    api: Api
    watched_url: str
    ran: list[str]
    superadmin: User
    tokens: dict[TokenKind, str]
    expired: str
    of_the_deleted: str
    revoked: str

    def good_token(self, operation: Operation) -> str:
        """Return a token that opens the operation, or any good one where signatures count and tokens do not."""
        return self.tokens[next(iter(sorted(kinds_of(operation))), TokenKind.JWT)]

    def wrong_kinds(self, operation: Operation) -> list[str]:
        """Return tokens that are good, but for other operations."""
        return [token for kind, token in self.tokens.items() if kind not in kinds_of(operation)]


Headers = list[tuple[bytes, bytes]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fort(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fort]:
    folder: Path = tmp_path_factory.mktemp("security")
    async with running_api(folder / "var", jwt_secret=SECRET) as api:
        ran: list[str] = []
        watched = assembly.build(
            CONTRACT,
            api.relay,
            partial(authenticate, api.relay),
            bindings=OPERATIONS,
            bodies=body_limits(api.relay.rules),
            handlers={key: _note_down(key, ran) for key in (one.key for one in CONTRACT.operations)},
        )
        async with serving(watched) as url:
            yield await _fort(api, url, ran)


def _note_down(key: str, ran: list[str]) -> Handler:
    async def handler(request: Request[Any], **_: Any) -> Any:
        ran.append(key)
        raise NotWritten

    return handler


async def _fort(api: Api, watched_url: str, ran: list[str]) -> Fort:
    superadmin = await api.read(lambda: users.by_email(api.demo.superadmin_email))
    deleted = await _user(api, "deleted", Role.SUPERADMIN)
    of_the_deleted = api.relay.tokens.issue(deleted.id, deleted.token_version, 3600)
    await api.relay.database.write(lambda: User.delete().where(User.id == deleted.id).execute())
    signed_out = await _user(api, "signed.out", Role.SUPERADMIN)
    revoked = api.relay.tokens.issue(signed_out.id, signed_out.token_version, 3600)
    await api.relay.database.write(lambda: User.update(token_version=1).where(User.id == signed_out.id).execute())
    assert superadmin is not None
    return Fort(
        api,
        watched_url,
        ran,
        superadmin,
        {
            TokenKind.JWT: api.superadmin_token,
            TokenKind.API_KEY: await _key(api, KeyKind.INGEST),
            TokenKind.LISTENING_KEY: await _key(api, KeyKind.LISTEN),
            TokenKind.TOOL_SECRET: api.demo.tool_secret.get_secret_value(),
        },
        expired=api.relay.tokens.issue(superadmin.id, superadmin.token_version, -1),
        of_the_deleted=of_the_deleted,
        revoked=revoked,
    )


async def _key(api: Api, kind: KeyKind) -> str:
    answer = await api.post("/api/user/api-keys", {"name": kind.value, "kind": kind.value}, api.superadmin_token)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["apiKey"])


async def _user(api: Api, name: str, role: Role) -> User:
    return await administer.create_user(
        api.relay,
        api.organization_id,
        email=f"{name}@demo.example",
        full_name=name,
        password=SecretStr("correct horse"),
        role=role,
    )


def alike(operation: Operation) -> list[Operation]:
    """Return the operations that take the same kinds of token."""
    return [one for one in CLOSED if kinds_of(one) == kinds_of(operation)]


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)


def assert_refused(answer: Answer, operation: Operation, sent: object = "") -> None:
    """Insist on the operation's own documented 401, and on nothing else being told."""
    assert answer.status == 401, (sent, answer)
    assert answer.header("WWW-Authenticate") == "Bearer"
    body = assert_documented(answer, operation)
    assert body.get("success", False) is False
    # Whatever the envelope, it has one sentence and perhaps a word for programs.
    assert 0 < sum(map(len, texts(body))) < 100
    for internal in ("Traceback", "jwt", "peewee", "connexion", "sqlite", ".py", SECRET):
        assert internal not in answer.body.decode()


async def assert_locked(fort: Fort, operation: Operation, *attempts: Headers) -> None:
    """Send a good request with each of those headers: all are refused, run no handler and leave no trace."""
    body = json.dumps(good_body(operation)).encode() if operation.body else b""
    before, fort.ran[:] = await _rows(fort.api), []
    for headers in attempts:
        sent = request(operation.method, target_of(operation), [*headers, JSON], body)
        for url in (fort.watched_url, fort.api.url):
            assert_refused(await exchange(url, sent), operation, headers)

    assert fort.ran == []
    assert await _rows(fort.api) == before


async def _rows(api: Api) -> dict[str, list[Any]]:
    return await api.read(lambda: {model.__name__: list(model.select().dicts()) for model in MODELS})


# What opens


@pytest.mark.parametrize("operation", PUBLISHED, ids=lambda operation: operation.key)
async def test_the_right_token_reaches_the_handler(fort: Fort, operation: Operation) -> None:
    """What the other tests lock out would otherwise be let in, whatever the case of the scheme."""
    fort.ran.clear()
    for scheme in (b"Bearer ", b"bearer ", b"BEARER   "):
        header = (b"authorization", scheme + fort.good_token(operation).encode())
        sent = request(operation.method, operation.path, [header, JSON], json.dumps(good_body(operation)).encode())
        await exchange(fort.watched_url, sent)

    assert fort.ran == [operation.key] * 3


@EVERY
async def test_every_kind_of_token_an_operation_names_is_let_in(fort: Fort, operation: Operation) -> None:
    """Whatever is wrong with the request apart from that is said after it."""
    for kind in kinds_of(operation):
        sent = request(operation.method, target_of(operation), [bearer(fort.tokens[kind]), JSON], b"{}")

        assert (await exchange(fort.watched_url, sent)).status != 401


# What does not

MALFORMED = Kinds(
    [b"", b"Bearer ", b"Basic {token}", b"{token}"],
    [
        b"Bearer",
        b"Token {token}",
        b"Bearer: {token}",
        b"Bearer={token}",
        b"Bearer {token} {token}",
        b"Bearer {token},{token}",
        b"Bearer {token}, Bearer {token}",
        b'Bearer "{token}"',
        b"Bearer\t{token}",
        b"Bearer {token}\tx",
        b"Bearer {token}\x80",
        b"Bearer \xc3\xa9",
        b"Bearer {token}=x",
        b"Bearer {token}" + b"a" * 10_240,
        b"Bearer " + b"a" * 10_240,
        b"Bearer " + b"a" * 4096,
        b"Bearer eyJ" + b"." * 4000,
        b"Bearer null",
        b"Bearer ' OR '1'='1",
        b"Bearer %",
    ],
)


@EVERY
async def test_a_malformed_header_opens_nothing(fort: Fort, operation: Operation) -> None:
    """It takes `Bearer <token>` and nothing else, even around the right token."""
    token, malformed = fort.good_token(operation).encode(), MALFORMED.of(operation, alike(operation))
    await assert_locked(
        fort, operation, *[[(b"Authorization", value.replace(b"{token}", token))] for value in malformed]
    )


@EVERY
async def test_no_header_opens_nothing(fort: Fort, operation: Operation) -> None:
    """Nor does the right token anywhere but in the Authorization header."""
    token = fort.good_token(operation).encode()
    elsewhere: Headers = [(b"Cookie", b"token=" + token), (b"X-Api-Key", token)]
    await assert_locked(fort, operation, [], elsewhere, [(b"Proxy-Authorization", b"Bearer " + token)])


@EVERY
async def test_a_token_in_the_query_opens_nothing(fort: Fort, operation: Operation) -> None:
    """Addresses end up in logs and histories."""
    token = fort.good_token(operation)
    target = f"{target_of(operation)}?access_token={token}&authorization=Bearer%20{token}"

    assert_refused(await exchange(fort.api.url, request(operation.method, target, [JSON], b"{}")), operation)


@EVERY
async def test_two_headers_open_nothing(fort: Fort, operation: Operation) -> None:
    """Whichever of them is right: a proxy may have believed the other one."""
    right, wrong = bearer(fort.good_token(operation)), bearer("wrong")
    await assert_locked(fort, operation, [right, wrong], [wrong, right], [right, right])


@EVERY
async def test_control_characters_do_not_get_past_the_parser(fort: Fort, operation: Operation) -> None:
    """They are no HTTP, whatever stands around them."""
    fort.ran.clear()
    for number in (0, 1, 7, 8, 11, 12, 27, 31, 127):
        header = (b"Authorization", b"Bearer " + fort.good_token(operation).encode() + bytes([number]))
        sent = request(operation.method, target_of(operation), [header], b"{}")
        assert (await exchange(fort.watched_url, sent)).status == 400

    assert fort.ran == []


@EVERY
async def test_a_token_of_another_kind_opens_nothing(fort: Fort, operation: Operation) -> None:
    """A JWT is refused on ingest, an API key on the tools, a tool secret on the configuration, and so on."""
    wrong = fort.wrong_kinds(operation)
    assert len(wrong) == len(TokenKind) - len(kinds_of(operation))
    await assert_locked(fort, operation, *[[bearer(token)] for token in wrong])


@EVERY
async def test_a_token_that_is_not_quite_right_opens_nothing(fort: Fort, operation: Operation) -> None:
    """Neither a piece of it, nor its digest, nor one that only looks like it."""
    right = fort.good_token(operation)
    altered = {
        right[:-1],
        right[1:],
        right[:-3] + ("aaa" if right[-3:] != "aaa" else "bbb"),
        right.swapcase(),
        right + "0",
        right.replace(".", ".."),
        hashlib.sha256(right.encode()).hexdigest(),
        "tk_live_" + "0" * 36,
        "0" * 64,
        "wrong",
    }
    await assert_locked(fort, operation, *[[bearer(token)] for token in altered - {right}])


@EVERY
async def test_an_expired_revoked_or_orphaned_jwt_opens_nothing(fort: Fort, operation: Operation) -> None:
    """Time passes, people sign out, and users are deleted."""
    tokens = (fort.expired, fort.revoked, fort.of_the_deleted)
    await assert_locked(fort, operation, *[[bearer(token)] for token in tokens])


# Forged tokens

Claims = dict[str, Any]


def _claims(fort: Fort, **changes: Any) -> Claims:
    now = int(time.time())
    claims = {"sub": fort.superadmin.id, "ver": 0, "aud": AUDIENCE, "iat": now, "exp": now + 3600} | changes
    return {name: value for name, value in claims.items() if value is not ...}


def _part(value: Any) -> bytes:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _forge(header: Claims, claims: Any, secret: bytes = SECRET.encode(), digest: str = "sha256") -> str:
    signed = _part(header) + b"." + _part(claims)
    return (signed + b"." + _part(hmac.new(secret, signed, digest).digest())).decode()


HS256 = {"alg": "HS256", "typ": "JWT"}
KEY_PAIR = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_KEY = KEY_PAIR.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


async def test_a_token_written_by_hand_is_believed_when_all_of_it_is_right(fort: Fort) -> None:
    """So that the forgeries below fail for what is wrong with them, and for nothing else."""
    token = _forge(HS256, _claims(fort))
    answer = await exchange(fort.api.url, request("GET", "/api/calls/voice-ai/config", [bearer(token)]))

    assert answer.status == 200


FORGERIES: dict[str, Callable[[Fort], str]] = {
    "alg none": lambda fort: (_part({"alg": "none"}) + b"." + _part(_claims(fort)) + b".").decode(),
    "alg None, signed": lambda fort: _forge({"alg": "None"}, _claims(fort)),
    "alg absent": lambda fort: _forge({"typ": "JWT"}, _claims(fort)),
    "alg null": lambda fort: _forge({"alg": None}, _claims(fort)),
    "alg a list": lambda fort: _forge({"alg": ["HS256"]}, _claims(fort)),
    "alg in lower case": lambda fort: _forge({"alg": "hs256"}, _claims(fort)),
    "HS512 with our secret": lambda fort: _forge({"alg": "HS512"}, _claims(fort), digest="sha512"),
    "HS384 with our secret": lambda fort: _forge({"alg": "HS384"}, _claims(fort), digest="sha384"),
    "RS256 with a key of theirs": lambda fort: jwt.encode(_claims(fort), KEY_PAIR, algorithm="RS256"),
    "RS256 in name only": lambda fort: _forge({"alg": "RS256"}, _claims(fort)),
    "HS256 with a public key": lambda fort: _forge(HS256, _claims(fort), PUBLIC_KEY),
    "HS256 with an empty secret": lambda fort: _forge(HS256, _claims(fort), b""),
    "no signature": lambda fort: _forge(HS256, _claims(fort)).rpartition(".")[0] + ".",
    "two parts": lambda fort: _forge(HS256, _claims(fort)).rpartition(".")[0],
    "a key of their choice": lambda fort: _forge({**HS256, "jwk": {"kty": "oct", "k": "AA"}, "kid": "/dev/null"}, {}),
    "a critical header we do not know": lambda fort: _forge({**HS256, "crit": ["b64"], "b64": False}, _claims(fort)),
    "no exp": lambda fort: _forge(HS256, _claims(fort, exp=...)),
    "exp null": lambda fort: _forge(HS256, _claims(fort, exp=None)),
    "exp in words": lambda fort: _forge(HS256, _claims(fort, exp="tomorrow")),
    "exp infinite": lambda fort: _forge(HS256, _claims(fort, exp=float("inf"))),
    "exp beyond any clock": lambda fort: _forge(HS256, _claims(fort, exp=10**400)),
    "exp now": lambda fort: _forge(HS256, _claims(fort, exp=int(time.time()))),
    "not yet valid": lambda fort: _forge(HS256, _claims(fort, nbf=int(time.time()) + 60)),
    "issued in the future": lambda fort: _forge(HS256, _claims(fort, iat=int(time.time()) + 60)),
    "no audience": lambda fort: _forge(HS256, _claims(fort, aud=...)),
    "another audience": lambda fort: _forge(HS256, _claims(fort, aud="tether-relay-2")),
    "no subject": lambda fort: _forge(HS256, _claims(fort, sub=...)),
    "a subject that is no text": lambda fort: _forge(HS256, _claims(fort, sub={"id": "x"})),
    "an unknown subject": lambda fort: _forge(HS256, _claims(fort, sub="0" * 24)),
    "a subject with NUL": lambda fort: _forge(HS256, _claims(fort, sub="\0")),
    "a subject with SQL": lambda fort: _forge(HS256, _claims(fort, sub="' OR 1=1 --")),
    "a subject that is no Unicode": lambda fort: _forge(HS256, _claims(fort, sub="\ud800")),
    "no version": lambda fort: _forge(HS256, _claims(fort, ver=...)),
    "another version": lambda fort: _forge(HS256, _claims(fort, ver=1)),
    "a version in words": lambda fort: _forge(HS256, _claims(fort, ver="first")),
    "an infinite version": lambda fort: _forge(HS256, _claims(fort, ver=float("inf"))),
    "an enormous version": lambda fort: _forge(HS256, _claims(fort, ver=10**400)),
    "claims that are a list": lambda fort: _forge(HS256, [_claims(fort)]),
    "claims that are no JSON": lambda fort: _forge(HS256, b"{"),
    "claims that are no UTF-8": lambda fort: _forge(HS256, b'{"sub": "\xff"}'),
    "claims nested too deep": lambda fort: _forge(HS256, b"[" * 1500),
    "a header that is a list": lambda fort: (_part([]) + b"." + _part(_claims(fort)) + b".AA").decode(),
}


_ALWAYS = ("alg none", "RS256 with a key of theirs", "HS256 with an empty secret", "no signature", "no exp")
FORGED = Kinds(_ALWAYS, [name for name in FORGERIES if name not in _ALWAYS])


@EVERY
async def test_a_forged_jwt_opens_nothing(fort: Fort, operation: Operation) -> None:
    """The algorithm is ours to choose, and a token must say all it has to say."""
    names = FORGED.of(operation, alike(operation))
    await assert_locked(
        fort, operation, *[[bearer(FORGERIES[name](fort)), (b"X-Forgery", name.encode())] for name in names]
    )


async def test_claims_that_were_changed_after_signing_open_nothing(fort: Fort) -> None:
    """Every single changed character of a token makes it worthless."""
    token = fort.api.superadmin_token
    for place in range(0, len(token), 3):
        other = "A" if token[place] not in "AB." else "x"
        changed = token[:place] + other + token[place + 1 :]
        answer = await exchange(fort.watched_url, request("GET", "/api/calls/voice-ai/config", [bearer(changed)]))
        assert answer.status == 401, (place, changed)


# Roles, order and openness


@pytest.mark.parametrize("role", [Role.AGENT, Role.ADMIN])
async def test_only_a_superadmin_changes_the_configuration(fort: Fort, role: Role) -> None:
    """Everybody else is answered as if they had no token: the page knows no 403."""
    (operation,) = [one for one in CONTRACT.operations if one.key == "POST /api/calls/voice-ai/config"]
    person = await _user(fort.api, role.value, role)
    token = fort.api.relay.tokens.issue(person.id, person.token_version, 3600)
    before = await _rows(fort.api)
    sent = request(operation.method, operation.path, [bearer(token), JSON], b'{"generateToolSecret": true}')

    assert_refused(await exchange(fort.api.url, sent), operation)
    assert await _rows(fort.api) == before


@EVERY
async def test_a_bad_body_without_a_token_is_401(fort: Fort, operation: Operation) -> None:
    """Who asks is settled before what is asked is looked at."""
    for body in (b"", b"{", b"\xff", b"[]", b'{"direction": 5}', b"[" * 10_000, b"x" * 300_000):
        sent = request(operation.method, target_of(operation), [(b"Content-Type", b"text/csv")], body)

        assert_refused(await exchange(fort.api.url, sent), operation)


async def test_no_operation_is_open() -> None:
    """Whatever the document gains: unless it is marked as public it wants a token of a known kind, or a signature."""
    schemes = CONTRACT.served["components"]["securitySchemes"]
    for operation in CLOSED:
        wanted = [schemes[name] for requirement in operation.security for name in requirement]
        assert wanted
        assert {} not in operation.security
        assert all(scheme["type"] == "http" or scheme["x-verified-by-handler"] for scheme in wanted)


async def test_a_principal_never_shows_its_token(fort: Fort) -> None:
    """What is passed around after authentication cannot leak what it came from."""
    for kind, token in fort.tokens.items():
        principal = await authenticate(fort.api.relay, kind, token)

        assert isinstance(principal, Principal)
        assert token not in repr(principal)
