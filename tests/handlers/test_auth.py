import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import argon2
import httpx
import jwt
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import SecretStr
from structlog.testing import capture_logs

from actions import administer
from app import create_app, open_relay
from config import load_settings
from domain.errors import ConfigurationError
from domain.principals import Role
from domain.times import from_wire, later
from keyring.passwords import Passwords
from persistence import known_addresses, users
from persistence.models import AuditEntry, KnownAddress, SignInAttempts, User
from tests.support.api import Api, running_api, serving
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.any_engine

LOGIN, REFRESH, VERIFY, SIGN_OUT = (f"/api/auth/{name}" for name in ("login", "refresh", "verify-token", "sign-out"))
PASSWORD = "correct horse battery staple"
# What has nothing to do with the database is tried on one engine.
ONE_ENGINE = pytest.mark.parametrize("engine", ["sqlite"])
WRONG = {"error": {"code": "UNAUTHORIZED", "message": "Wrong email address or password"}}


async def login(api: Api, email: str, password: str = PASSWORD, **options: Any) -> httpx.Response:
    return await api.post(LOGIN, {"email": email, "password": password}, None, **options)


async def add_user(api: Api, email: str = "sam@example.com", role: Role = Role.AGENT) -> User:
    return await administer.create_user(
        api.relay, api.organization_id, email=email, full_name="Sam Field", password=SecretStr(PASSWORD), role=role
    )


async def get(api: Api, path: str, token: str) -> httpx.Response:
    return await api.http.get(path, headers={"Authorization": f"Bearer {token}"})


# Signing in


