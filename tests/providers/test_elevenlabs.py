"""The ElevenLabs client and its signatures, against a loopback workspace."""

import hashlib
import hmac
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from pydantic import SecretStr

from domain.errors import OutcomeUnknown, ProviderError, ProviderRejected, ProviderUnavailable, Unauthenticated
from providers.elevenlabs import ElevenLabs, SignatureCheck, Webhook, verify_signature
from tests.support.faulty_http import Fault, Reply, unused_url
from tests.support.text_contract import LIMIT, cut_off
from tests.support.vendors import FakeElevenLabs

OURS = "https://relay.example.com/webhooks/elevenlabs"

SECRET, BODY, AT = SecretStr("wsec_test"), b'{"type":"x"}', 1_700_000_000
HEADER = f"t={AT},v0=4558277ea3dca2ecc5b44ec0ab321d3fcd9649de21a713dff9a3fa9c741c8375"
DIGEST = HEADER.rpartition("=")[2]

Write = Callable[[ElevenLabs], Awaitable[object]]
WRITES: list[Write] = [
    lambda client: client.create_webhook("relay", OURS),
    lambda client: client.delete_webhook("wh_0001"),
    lambda client: client.enable_retries("wh_0001", "relay"),
    lambda client: client.point_post_call_at("wh_0001"),
]
writes = pytest.mark.parametrize("write", WRITES, ids=["create", "delete", "retries", "point"])


@pytest.fixture
async def workspace() -> AsyncIterator[FakeElevenLabs]:
    async with FakeElevenLabs() as fake:
        yield fake


@pytest.fixture
def client(workspace: FakeElevenLabs, http: httpx.AsyncClient) -> ElevenLabs:
    return ElevenLabs(http, workspace.url, SecretStr(workspace.api_key), timeout=LIMIT)