async def test_the_right_password_gets_a_token_that_opens_what_it_should(api: Api) -> None:
    """The answer has Tether's shape, is kept by no cache, and its token is good for half a day."""
    user = await add_user(api, role=Role.ADMIN)
    response = await login(api, "sam@example.com")
    body = response.json()

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert body["user"] == {
        "id": user.id,
        "email": "sam@example.com",
        "fullName": "Sam Field",
        "organizationId": api.organization_id,
        "accessRole": "admin",
    }
    claims = jwt.decode(body["token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 12 * 3600
    assert abs(from_wire(body["expiresAt"]).timestamp() - claims["exp"]) < 3
    assert (await get(api, VERIFY, body["token"])).json() == {
        "message": "Token is good",
        "valid": True,
        "user": body["user"],
    }


async def test_an_address_is_the_same_in_capitals_and_with_spaces_around_it(api: Api) -> None:
    """People type their address as they like."""
    await add_user(api, "Sam@Example.com")

    assert (await login(api, "  Sam@EXAMPLE.com ")).status_code == 200


async def test_nobody_can_tell_an_unknown_account_from_a_wrong_password(api: Api) -> None:
    """Both are answered alike, to the byte."""
    await add_user(api)
    unknown, wrong = await login(api, "nobody@example.com"), await login(api, "sam@example.com", "not the password")

    assert unknown.status_code == wrong.status_code == 401
    assert unknown.content == wrong.content
    assert unknown.json() == WRONG
    assert unknown.headers["www-authenticate"] == "Bearer"
    assert {*unknown.headers} == {*wrong.headers}


@pytest.fixture
def production_hashes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords as in production, where other tests hash them quickly."""
    monkeypatch.setattr(api.relay.passwords, "_hasher", Passwords()._hasher)


@ONE_ENGINE
@pytest.mark.usefixtures("production_hashes")
async def test_an_unknown_account_costs_what_a_wrong_password_costs(api: Api) -> None:
    """The time tells nothing either: one password is compared in both cases, and with the same parameters."""
    compared: list[str] = []

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - the library's name
            compared.append(str(hash))
            return super().verify(hash, password)

    await add_user(api)
    relay = dataclasses.replace(api.relay, passwords=Passwords(Watched()))
    async with serving(create_app(relay)) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        for email in ("sam@example.com", "nobody@example.com"):
            answer = await http.post(LOGIN, json={"email": email, "password": "not the password"})
            assert answer.status_code == 401
    known, unknown = map(argon2.extract_parameters, compared)

    assert known == unknown


@ONE_ENGINE
async def test_what_nobody_is_compared_with_costs_what_a_password_costs() -> None:
    """The hash nobody has is made with the parameters of the real ones, and no password matches it."""
    seen: list[str] = []

    class Watched(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - the library's name
            seen.append(str(hash))
            return super().verify(hash, password)

    passwords = Passwords(Watched())
    real = await passwords.hash(SecretStr(PASSWORD))

    assert await passwords.match(SecretStr(PASSWORD), real)
    assert not await passwords.match(SecretStr(PASSWORD), None)
    assert [argon2.extract_parameters(one) for one in seen] == [argon2.extract_parameters(real)] * 2
    assert argon2.extract_parameters(real).type is argon2.Type.ID


@ONE_ENGINE
async def test_a_password_being_checked_keeps_nobody_waiting(api: Api) -> None:
    """While a sign-in is at work, other requests are answered."""
    begun, may_end = threading.Event(), threading.Event()

    class Slow(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - the library's name
            begun.set()
            may_end.wait(PATIENCE_SECONDS)
            return super().verify(hash, password)

    await add_user(api)
    relay = dataclasses.replace(api.relay, passwords=Passwords(Slow()))
    async with serving(create_app(relay)) as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
        signing_in = asyncio.create_task(http.post(LOGIN, json={"email": "sam@example.com", "password": PASSWORD}))
        assert await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        alive = await http.get("/healthz")
        is_waiting = not signing_in.done()
        may_end.set()
        signed_in = await signing_in

    assert (alive.status_code, is_waiting, signed_in.status_code) == (200, True, 200)


@pytest.mark.usefixtures("production_hashes")
async def test_a_password_hashed_with_yesterdays_parameters_is_hashed_anew(api: Api) -> None:
    """Stronger parameters reach people when they sign in; the password stays."""
    user = await add_user(api)
    weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    await api.relay.database.write(lambda: users.replace_password_hash(api.organization_id, user.id, weak))
    statuses = [(await login(api, "sam@example.com")).status_code for _ in range(2)]
    stored = await api.read(lambda: users.by_email("sam@example.com"))

    assert statuses == [200, 200]
    assert stored is not None
    assert argon2.extract_parameters(stored.password_hash) == argon2.extract_parameters(PasswordHasher().hash("x"))


BAD_REQUESTS: list[tuple[object, int]] = [
    ({}, 400),
    ({"email": "sam@example.com"}, 400),
    ({"email": "sam@example.com", "password": ""}, 400),
    ({"email": "sam@example.com", "password": 5}, 400),
    ({"email": ["sam@example.com"], "password": PASSWORD}, 400),
    ({"email": "a" * 321, "password": PASSWORD}, 400),
    ({"email": "sam@example.com", "password": "x" * 1025}, 400),
    (b"{", 400),
    (b"\xff", 400),
    ({"email": "sam@example.com", "password": "x" * 20_000}, 413),
]


@ONE_ENGINE
async def test_a_bad_request_is_refused_and_not_counted(api: Api, subtests: pytest.Subtests) -> None:
    """In the envelope of accounts; what is no attempt counts as none."""
    for body, status in BAD_REQUESTS:
        with subtests.test(body=repr(body)[:60]):
            response = await api.post(LOGIN, body, None)

            assert response.status_code == status
            assert response.json().keys() == {"error"}
            assert response.json()["error"].keys() >= {"code", "message"}
            assert "x" * 100 not in response.text
            assert await api.read(lambda: SignInAttempts.select().count()) == 0


@ONE_ENGINE
async def test_a_body_that_is_not_json_is_refused(api: Api) -> None:
    """415, in the envelope of accounts."""
    response = await api.post(LOGIN, b"email=sam", None, headers={"Content-Type": "application/x-www-form-urlencoded"})

    assert response.status_code == 415
    assert response.json()["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"


# Guessing


async def test_guessing_one_account_is_slowed_down_for_that_account(tmp_path: Path) -> None:
    """After the limit not even the right password helps, known account or not, and others are not concerned."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_account=3) as api:
        await add_user(api)
        await add_user(api, "kim@example.com")
        for email in ("sam@example.com", "nobody@example.com"):
            assert [(await login(api, email, "guess")).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
        refused, other = await login(api, "sam@example.com"), await login(api, "kim@example.com")

    assert refused.status_code == 429
    assert refused.json() == {
        "error": {"code": "RATE_LIMITED", "message": "Too many attempts to sign in, please try again later"}
    }
    assert 0 < int(refused.headers["retry-after"]) <= 15 * 60
    assert other.status_code == 200


async def test_attempts_to_sign_in_that_are_refused_are_one_line_of_the_log(tmp_path: Path) -> None:
    """Anybody can make them, so the log has a line when it begins and one a minute."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_account=1) as api:
        with capture_logs() as lines:
            statuses = [(await login(api, "sam@example.com", "guess")).status_code for _ in range(6)]

    assert statuses == [401] + [429] * 5
    assert [line["refusals"] for line in lines if line["event"] == "sign_in.throttled"] == [1]


async def test_guessing_many_accounts_is_slowed_down_for_the_address(tmp_path: Path) -> None:
    """Whoever tries one password on everybody is stopped too."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_address=4) as api:
        statuses = [(await login(api, f"user{n}@example.com", "guess")).status_code for n in range(6)]

    assert statuses == [401] * 4 + [429] * 2


async def test_a_sign_in_of_ones_own_gives_back_one_attempt_and_no_more(tmp_path: Path) -> None:
    """Whoever has an account here guesses the passwords of others no longer than anybody else."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_address=3) as api:
        await add_user(api)
        tries = [("kim", "guess"), ("robin", "guess"), ("sam", PASSWORD), ("alex", "guess"), ("jo", "guess")]
        statuses = [(await login(api, f"{name}@example.com", password)).status_code for name, password in tries]

    assert statuses == [401, 401, 200, 401, 429]


def from_(address: str) -> dict[str, Any]:
    """Return the options of a request that the proxy in front says comes from `address`."""
    return {"headers": {"X-Forwarded-For": address}}


@pytest.mark.each_engine
async def test_guesses_from_elsewhere_lock_nobody_out_of_an_address_they_signed_in_from(tmp_path: Path) -> None:
    """The account's own limit holds for strangers; the owner goes on, and does not give the strangers new guesses."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_account=3) as api:
        await add_user(api)
        home, elsewhere = from_("198.51.100.7"), from_("203.0.113.9")
        first = await login(api, "sam@example.com", **home)
        guesses = [(await login(api, "sam@example.com", "guess", **elsewhere)).status_code for _ in range(5)]
        owner = [(await login(api, "sam@example.com", **home)).status_code for _ in range(2)]
        stranger = await login(api, "sam@example.com", **from_("203.0.113.77"))

    assert first.status_code == 200
    assert guesses == [401, 401, 401, 429, 429]
    assert owner == [200, 200]
    assert stranger.status_code == 429


async def test_guessing_from_an_address_that_signed_in_before_is_limited(tmp_path: Path) -> None:
    """A known address has a limit of its own, and using it up concerns no other address."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_account_and_address=2) as api:
        await add_user(api)
        home, office = from_("198.51.100.7"), from_("198.51.100.8")
        for address in (home, office):
            assert (await login(api, "sam@example.com", **address)).status_code == 200
        guesses = [(await login(api, "sam@example.com", "guess", **home)).status_code for _ in range(3)]
        at_office = await login(api, "sam@example.com", **office)

    assert guesses == [401, 401, 429]
    assert at_office.status_code == 200


@pytest.mark.each_engine
async def test_the_addresses_a_user_signed_in_from_are_few_digests_that_age(tmp_path: Path) -> None:
    """The newest are kept, none of them can be read, and one that was long unused counts as unknown."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_account=2) as api:
        user = await add_user(api)
        for n in range(known_addresses.MOST_PER_USER + 2):
            digest = f"{n:064d}"
            remember = partial(known_addresses.remember, api.organization_id, user.id, digest)
            await api.relay.database.write(remember)
        kept = await api.read(lambda: {row.digest for row in KnownAddress.select()})
        assert (await login(api, "sam@example.com", **from_("198.51.100.7"))).status_code == 200
        stored = await api.read(lambda: str(list(KnownAddress.select().dicts())))
        long_ago = later(-known_addresses.KEPT_SECONDS - 60)
        await api.relay.database.write(lambda: KnownAddress.update(last_used_at=long_ago).execute())
        guesses = [(await login(api, "sam@example.com", "guess", **from_("203.0.113.9"))).status_code for _ in range(3)]
        aged = await login(api, "sam@example.com", **from_("198.51.100.7"))

    assert kept == {f"{n:064d}" for n in range(2, known_addresses.MOST_PER_USER + 2)}
    assert "198.51.100.7" not in stored
    assert (guesses, aged.status_code) == ([401, 401, 429], 429)


@pytest.mark.each_engine
async def test_guesses_at_once_are_counted_like_guesses_in_a_row(tmp_path: Path) -> None:
    """No attempt slips through while another is being checked."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_account=3) as api:
        await add_user(api)
        answers = await asyncio.gather(*(login(api, "sam@example.com", f"guess {n}") for n in range(12)))

    assert sorted(answer.status_code for answer in answers) == [401] * 3 + [429] * 9


async def test_signing_in_begins_the_count_anew(tmp_path: Path) -> None:
    """A person who mistypes now and then is never locked out, nor is the office they sit in."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_account=2, sign_in_attempts_per_address=2) as api:
        await add_user(api)
        statuses = [(await login(api, "sam@example.com")).status_code for _ in range(5)]
        statuses.append((await login(api, "sam@example.com", "a typo")).status_code)
        statuses.append((await login(api, "sam@example.com")).status_code)

    assert statuses == [200] * 5 + [401, 200]


@pytest.mark.each_engine
async def test_the_count_ends_with_its_window(tmp_path: Path) -> None:
    """When the time is over, people may try again, and nothing of it is kept."""
    async with running_api(tmp_path / "var", sign_in_attempts_per_account=1) as api:
        await add_user(api)
        before = [(await login(api, "sam@example.com", "guess")).status_code for _ in range(2)]
        await api.relay.database.write(lambda: SignInAttempts.update(window_ends_at=later(-1)).execute())
        after = await login(api, "sam@example.com")
        left = await api.read(lambda: SignInAttempts.select().where(SignInAttempts.count > 0).count())

    assert (before, after.status_code, left) == ([401, 429], 200, 0)


async def test_the_counters_name_nobody(api: Api) -> None:
    """What is counted is a digest; neither the address typed in nor the one it came from can be read."""
    await login(api, "sam@example.com", "guess")
    keys = await api.read(lambda: [row.key for row in SignInAttempts.select()])

    assert len(keys) == 3
    assert all(len(key) == 64 and int(key, 16) for key in keys)


# Staying signed in, and signing out


async def test_a_good_token_gets_a_fresh_one(api: Api) -> None:
    """Both are good until they expire."""
    user = await add_user(api)
    short = api.relay.tokens.issue(user.id, user.token_version, 60)
    response = await api.post(REFRESH, b"", short)
    fresh = response.json()["token"]

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["user"]["id"] == user.id
    assert api.relay.tokens.verify(fresh).expires_at > api.relay.tokens.verify(short).expires_at + 3600
    assert (await get(api, VERIFY, fresh)).status_code == (await get(api, VERIFY, short)).status_code == 200


async def test_a_session_ends_for_good_however_often_its_token_is_refreshed(tmp_path: Path) -> None:
    """A fresh token keeps the time of the sign-in, ends with the session, and a session that is over is refused."""
    async with running_api(tmp_path / "var", session_lifetime_days=1, token_lifetime_minutes=24 * 60) as api:
        user = await add_user(api)
        signed_in = (await login(api, "sam@example.com")).json()["token"]
        fresh = await api.post(REFRESH, b"", signed_in)
        began = time.time()
        issue = partial(api.relay.tokens.issue, user.id, user.token_version)
        late, over = issue(3600, began - 86_000), issue(3600, began - 86_401)
        shortened, refused = await api.post(REFRESH, b"", late), await api.post(REFRESH, b"", over)
        verify = api.relay.tokens.verify

        assert verify(fresh.json()["token"]).signed_in_at == verify(signed_in).signed_in_at
        assert verify(shortened.json()["token"]).expires_at <= began - 86_000 + 86_400 + 1
        assert abs(from_wire(shortened.json()["expiresAt"]).timestamp() - (began + 400)) < 60
        assert refused.status_code == 401
        assert refused.json()["error"]["message"] == "The session is over, please sign in again"


async def test_signing_out_ends_every_token_everywhere(api: Api) -> None:
    """Also those that were refreshed from it; the API key and other people's tokens stay, and one may sign in again."""
    await add_user(api)
    first = (await login(api, "sam@example.com")).json()["token"]
    second = (await api.post(REFRESH, b"", first)).json()["token"]
    signed_out = await api.post(SIGN_OUT, b"", second)
    statuses = [(await get(api, VERIFY, token)).status_code for token in (first, second, api.superadmin_token)]
    again = (await login(api, "sam@example.com")).json()["token"]

    assert signed_out.json() == {"success": True, "message": "Signed out everywhere"}
    assert statuses == [401, 401, 200]
    assert (await get(api, VERIFY, again)).status_code == 200
    assert (await api.ingest({})).status_code == 400


async def test_changing_the_password_signs_out_and_lets_in_with_the_new_one(api: Api) -> None:
    """Whoever knew the old one is out."""
    await add_user(api)
    token = (await login(api, "sam@example.com")).json()["token"]
    await administer.change_password(api.relay, "sam@example.com", SecretStr("another password"))

    assert (await get(api, VERIFY, token)).status_code == 401
    assert (await login(api, "sam@example.com")).status_code == 401
    assert (await login(api, "sam@example.com", "another password")).status_code == 200


@pytest.mark.parametrize("path", [REFRESH, SIGN_OUT])
async def test_without_a_good_token_nothing_happens(api: Api, path: str) -> None:
    """401 in the envelope of accounts, and nobody is signed out."""
    before = await api.read(lambda: [user.token_version for user in User.select()])
    for token in (None, "nonsense", api.demo.api_key.get_secret_value(), api.demo.tool_secret.get_secret_value()):
        response = await api.post(path, b"", token)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "UNAUTHORIZED"

    assert await api.read(lambda: [user.token_version for user in User.select()]) == before


# Keys that sign


def key_pair(folder: Path, name: str) -> tuple[Path, Path, bytes]:
    """Return the files of a private and a public key, and the public key itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public, public.read_bytes()


async def opens(api: Api, token: str) -> int:
    return (await get(api, VERIFY, token)).status_code


@ONE_ENGINE
async def test_tokens_may_be_signed_with_an_rsa_key(tmp_path: Path) -> None:
    """Then HS256 opens nothing, not even with the public key as its secret, which everybody may know."""
    private, public, pem = key_pair(tmp_path, "new")
    async with running_api(tmp_path / "var", jwt_algorithm="RS256", jwt_private_key_file=private) as api:
        await add_user(api)
        token = (await login(api, "sam@example.com")).json()["token"]
        header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
        with pytest.MonkeyPatch.context() as patched:
            # The library refuses to make such a token; an attacker's would not.
            patched.setattr("jwt.algorithms.is_pem_format", lambda _: False)
            confused = jwt.encode(claims, pem, algorithm="HS256", headers={"kid": header["kid"]})
        statuses = [await opens(api, token), await opens(api, confused)]

    assert header["alg"] == "RS256"
    assert jwt.decode(token, pem, algorithms=["RS256"], audience="tether-relay") == claims
    assert statuses == [200, 401]
    assert public.exists()


@ONE_ENGINE
async def test_an_rsa_key_can_be_replaced_while_tokens_of_the_old_one_live(tmp_path: Path) -> None:
    """The new key signs, the old public key is believed until it is taken away."""
    old, old_public, _ = key_pair(tmp_path, "old")
    new, _, _ = key_pair(tmp_path, "new")
    async with running_api(tmp_path / "1", jwt_algorithm="RS256", jwt_private_key_file=old) as api:
        token = api.superadmin_token
    settings: dict[str, Any] = {"jwt_algorithm": "RS256", "jwt_private_key_file": new}
    async with running_api(tmp_path / "2", **settings, jwt_public_key_files=str(old_public)) as api:
        during, own = await opens(api, token), await opens(api, api.superadmin_token)
        kids = {jwt.get_unverified_header(one)["kid"] for one in (token, api.superadmin_token)}
    async with running_api(tmp_path / "3", **settings) as api:
        after = await opens(api, token)

    assert (during, own, after) == (200, 200, 401)
    assert len(kids) == 2


@ONE_ENGINE
async def test_a_secret_can_be_replaced_while_tokens_of_the_old_one_live(tmp_path: Path) -> None:
    """The new secret signs, the previous one is believed until it is taken away; no key id lets in a strange key."""
    old, new = "o" * 40, "n" * 40
    async with running_api(tmp_path / "1", jwt_secret=old) as api:
        token = api.superadmin_token
    async with running_api(tmp_path / "2", jwt_secret=new, jwt_previous_secret=old) as api:
        during, own = await opens(api, token), await opens(api, api.superadmin_token)
        kid = jwt.get_unverified_header(api.superadmin_token)["kid"]
        claims = jwt.decode(token, options={"verify_signature": False})
        strange = [
            jwt.encode(claims, new, algorithm="HS256", headers={"kid": other})
            for other in ("../../dev/null", kid.upper(), "' OR 1=1 --")
        ]
        mixed = jwt.encode(claims, old, algorithm="HS256", headers={"kid": kid})
        refused = [await opens(api, one) for one in (*strange, mixed)]
    async with running_api(tmp_path / "3", jwt_secret=new) as api:
        after = await opens(api, token)

    assert (during, own, after) == (200, 200, 401)
    assert refused == [401] * 4


def _short(folder: Path) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    path = folder / "short.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def _garbage(folder: Path) -> Path:
    path = folder / "garbage.pem"
    path.write_text("not a key")
    return path


BAD_KEYS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "none at all": lambda _: {},
    "no such file": lambda folder: {"jwt_private_key_file": folder / "absent.pem"},
    "no key": lambda folder: {"jwt_private_key_file": _garbage(folder)},
    "a public key that is none": lambda folder: {"jwt_public_key_files": str(_garbage(folder))},
    "a short key": lambda folder: {"jwt_private_key_file": _short(folder)},
    "a public key in place of the private": lambda folder: {"jwt_private_key_file": key_pair(folder, "x")[1]},
}


@ONE_ENGINE
@pytest.mark.parametrize("settings", BAD_KEYS.values(), ids=BAD_KEYS)
async def test_a_server_without_a_usable_key_does_not_start(
    tmp_path: Path, settings: Callable[[Path], dict[str, Any]]
) -> None:
    """It says which setting to look at, and nothing of the key."""
    configured = load_settings(_env_file=None, data_dir=tmp_path, jwt_algorithm="RS256", **settings(tmp_path))
    with pytest.raises(ConfigurationError, match=r"JWT_|key file"):
        async with open_relay(configured):
            pass


async def test_a_failed_attempt_leaves_only_a_masked_trace(api: Api) -> None:
    """Nothing that was typed in is written down: some type a password where the address belongs."""
    await login(api, "somebody.secret@example.com", "my other password")
    entries = await api.read(lambda: [str(vars(entry)["__data__"]) for entry in AuditEntry.select()])
    traces = [entry for entry in entries if "user.sign_in_failed" in entry]

    assert len(traces) == 1
    assert "•••" in traces[0]
    assert not any(typed in entry for typed in ("somebody", "example.com", "my other") for entry in entries)