async def failure(call: Awaitable[object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await call
    return caught.value


def written(workspace: FakeElevenLabs) -> list[str]:
    return [request.method for request in workspace.requests if request.method != "GET"]


class TestFinding:
    async def test_our_webhook_is_found_by_its_address(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """What serves another address, or is not signed, is not ours."""
        workspace.add_webhook(OURS + "/other")
        workspace.add_webhook(OURS, auth_type="oauth2")
        ours = workspace.add_webhook(OURS, name="relay")

        assert await client.find_webhook(OURS) == Webhook(ours, "relay", OURS)

    async def test_a_workspace_without_ours_has_none(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """Nothing found is no error."""
        assert await client.find_webhook(OURS) is None

    async def test_what_is_wrong_with_it_is_told(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """Usages and both ways of being switched off are reported."""
        ours = workspace.add_webhook(OURS, is_disabled=True, is_auto_disabled=True)
        workspace.settings["webhooks"]["post_call_webhook_id"] = ours

        found = await client.find_webhook(OURS)

        assert found == Webhook(ours, "webhook", OURS, True, True, ("ConvAI Settings",))
        assert workspace.requests[0].query == {"include_usages": "true"}

    async def test_of_several_the_one_switched_on_is_taken(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """A disabled twin does not stand in the way."""
        workspace.add_webhook(OURS, is_auto_disabled=True)
        working = workspace.add_webhook(OURS)

        found = await client.find_webhook(OURS)

        assert found is not None
        assert found.id == working

    @pytest.mark.parametrize(
        "fault", [Fault.RESET_AFTER_READING, Fault.CLOSE_AFTER_READING, Fault.RESET_AFTER_PROCESSING]
    )
    async def test_a_question_is_asked_again_once(
        self, client: ElevenLabs, workspace: FakeElevenLabs, fault: Fault
    ) -> None:
        """A broken connection costs one more try, not the answer."""
        workspace.behave(fault)

        assert await client.find_webhook(OURS) is None
        assert len(workspace.requests) == 2

    async def test_a_question_is_not_asked_for_ever(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """Twice is enough."""
        workspace.behave(Fault.RESET_AFTER_READING, always=True)

        assert type(await failure(client.find_webhook(OURS))) is ProviderUnavailable
        assert len(workspace.requests) == 2

    async def test_a_question_keeps_its_time(
        self, client: ElevenLabs, workspace: FakeElevenLabs, move_on: Callable[[float], None]
    ) -> None:
        """Both tries share one time limit, so silence is met once."""
        workspace.behave(Fault.HANG_AFTER_READING, always=True)
        asking = failure(client.find_webhook(OURS))

        assert type(await cut_off(asking, lambda: workspace.requests, move_on)) is ProviderUnavailable
        assert len(workspace.requests) == 1

    @pytest.mark.parametrize(
        "reply", [Reply(500), Reply(200, body=b"no"), Reply(200, {}), Reply(200, {"webhooks": {}}), Reply(200, [])]
    )
    async def test_a_senseless_answer_changed_nothing(
        self, client: ElevenLabs, workspace: FakeElevenLabs, reply: Reply
    ) -> None:
        """A question has no outcome to be unsure of, and an answered one is not repeated."""
        workspace.behave(reply)

        assert type(await failure(client.find_webhook(OURS))) is ProviderUnavailable
        assert len(workspace.requests) == 1

    async def test_odd_entries_are_passed_over(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """One entry of a shape we do not know does not hide ours."""
        ours = {"webhook_id": "wh_7", "name": "relay", "webhook_url": OURS, "usage": "none"}
        workspace.behave(Reply(200, {"webhooks": [None, 7, {}, {"webhook_url": None}, ours]}))

        assert await client.find_webhook(OURS) == Webhook("wh_7", "relay", OURS)


class TestCreating:
    async def test_a_created_webhook_comes_with_its_secret(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """The request is the documented one, and the secret is kept out of sight."""
        created = await client.create_webhook("relay", OURS)

        assert workspace.requests[0].document == {
            "settings": {"auth_type": "hmac", "name": "relay", "webhook_url": OURS}
        }
        assert workspace.requests[0].headers["xi-api-key"] == workspace.api_key
        assert created.secret is not None
        assert created.secret.get_secret_value() == workspace.secrets[created.id]
        assert workspace.secrets[created.id] not in repr(created)

    async def test_a_workspace_may_show_no_secret(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """The field is nullable, so its absence is told, not invented."""
        workspace.shows_secret = False

        assert (await client.create_webhook("relay", OURS)).secret is None

    @pytest.mark.parametrize(
        "step",
        [
            Fault.RESET_AFTER_PROCESSING,
            Fault.HANG_AFTER_PROCESSING,
            Fault.RESET_INSIDE_BODY,
            Reply(500),
            Reply(503),
            Reply(200, body=b"<html>"),
            Reply(200, {"webhook_id": None, "webhook_secret": "wsec_seen_by_nobody"}),
        ],
    )
    async def test_a_doubtful_create_is_not_repeated(
        self, client: ElevenLabs, workspace: FakeElevenLabs, step: Fault | Reply, move_on: Callable[[float], None]
    ) -> None:
        """Whoever does not know whether there is a webhook now must look, and we do not make a second."""
        workspace.behave(step)
        is_silent = lambda: step is Fault.HANG_AFTER_PROCESSING and workspace.requests  # noqa: E731
        error = await cut_off(failure(client.create_webhook("relay", OURS)), is_silent, move_on)

        assert type(error) is OutcomeUnknown
        assert "wsec_" not in str(error)
        assert written(workspace) == ["POST"]

    async def test_a_lost_create_is_found_by_looking(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """After a create whose answer was lost, the webhook is there."""
        workspace.behave(Fault.RESET_AFTER_PROCESSING)
        await failure(client.create_webhook("relay", OURS))

        assert await client.find_webhook(OURS) is not None
        assert len(workspace.webhooks) == 1

    async def test_a_problem_with_a_field_is_named(self, client: ElevenLabs) -> None:
        """A 422 lists what is wrong, and the first of it is told."""
        error = await failure(client.create_webhook("", OURS))

        assert (type(error), error.status, error.vendor_code) == (ProviderRejected, 422, "value_error")
        assert error.reason == "answered 422: body.settings.name: Field required"


class TestDeleting:
    async def test_a_deleted_webhook_is_gone(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """Deleting leaves the others alone, and deleting again is fine."""
        ours, other = workspace.add_webhook(OURS), workspace.add_webhook(OURS + "/other")
        await client.delete_webhook(ours)
        await client.delete_webhook(ours)

        assert list(workspace.webhooks) == [other]

    async def test_a_webhook_in_use_stays(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """ElevenLabs refuses, and we say so."""
        ours = workspace.add_webhook(OURS)
        await client.point_post_call_at(ours)
        error = await failure(client.delete_webhook(ours))

        assert (type(error), error.vendor_code) == (ProviderRejected, "webhook_in_use")
        assert ours in workspace.webhooks

    async def test_an_id_cannot_lead_elsewhere(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """An id with a slash stays one path segment."""
        await client.delete_webhook("../../v1/convai/settings?x")

        assert workspace.requests[0].target == "/v1/workspace/webhooks/..%2F..%2Fv1%2Fconvai%2Fsettings%3Fx"


class TestPointing:
    async def test_finished_calls_come_to_our_webhook(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """Transcript, audio and failed calls are switched on, as JSON."""
        ours = workspace.add_webhook(OURS)
        await client.point_post_call_at(ours)

        assert workspace.settings["webhooks"] == {
            "post_call_webhook_id": ours,
            "events": ["transcript", "audio", "call_initiation_failure"],
            "transcript_format": "json",
        }
        assert workspace.requests[1].document == {"webhooks": workspace.settings["webhooks"]}

    async def test_what_else_is_set_stays(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """Other events, other choices and fields we do not know survive; the replaced `send_audio` is left out."""
        workspace.settings["webhooks"] = {
            "post_call_webhook_id": "wh_old",
            "events": ["unredacted_audio", "audio"],
            "transcript_format": "opentelemetry",
            "exclude_transcript": True,
            "send_audio": False,
            "something_new": {"deep": 1},
        }
        await client.point_post_call_at("wh_1")

        assert workspace.requests[1].document == {
            "webhooks": {
                "post_call_webhook_id": "wh_1",
                "events": ["unredacted_audio", "audio", "transcript", "call_initiation_failure"],
                "transcript_format": "json",
                "exclude_transcript": True,
                "something_new": {"deep": 1},
            }
        }
        assert workspace.settings["rag_retention_period_days"] == 10

    @pytest.mark.parametrize("webhooks", [None, [], {}, {"events": None}, {"events": "all"}])
    async def test_settings_never_made_are_made(
        self, client: ElevenLabs, workspace: FakeElevenLabs, webhooks: object
    ) -> None:
        """A workspace that has set nothing yet gets the whole object."""
        workspace.settings["webhooks"] = webhooks
        await client.point_post_call_at("wh_1")

        assert workspace.settings["webhooks"]["events"] == ["transcript", "audio", "call_initiation_failure"]

    async def test_a_setting_that_did_not_take_is_an_error(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """A 200 that shows the old setting is not believed."""
        workspace.takes_settings = False
        error = await failure(client.point_post_call_at("wh_1"))

        assert (type(error), error.reason) == (ProviderRejected, "the post-call setting did not take")

    @pytest.mark.parametrize(
        "settled",
        [
            {"post_call_webhook_id": "wh_1", "events": ["transcript"]},
            {"post_call_webhook_id": "wh_1", "events": None},
            {"post_call_webhook_id": "wh_2", "events": ["transcript", "audio", "call_initiation_failure"]},
            {
                "post_call_webhook_id": "wh_1",
                "events": ["transcript", "audio", "call_initiation_failure"],
                "transcript_format": "opentelemetry",
            },
        ],
    )
    async def test_every_part_must_take(
        self, client: ElevenLabs, workspace: FakeElevenLabs, settled: dict[str, object]
    ) -> None:
        """Address, events and format are all compared."""
        workspace.behave(Reply(200, {"webhooks": {}}), Reply(200, {"webhooks": settled}))

        assert type(await failure(client.point_post_call_at("wh_1"))) is ProviderRejected

    @pytest.mark.parametrize("reply", [Reply(200, body=b"no"), Reply(200, []), Reply(200, {})])
    async def test_unreadable_settings_are_not_overwritten(
        self, client: ElevenLabs, workspace: FakeElevenLabs, reply: Reply
    ) -> None:
        """What cannot be read cannot be kept, so nothing is written."""
        workspace.behave(reply)

        assert type(await failure(client.point_post_call_at("wh_1"))) is ProviderUnavailable
        assert written(workspace) == []

    async def test_an_unreadable_reply_leaves_the_outcome_unknown(
        self, client: ElevenLabs, workspace: FakeElevenLabs
    ) -> None:
        """Nothing can be compared with nothing."""
        workspace.behave(Reply(200, {"webhooks": {}}), Reply(200, body=b"no"))

        assert type(await failure(client.point_post_call_at("wh_1"))) is OutcomeUnknown


class TestRetries:
    async def test_retries_are_switched_on(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """The documented fields are all sent, and the webhook is switched on with them."""
        ours = workspace.add_webhook(OURS, name="relay", is_disabled=True)
        await client.enable_retries(ours, "relay")

        assert workspace.requests[0].document == {"is_disabled": False, "name": "relay", "retry_enabled": True}
        assert workspace.webhooks[ours]["retry_enabled"] is True

    async def test_our_headers_are_said_again(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """What is not sent along is dropped by the workspace."""
        ours = workspace.add_webhook(OURS, name="relay")
        await client.enable_retries(ours, "relay", {"X-Relay": "1"})

        assert workspace.webhooks[ours]["request_headers"] == {"X-Relay": "1"}

    async def test_an_id_cannot_lead_elsewhere(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """Whatever the workspace once called its webhook stays one segment of the path."""
        await failure(client.enable_retries("../../convai/settings?x=1", "relay"))

        assert [request.target for request in workspace.requests] == [
            "/v1/workspace/webhooks/..%2F..%2Fconvai%2Fsettings%3Fx%3D1"
        ]

    async def test_a_failure_can_be_told_apart(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """It keeps its kind, its status and its code, and says what is missing."""
        error = await failure(client.enable_retries("wh_gone", "relay"))

        assert (type(error), error.status, error.vendor_code) == (ProviderRejected, 404, "webhook_not_found")
        assert error.reason == "retries are off: answered 404: No webhook to patch"


class TestFailures:
    @writes
    async def test_nobody_listening_means_unavailable(self, http: httpx.AsyncClient, write: Write) -> None:
        """A refused connection carried nothing."""
        assert (
            type(await failure(write(ElevenLabs(http, unused_url(), SecretStr("key"), timeout=LIMIT))))
            is ProviderUnavailable
        )

    @writes
    async def test_a_write_whose_answer_is_lost_is_in_doubt(
        self, client: ElevenLabs, workspace: FakeElevenLabs, write: Write
    ) -> None:
        """No write is repeated by itself, not even one that could be."""
        workspace.behave(Fault.RESET_AFTER_READING, on="workspace")
        workspace.behave(Reply(200, workspace.settings), Fault.RESET_AFTER_READING, on="convai")

        assert type(await failure(write(client))) is OutcomeUnknown
        assert len(written(workspace)) == 1

    @pytest.mark.parametrize("status", [408, 425, 429])
    async def test_a_status_that_says_not_processed_means_unavailable(
        self, client: ElevenLabs, workspace: FakeElevenLabs, status: int
    ) -> None:
        """Trying again later makes sense."""
        workspace.behave(Reply(status, {"detail": {"status": "too_many_concurrent_requests", "message": "Wait"}}))

        error = await failure(client.create_webhook("relay", OURS))

        assert (type(error), error.vendor_code) == (ProviderUnavailable, "too_many_concurrent_requests")

    async def test_a_wrong_key_is_a_refusal(self, workspace: FakeElevenLabs, http: httpx.AsyncClient) -> None:
        """ElevenLabs says which."""
        error = await failure(ElevenLabs(http, workspace.url, SecretStr("sk_wrong"), timeout=LIMIT).find_webhook(OURS))

        assert (type(error), error.status, error.vendor_code) == (ProviderRejected, 401, "invalid_api_key")
        assert str(error) == "elevenlabs: answered 401: Invalid API key"

    @pytest.mark.parametrize(
        ("reply", "code", "reason"),
        [
            (Reply(400, {"detail": "Not like this"}), None, "answered 400: Not like this"),
            (Reply(400, {"detail": {"code": "limit", "message": "Full"}}), "limit", "answered 400: Full"),
            (Reply(400, {"detail": {"status": "limit"}}), "limit", "answered 400"),
            (
                Reply(422, {"detail": [{"loc": ["body", 0], "msg": "Bad", "type": "t"}]}),
                "t",
                "answered 422: body.0: Bad",
            ),
            (Reply(422, {"detail": [{"msg": "Bad"}]}), None, "answered 422: Bad"),
            (Reply(422, {"detail": []}), None, "answered 422"),
            (Reply(422, {"detail": [[]]}), None, "answered 422"),
            (Reply(400, {"detail": None}), None, "answered 400"),
            (Reply(400, ["detail"]), None, "answered 400"),
            (Reply(403, body=b"Forbidden"), None, "answered 403: Forbidden"),
            (Reply(403, body=b"<html>Forbidden</html>"), None, "answered 403"),
            (Reply(403), None, "answered 403"),
        ],
    )
    async def test_every_shape_of_detail_is_read(
        self, client: ElevenLabs, workspace: FakeElevenLabs, reply: Reply, code: str | None, reason: str
    ) -> None:
        """A list, an object, a string, something else, or no JSON at all."""
        workspace.behave(reply)
        error = await failure(client.create_webhook("relay", OURS))

        assert (type(error), error.vendor_code, error.reason) == (ProviderRejected, code, reason)

    async def test_an_error_never_repeats_the_key(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """A workspace that quotes the key is not quoted."""
        words = f"The key {workspace.api_key} may not do this"
        for detail in (words, {"status": workspace.api_key, "message": words}, [{"loc": [words], "msg": words}]):
            workspace.behave(Reply(403, {"detail": detail}))
            error = await failure(client.create_webhook("relay", OURS))

            assert error.reason == "answered 403"
            assert workspace.api_key not in "".join(traceback.format_exception(error)) + str(vars(error))

    async def test_a_key_no_header_can_carry_is_refused_unsent(
        self, workspace: FakeElevenLabs, http: httpx.AsyncClient
    ) -> None:
        """A line break or an accent in a key is no reason to fall over, or to print the key."""
        for key in ("sk_line\nbreak", "sk_é", "sk_\x00"):
            error = await failure(ElevenLabs(http, workspace.url, SecretStr(key), timeout=LIMIT).find_webhook(OURS))

            assert type(error) is ProviderRejected
            assert key not in "".join(traceback.format_exception(error))
        assert workspace.requests == []

    async def test_a_client_shows_no_key(self, client: ElevenLabs, workspace: FakeElevenLabs) -> None:
        """A client and what it holds can be printed."""
        assert workspace.api_key not in repr(vars(client))


class TestSignature:
    def check(
        self, header: str, *, body: bytes = BODY, secrets: tuple[str, ...] = ("wsec_test",), now: float = AT
    ) -> None:
        verify_signature(header, body, map(SecretStr, secrets), now=now, tolerance_seconds=1800)

    @pytest.mark.parametrize(
        "header",
        [
            HEADER,
            f"v0={DIGEST},t={AT}",
            f" t={AT} , v0={DIGEST} ",
            f"t={AT},v0=stale,v0={DIGEST}",
            f"t={AT},v0={DIGEST},v0=stale",
            f"t={AT},v1=later,v0={DIGEST}",
        ],
    )
    def test_a_signed_body_is_believed(self, header: str) -> None:
        """The documented vector verifies, in any order, with spaces, among other signatures."""
        self.check(header)

    def test_any_of_several_secrets_will_do(self) -> None:
        """A webhook made anew may overlap with the one before."""
        self.check(HEADER, secrets=("wsec_old", "wsec_test"))

    @pytest.mark.parametrize("names", [("wsec_test", "wsec_b"), ("wsec_a", "wsec_test"), ("a", "wsec_test", "b")])
    def test_the_secret_that_signed_is_told(self, names: tuple[str, ...]) -> None:
        """It alone says whose call was brought, whichever others there are."""
        check = SignatureCheck(HEADER, [SecretStr(name) for name in names], now=AT, tolerance_seconds=1800)
        check.feed(BODY)

        assert check.finish() == SECRET

    @pytest.mark.parametrize("now", [AT - 1800, AT + 1800])
    def test_the_tolerance_is_inclusive(self, now: float) -> None:
        """Half an hour before and after is still fine."""
        self.check(HEADER, now=now)

    @pytest.mark.parametrize("now", [AT - 1801, AT + 1801])
    def test_beyond_the_tolerance_is_refused(self, now: float) -> None:
        """An old request is refused, and one from the future too."""
        with pytest.raises(Unauthenticated, match="too old"):
            self.check(HEADER, now=now)

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "t=",
            f"t={AT}",
            f"v0={DIGEST}",
            f"t=soon,v0={DIGEST}",
            f"t=-{AT},v0={DIGEST}",
            f"t={AT}.0,v0={DIGEST}",
            f"t=١٧٠٠٠٠٠٠٠٠,v0={DIGEST}",
            f"t={AT},t={AT},v0={DIGEST}",
            f"t={AT},v0=",
            f"t={AT},v0={DIGEST.upper()}",
            f"t={AT},v0={DIGEST[:-1]}",
            f"t={AT},v0=é\ud800",
            f"t={AT + 1},v0={DIGEST}",
            HEADER + "," + "v0=x," * 300,
        ],
    )
    def test_a_header_that_proves_nothing_is_refused(self, header: str) -> None:
        """Missing, malformed, overlong or wrong: all of it is unauthenticated, nothing falls over."""
        with pytest.raises(Unauthenticated):
            self.check(header)

    def test_another_body_is_refused(self) -> None:
        """One byte is enough."""
        with pytest.raises(Unauthenticated):
            self.check(HEADER, body=BODY + b" ")

    @pytest.mark.parametrize("secrets", [(), ("",), ("wsec_other",)])
    def test_without_the_secret_nothing_is_believed(self, secrets: tuple[str, ...]) -> None:
        """No secret, an empty one and a wrong one are alike; a body signed with an empty key proves nothing."""
        empty = hmac.new(b"", f"{AT}.".encode() + BODY, hashlib.sha256).hexdigest()
        with pytest.raises(Unauthenticated):
            self.check(f"{HEADER},v0={empty}", secrets=secrets)

    @pytest.mark.parametrize("size", [1, 5, 1000])
    def test_a_body_in_chunks_is_believed_like_a_whole_one(self, size: int) -> None:
        """How the body is cut makes no difference."""
        check = SignatureCheck(HEADER, [SECRET], now=AT, tolerance_seconds=0)
        for start in range(0, len(BODY), size):
            check.feed(BODY[start : start + size])

        check.finish()

    def test_a_body_cut_short_is_refused(self) -> None:
        """All of the body has to come."""
        check = SignatureCheck(HEADER, [SECRET], now=AT, tolerance_seconds=0)
        check.feed(BODY[:-1])
        with pytest.raises(Unauthenticated):
            check.finish()

    async def test_a_delivery_to_a_created_webhook_verifies(
        self, client: ElevenLabs, workspace: FakeElevenLabs
    ) -> None:
        """The secret shown at creation is the one deliveries are signed with."""
        created = await client.create_webhook("relay", OURS)
        delivery = workspace.delivery(created.id, {"type": "post_call_transcription"}, at=AT)

        assert created.secret is not None
        verify_signature(
            delivery.headers["ElevenLabs-Signature"], delivery.body, [created.secret], now=AT, tolerance_seconds=0
        )
