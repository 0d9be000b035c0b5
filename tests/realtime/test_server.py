import asyncio
import contextlib
import json
import os
import re
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from domain.errors import ConfigurationError, Overloaded
from domain.events import EventName
from domain.principals import Principal, TokenKind
from persistence import outbox, retention
from realtime.limits import Limits
from tests.realtime.conftest import BOTH_ENGINES, CONTACT, CONVERSATION, Radio, Station, World, make_event, unhurried
from tests.realtime.crowd import REQUEST
from tests.support.waiting import PATIENCE_SECONDS, SLOWNESS, patience

PING = bytes([0x89, 0x80 | 125, 0, 0, 0, 0]) + b"x" * 125  # masked with zeros, so that it can be repeated cheaply
HOUR = 3600.0


# Authentication.


async def test_a_header_opens_the_stream(world: World) -> None:
    """With a token in the header the first frame is the hello, and committed events follow."""
    async with world.broadcaster() as station, station.listener() as radio:
        hello = await radio.next()
        await world.commit(make_event())
        event = await radio.next()

    assert (hello["type"], hello["sequence"], hello["since"]) == ("hello", 0, 0)
    assert (event["seq"], event["event"], event["data"]["contactId"]) == (1, "call_ended", CONTACT)


async def test_a_first_message_opens_the_stream(world: World) -> None:
    """Browsers, which cannot set headers, send the token first, with where to start."""
    await world.commit(make_event(), make_event())
    async with world.broadcaster() as station, station.listener(None) as radio:
        hello = await radio.ask(type="auth", token="ours", since=1)
        event = await radio.next()

    assert (hello["since"], hello["sequence"], event["seq"]) == (1, 2, 2)


async def test_a_subprotocol_opens_the_stream_and_is_not_echoed(world: World) -> None:
    """A token may be offered as a subprotocol; only ours is selected."""
    async with (
        world.broadcaster() as station,
        station.listener(None, subprotocols=["tether.v1", "bearer.ours"]) as radio,
    ):
        hello = await radio.next()
        assert radio.connection.subprotocol == "tether.v1"

    assert hello["type"] == "hello"


@pytest.mark.parametrize("token", ["nobody", "tool"])
async def test_a_wrong_header_token_is_refused_before_the_upgrade(world: World, token: str) -> None:
    """An unknown token, and a tool secret, get 401 with a challenge."""
    async with world.broadcaster() as station:
        with pytest.raises(InvalidStatus) as refused:
            async with station.listener(token):
                pass

    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["ours", "Basic ours", "Bearer", "Bearer "])
async def test_a_malformed_header_is_refused(world: World, header: str) -> None:
    """Only `Bearer <token>` is a token."""
    async with world.broadcaster() as station:
        with pytest.raises(InvalidStatus) as refused:
            async with station.listener(None, additional_headers={"Authorization": header}):
                pass

    assert refused.value.response.status_code == 401


async def test_a_wrong_message_token_closes_with_4401(world: World) -> None:
    """A refusal after the upgrade is an error frame and a close code of its own."""
    async with world.broadcaster() as station, station.listener(None) as radio:
        error = await radio.ask(type="auth", token="nobody")

        assert error["code"] == "unauthenticated"
        assert await radio.closed() == 4401


async def test_a_wrong_subprotocol_token_closes_with_4401(world: World) -> None:
    """A browser cannot see a status, so it is told by close code."""
    async with (
        world.broadcaster() as station,
        station.listener(None, subprotocols=["tether.v1", "bearer.nobody"]) as radio,
    ):
        assert (await radio.next())["code"] == "unauthenticated"
        assert await radio.closed() == 4401


async def test_silence_is_closed_with_4408(world: World, move_on: Callable[[float], None]) -> None:
    """Who does not authenticate in time is closed."""
    async with world.broadcaster() as station, station.listener(None) as radio:
        assert (await radio.ask(type="ping"))["code"] == "unauthenticated"
        move_on(PATIENCE_SECONDS)
        assert (await radio.next())["code"] == "auth_timeout"
        assert await radio.closed() == 4408


async def test_a_half_open_handshake_is_cut_off(world: World) -> None:
    """A peer that never finishes its request does not hold a socket for ever."""
    async with world.broadcaster(limits=unhurried(auth_seconds=0.2)) as station:
        reader, writer = await asyncio.open_connection("127.0.0.1", station.port)
        writer.write(b"GET /v1 HTTP/1.1\r\nHost: x\r\n")

        async with patience():
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


async def test_nothing_is_told_before_authentication(world: World) -> None:
    """Without a token there are no events, and every other message is answered with an error."""
    await world.commit(make_event())
    async with world.broadcaster() as station, station.listener(None) as radio:
        answers = [await radio.ask(type="resume", since=0), await radio.ask(type="ping")]

    assert [answer["code"] for answer in answers] == ["unauthenticated", "unauthenticated"]


async def test_a_token_in_the_address_is_refused(world: World) -> None:
    """Addresses end up in logs, so a token there is an error, whatever it is called."""
    async with world.broadcaster() as station:
        for name in ("token", "access_token"):
            status, _, body = await station.get(f"/v1?{name}=ours")
            assert status == 400
            assert b"ours" not in body


async def test_expiry_closes_with_its_own_code(world: World, move_on: Callable[[float], None]) -> None:
    """When the token ends, so does the connection."""
    world.tokens["brief"] = Principal(TokenKind.JWT, world.ours, expires_at=time.time() + HOUR)
    async with world.broadcaster() as station, station.listener("brief") as radio:
        assert (await radio.next())["expiresAt"] is not None
        assert (await radio.ask(type="ping"))["type"] == "pong"
        move_on(HOUR)
        assert await radio.closed() == 4498


async def test_a_fresh_token_in_place_renews_the_connection(world: World, move_on: Callable[[float], None]) -> None:
    """A token sent before the old one expires takes over, without a hole."""
    world.tokens["brief"] = Principal(TokenKind.JWT, world.ours, expires_at=time.time() + HOUR)
    async with world.broadcaster() as station, station.listener("brief") as radio, station.listener("brief") as other:
        await radio.next()
        await world.commit(make_event())
        await radio.until(1)
        renewed = await radio.ask(type="auth", token="ours")
        foreign = await radio.ask(type="auth", token="theirs")
        wrong = await radio.ask(type="auth", token="nobody")
        mixed = await radio.ask(type="auth", token="ours", since=0)
        assert (await other.next())["type"] == "hello"
        move_on(HOUR)
        assert await other.closed() == 4498  # the first token's end has come, and passes without effect here
        await world.commit(make_event())
        assert await radio.until(2) == [2]

    assert (renewed["type"], renewed["since"], renewed["expiresAt"]) == ("hello", 1, None)
    assert [each["code"] for each in (foreign, wrong, mixed)] == [
        "unauthenticated",
        "unauthenticated",
        "invalid_message",
    ]


async def test_a_database_out_of_order_means_try_later(world: World) -> None:
    """When tokens cannot be checked nobody is called unauthorized."""
    world.is_down = True
    async with world.broadcaster() as station:
        with pytest.raises(InvalidStatus) as refused:
            async with station.listener():
                pass
        async with station.listener(None) as radio:
            assert (await radio.ask(type="auth", token="ours"))["code"] == "try_later"
            assert await radio.closed() == 1013

    assert refused.value.response.status_code == 503
    assert "Retry-After" in refused.value.response.headers


# Whose events.


@BOTH_ENGINES
async def test_organizations_are_kept_apart(world: World) -> None:
    """A listener sees its organization's events and sequence only, live and replayed, whatever it filters for."""
    await world.commit(make_event(), organization_id=world.theirs)
    async with (
        world.broadcaster() as station,
        station.listener(query=f"?since=0&contactId={CONTACT}") as ours,
        station.listener("theirs", query="?since=0") as theirs,
    ):
        hellos = [await ours.next(), await theirs.next()]
        await world.commit(make_event(), organization_id=world.theirs)
        await world.commit(make_event())
        assert await ours.until(1) == [1]
        assert await theirs.until(2) == [1, 2]

    assert [hello["sequence"] for hello in hellos] == [0, 1]


async def test_the_hello_says_how_long_the_organization_keeps_events(world: World) -> None:
    """An organization's own retention goes before everybody's."""
    await world.database.write(lambda: retention.put(world.ours, retention.Retention(events=3)))
    async with (
        world.broadcaster(retention_hours=36) as station,
        station.listener() as ours,
        station.listener("theirs") as theirs,
    ):
        hellos = [await ours.next(), await theirs.next(), await ours.ask(type="resume", since=0)]

    assert [hello["retentionHours"] for hello in hellos] == [72, 36, 72]


# Resuming.


async def test_live_starts_now_without_since(world: World) -> None:
    """A listener that asks for nothing gets what is committed from its hello on."""
    await world.commit_many(3)
    async with world.broadcaster() as station, station.listener() as radio:
        hello = await radio.next()
        await world.commit(make_event())
        assert await radio.until(4) == [4]

    assert (hello["sequence"], hello["since"]) == (3, 3)


@pytest.mark.parametrize("since", [0, 4, 37, 59, 60])
async def test_resume_brings_what_was_missed_then_live(world: World, small_ring: Any, since: int) -> None:
    """From memory, from the outbox, or from both: every event after `since`, once, in order, and on into live."""
    await world.commit_many(60)
    async with (
        world.broadcaster(broadcaster=small_ring()) as station,
        station.listener(query=f"?since={since}") as radio,
    ):
        assert (await radio.next())["since"] == since
        last = await world.commit_many(20)
        assert await radio.until(last) == list(range(since + 1, 81))


@BOTH_ENGINES
async def test_resume_while_events_pour_in(world: World, small_ring: Any) -> None:
    """Replay and live meet without a hole or a double while commits go on."""
    await world.commit_many(50)
    async with world.broadcaster(broadcaster=small_ring()) as station, contextlib.AsyncExitStack() as stack:
        radios = [await stack.enter_async_context(station.listener(query=f"?since={5 * n}")) for n in range(10)]
        writing = asyncio.create_task(world.commit_many(300))
        for radio in radios:
            await radio.next()
        got = await asyncio.gather(*(radio.until(350) for radio in radios))
        await writing

    assert got == [list(range(5 * n + 1, 351)) for n in range(10)]


@BOTH_ENGINES
async def test_a_restarted_broadcaster_goes_on(world: World) -> None:
    """What a listener missed while there was no broadcaster is replayed by the next one."""
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        await world.commit_many(3)
        await radio.until(3)
    await world.commit_many(3)
    async with world.broadcaster() as station, station.listener(query="?since=3") as radio:
        hello = await radio.next()
        await world.commit(make_event())
        assert await radio.until(7) == [4, 5, 6, 7]

    assert hello["sequence"] == 6


@BOTH_ENGINES
async def test_what_is_gone_is_said(world: World) -> None:
    """When retention overtook a listener it is told before it gets what is left."""
    await world.commit_many(5)
    async with world.broadcaster() as station:
        await world.database.write(lambda: outbox.prune("9999", 3))
        async with station.listener(query="?since=1") as radio:
            hello, gap = await radio.next(), await radio.next()
            assert await radio.until(5) == [4, 5]

    assert hello["since"] == 1
    assert gap == {"type": "gap", "epoch": hello["epoch"], "since": 1, "oldest": 4, "reason": "pruned"}


async def test_a_sequence_that_never_was_is_a_gap(world: World) -> None:
    """Who claims to know more than was ever committed is told so, and goes on live."""
    await world.commit_many(2)
    async with world.broadcaster() as station, station.listener(query="?since=99") as radio:
        hello, gap = await radio.next(), await radio.next()
        await world.commit(make_event())
        assert await radio.until(3) == [3]

    assert hello["since"] == 2
    assert gap == {"type": "gap", "epoch": hello["epoch"], "since": 99, "oldest": 3, "reason": "ahead"}


async def test_a_listener_starts_over_in_place(world: World) -> None:
    """`resume` answers with a hello, then replays."""
    await world.commit_many(4)
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        hello = await radio.ask(type="resume", since=2)
        assert await radio.until(4) == [3, 4]

    assert (hello["type"], hello["since"], hello["sequence"]) == ("hello", 2, 4)


async def test_who_comes_from_a_faster_broadcaster_gets_no_double(world: World) -> None:
    """An event already seen elsewhere is not sent again by a broadcaster that reads it later."""
    async with world.broadcaster(deaf=True) as slow, slow.listener() as early:
        await early.next()
        await world.commit_many(2)
        async with slow.listener(query="?since=2") as radio:
            hello = await radio.next()
            await world.commit(make_event())
            slow.catch_up()
            assert await radio.until(3) == [3]
            assert await early.until(3) == [1, 2, 3]

    assert (hello["since"], hello["sequence"]) == (2, 2)


# Filters.


async def test_filters_hold_for_live_and_for_replay(world: World) -> None:
    """Names, contact and conversation narrow what comes; a pong tells how far the listener is nevertheless."""
    other = "e" * 24
    await world.commit(make_event(), make_event(EventName.NOTE_CREATED), make_event(contact_id=other))
    async with (
        world.broadcaster() as station,
        station.listener(query="?since=0&events=note_created") as notes,
        station.listener(query=f"?since=0&contactId={other}") as contact,
        station.listener(
            query=f"?since=0&conversationId={CONVERSATION}&events=call_ended,note_created"
        ) as conversation,
    ):
        for radio in (notes, contact, conversation):
            await radio.next()
        await world.commit(make_event(), make_event(EventName.NOTE_CREATED), make_event(contact_id=other))
        assert await notes.until(5) == [2, 5]
        assert await contact.until(6) == [3, 6]
        assert await conversation.until(6) == [1, 3, 4, 6]
        assert (await notes.ask(type="ping"))["sequence"] == 6


async def test_subscribe_replaces_the_filters_from_here_on(world: World) -> None:
    """The answer says what is in force, and after which sequence."""
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        await world.commit(make_event())
        await radio.until(1)
        answer = await radio.ask(type="subscribe", events=["note_created"], contactId=CONTACT)
        await world.commit(make_event(), make_event(EventName.NOTE_CREATED))
        assert await radio.until(3) == [3]
        everything = await radio.ask(type="subscribe")

    assert answer == {
        "type": "subscribed",
        "sequence": 1,
        "events": ["note_created"],
        "contactId": CONTACT,
        "conversationId": None,
    }
    assert (everything["events"], everything["sequence"]) == (None, 3)


# Bad input.


NOBODYS_MESSAGES: list[str | bytes] = [
    "",
    "nonsense",
    "[]",
    "null",
    "{}",
    '{"type":"shout"}',
    '{"type":["ping"]}',
    '{"type":"resume"}',
    '{"type":"resume","since":-1}',
    '{"type":"resume","since":"3"}',
    '{"type":"resume","since":true}',
    '{"type":"resume","since":1e999}',
    '{"type":"resume","since":99999999999999999999}',
    '{"type":"subscribe","events":["nothing"]}',
    '{"type":"subscribe","events":"call_ended"}',
    '{"type":"subscribe","contactId":"7"}',
    '{"type":"subscribe","contact_id":"' + CONTACT + '"}',
    '{"type":"ping","more":1}',
    '{"type":"ping"' + "," * 100,
    "[" * 5000,
    '{"type":"auth"}',
    '{"type":"auth","token":""}',
    b"\x00\x01\x02",
    b'{"type":"ping"}',
]


async def test_messages_nobody_published_are_answered_not_fatal(world: World, subtests: pytest.Subtests) -> None:
    """Garbage gets an error that repeats nothing of it, and the stream goes on."""
    async with world.broadcaster() as station:
        for sequence, message in enumerate(NOBODYS_MESSAGES, 1):
            with subtests.test(message=repr(message[:40])):
                async with station.listener() as radio:
                    await radio.next()
                    await radio.connection.send(message)
                    error = await radio.next()
                    await world.commit(make_event())

                    assert (error["type"], error["code"]) == ("error", "invalid_message")
                    assert await radio.until(sequence) == [sequence]


async def test_a_fragmented_message_is_read_as_one(world: World) -> None:
    """Fragments are legal and add up."""
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        await radio.connection.send(['{"type":', '"pi', 'ng"}'])
        assert (await radio.next())["type"] == "pong"


def wire(payload: bytes, *, opcode: int = 1, final: bool = True, compressed: bool = False) -> bytes:
    """Write a client's frame by hand, masked with zeros, legal or not."""
    head = bytes((final << 7 | compressed << 6 | opcode, 0x80 | 126)) + len(payload).to_bytes(2, "big")
    return head + bytes(4) + payload


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (wire(b'{"type":"ping","x":"' + b"y" * 9000 + b'"}'), 1009),
        (wire(b"\xff\xfe" * 70), 1007),
        (wire(zlib.compress(b"0" * 5_000_000, 9)[2:], compressed=True), 1002),
        (wire(b"the tail of nothing" * 10, opcode=0), 1002),
        (wire(b"no such opcode" * 10, opcode=3), 1002),
        (b"\x81\x05naked", 1002),
    ],
)
async def test_illegal_frames_close_the_connection(world: World, sent: bytes, code: int) -> None:
    """Too long, not UTF-8, compressed without agreement, out of order: the standard's code, and nobody else hurt."""
    async with world.broadcaster() as station, station.listener() as radio, station.listener() as neighbour:
        await radio.next()
        await neighbour.next()
        radio.connection.transport.write(sent)
        assert await radio.closed() == code
        await world.commit(make_event())
        assert await neighbour.until(1) == [1]


async def test_fragments_without_end_are_bounded(world: World) -> None:
    """A message is limited as a whole, not by fragment."""
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        for number in range(12):
            radio.connection.transport.write(wire(b"x" * 1000, opcode=0 if number else 1, final=False))
        assert await radio.closed() == 1009


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("/v2", 404),
        ("//[", 404),
        ("/v1?since=-1", 400),
        ("/v1?since=x", 400),
        ("/v1?since=%C2%B2", 400),
        ("/v1?since=99999999999999999999", 400),
        ("/v1?since=1&since=2", 400),
        ("/v1?events=call_ended,", 400),
        ("/v1?contactId=abc", 400),
        ("/v1?colour=red", 400),
        ("/v1?" + "&".join(f"a{n}=1" for n in range(20)), 400),
        ("/v1", 426),
    ],
)
async def test_requests_that_cannot_become_a_stream(world: World, path: str, status: int) -> None:
    """Paths and queries are checked before the upgrade."""
    async with world.broadcaster() as station:
        assert (await station.get(path))[0] == status


async def test_garbage_instead_of_http_harms_nobody(world: World) -> None:
    """Bytes that are no request end their own connection only."""
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        reader, writer = await asyncio.open_connection("127.0.0.1", station.port)
        writer.write(os.urandom(500) + b"\r\n\r\n")
        async with patience():
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()
        await world.commit(make_event())
        assert await radio.until(1) == [1]


async def test_pages_of_other_origins_are_closed_with_words_a_browser_can_read(world: World) -> None:
    """Pages the broadcaster serves itself may connect, listed origins may, others hear why they may not."""
    async with world.broadcaster(allowed_origins=["HTTPS://desk.example:443", "wss://events.example"]) as station:
        for origin in (f"http://127.0.0.1:{station.port}", "https://desk.example", "https://events.example"):
            async with station.listener(origin=origin) as radio:
                assert (await radio.next())["type"] == "hello"
        with capture_logs() as lines:
            for origin in ("https://evil.example", "http://desk.example", "http://127.0.0.1:1", "null", "http://["):
                async with station.listener(origin=origin) as radio:
                    assert await radio.closed() == 4403
                    assert "REALTIME_ALLOWED_ORIGINS" in (radio.connection.close_reason or "")
    assert [line["refusals"] for line in lines if line["event"] == "broadcast.origin_refused"] == [1]


async def test_pages_of_any_origin_may_connect_if_a_star_is_listed(world: World) -> None:
    """For whoever wants no second fence beside the token."""
    async with (
        world.broadcaster(allowed_origins=["*"]) as station,
        station.listener(origin="https://anything.example") as radio,
    ):
        assert (await radio.next())["type"] == "hello"


# Limits.


async def test_too_many_messages_close_with_4429(world: World) -> None:
    """A listener that floods us is closed."""
    limits = unhurried(messages_per_second=1e-6, message_burst=3)
    async with world.broadcaster(limits=limits) as station, station.listener() as radio:
        assert (await radio.next())["type"] == "hello"
        answers = [(await radio.ask(type="ping")) for _ in range(3)]

        assert [answer["type"] for answer in answers] == ["pong", "pong", "pong"]
        assert (await radio.ask(type="ping"))["code"] == "too_many"
        assert await radio.closed() == 4429


@pytest.mark.parametrize("limits", [Limits(per_organization=1), Limits(per_address=1), Limits(connections=1)])
async def test_too_many_connections_are_refused(world: World, limits: Limits) -> None:
    """One more than allowed gets 429 or 503 with `Retry-After`; when one leaves there is room again."""
    async with world.broadcaster(limits=limits) as station:
        async with station.listener() as radio:
            await radio.next()
            with pytest.raises(InvalidStatus) as refused:
                async with station.listener():
                    pass
        async with station.listener() as radio:
            assert (await radio.next())["type"] == "hello"

    assert refused.value.response.status_code in (429, 503)
    assert "Retry-After" in refused.value.response.headers


async def test_the_limit_of_an_organization_holds_for_message_tokens(world: World) -> None:
    """After the upgrade the same limit is a close code."""
    limits = Limits(per_organization=1)
    async with (
        world.broadcaster(limits=limits) as station,
        station.listener() as first,
        station.listener(None) as second,
    ):
        await first.next()
        assert (await second.ask(type="auth", token="ours"))["code"] == "too_many"
        assert await second.closed() == 4429


async def test_a_listener_that_does_not_read_delays_nobody_and_loses_nothing(world: World) -> None:
    """Past the write buffer it gets nothing more; if it does not read then it is closed, and later it resumes."""
    limits = unhurried(unsent_bytes=64 << 10, stall_seconds=0.3, slowest_bytes_per_second=1 << 20)
    async with world.broadcaster(limits=limits) as station, station.listener() as good, station.listener() as stalled:
        stalled.connection.transport.pause_reading()
        await good.next()
        reading = asyncio.create_task(good.until(3000))
        for _ in range(30):
            await world.commit(*(make_event(padding=1500) for _ in range(100)))
        assert await reading == list(range(1, 3001))

        async with patience():
            while b'realtime_closed_total{code="4490"} 1.0' not in (await station.get("/metrics"))[2]:
                pass
        stalled.connection.transport.resume_reading()
        await stalled.next()
        seen = [frame["seq"] async for frame in stalled.frames()]
        assert stalled.connection.close_code == 4490
        assert stalled.connection.close_reason == f"too slow; come back and resume after {seen[-1]}"
        assert seen == list(range(1, len(seen) + 1))

        async with station.listener(query=f"?since={seen[-1]}") as again:
            await again.next()
            assert await again.until(3000) == list(range(seen[-1] + 1, 3001))


async def test_a_reader_that_is_slow_and_steady_stays(world: World) -> None:
    """It takes a little all the time, which its kernel tells us in large steps: far between for the time limit."""
    limits = unhurried(unsent_bytes=64 << 10, stall_seconds=0.2, slowest_bytes_per_second=64 << 10)
    async with world.broadcaster(limits=limits) as station:
        loop, taken = asyncio.get_running_loop(), 0
        with socket.create_connection(("127.0.0.1", station.port)) as line:
            line.sendall(REQUEST.format(since=0).replace("Bearer any", "Bearer ours").encode())
            line.setblocking(False)
            async with patience():
                while station.server.health()["listeners"] == 0:  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.01)
            for _ in range(10):
                await world.commit(*(make_event(padding=1500) for _ in range(100)))
            while taken < 1 << 20:
                piece = await loop.sock_recv(line, 16 << 10)
                assert piece, "it was closed"
                taken += len(piece)
                await asyncio.sleep(len(piece) / (96 << 10))
            assert b'realtime_closed_total{code="4490"}' not in (await station.get("/metrics"))[2]


async def test_a_slow_reader_is_served_at_its_own_pace(world: World) -> None:
    """Who falls behind but goes on reading is not closed, and misses nothing."""
    limits = unhurried(unsent_bytes=16 << 10)
    async with world.broadcaster(limits=limits) as station, station.listener() as slow:
        await slow.next()
        slow.connection.transport.pause_reading()
        for _ in range(30):
            await world.commit(*(make_event(padding=1500) for _ in range(100)))
        async with patience():
            while b"realtime_held_total 0.0" in (await station.get("/metrics"))[2]:
                pass
        slow.connection.transport.resume_reading()
        assert await slow.until(3000) == list(range(1, 3001))
        last = await world.commit(make_event())
        assert await slow.until(last) == [last]


@pytest.mark.parametrize("filling", ["events", "pings"])
async def test_answers_and_live_events_do_not_get_between_each_other(world: World, filling: str) -> None:
    """Whoever asks much and reads little gets whole frames, however many of them wait half written."""
    limits = unhurried(unsent_bytes=16 << 20, messages_per_second=1000, message_burst=1000)
    async with world.broadcaster(limits=limits) as station, station.listener() as radio:
        await radio.next()
        radio.connection.transport.pause_reading()
        if filling == "events":
            await world.commit(*(make_event(padding=4000) for _ in range(2000)))
            await until_metrics_say(station, r"realtime_deliveries_total 2000\.0")
        else:
            radio.connection.transport.write(PING * 80_000)
            await radio.connection.drain()
        radio.connection.transport.resume_reading()

        asking = asyncio.create_task(_ask_much(world, radio, 100))
        seen, pongs = list[int](), 0
        last = 4000 if filling == "events" else 2000
        while len(seen) < last or pongs < 100:
            frame = await radio.next()
            if frame["type"] == "event":
                seen.append(frame["seq"])
            else:
                pongs += 1
        await asking

    assert seen == list(range(1, last + 1))


async def _ask_much(world: World, radio: Radio, times: int) -> None:
    for number in range(times):
        await radio.connection.ping(str(number) * 30)
        await radio.send(type="ping")
        await world.commit(*(make_event(padding=4000) for _ in range(20)))


async def test_who_pings_without_reading_the_answers_is_cut_off(world: World) -> None:
    """The library answers every ping at once, so nothing else would bound what is kept for such a listener."""
    limits = unhurried(unsent_bytes=16 << 10)
    async with world.broadcaster(limits=limits) as station, station.listener() as radio:
        await radio.next()
        radio.connection.transport.pause_reading()
        with contextlib.suppress(ConnectionClosed, ConnectionError):
            async with patience():
                while True:
                    radio.connection.transport.write(PING * 1000)
                    await radio.connection.drain()
                    if radio.connection.transport.is_closing():
                        break
        await until_metrics_say(station, r"realtime_listeners 0\.0")


# Life.


async def until_metrics_say(station: Station, pattern: str) -> None:
    """Ask for the metrics until they match."""
    async with patience():
        while not re.search(pattern, (await station.get("/metrics"))[2].decode()):
            pass


async def test_a_quiet_listener_is_kept_by_its_heartbeats(world: World) -> None:
    """Who answers pings stays, however long nothing happens."""
    limits = unhurried(heartbeat_seconds=0.5 * SLOWNESS)
    async with world.broadcaster(limits=limits) as station, station.listener() as radio:
        await radio.next()
        await until_metrics_say(station, r"realtime_heartbeats_total [4-9]")
        await world.commit(make_event())
        assert await radio.until(1) == [1]


async def test_a_listener_that_does_not_answer_heartbeats_is_closed(world: World) -> None:
    """A line that went dead is given up after two heartbeats, with 1011."""
    limits = unhurried(heartbeat_seconds=0.2)
    async with (
        world.broadcaster(limits=limits) as station,
        station.behind_a_line() as line,
        connect(line.url, additional_headers={"Authorization": "Bearer ours"}, proxy=None) as connection,
    ):
        await connection.recv()
        line.cut()
        await until_metrics_say(station, r'realtime_closed_total{code="1011"} 1')
        line.mend()
        await connection.wait_closed()

    assert connection.close_code == 1011


async def test_stopping_tells_everyone_to_come_back(world: World) -> None:
    """A stopping broadcaster closes with 1012, everyone within the time it was given."""
    async with contextlib.AsyncExitStack() as stack:
        async with world.broadcaster(limits=Limits(drain_seconds=0.3)) as station:
            radios = [await stack.enter_async_context(station.listener()) for _ in range(20)]
            for radio in radios:
                await radio.next()
        codes = [await radio.closed() for radio in radios]

    assert codes == [1012] * 20


async def test_a_taken_port_is_one_clear_sentence(world: World) -> None:
    """The person who starts the server is told what to do."""
    async with world.broadcaster() as station:
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{station.port}"):
            async with world.server().running("127.0.0.1", station.port):
                pass


async def test_health_and_metrics_are_plain_http(world: World) -> None:
    """Both are answered on the same port, with the listeners and the lag."""
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        await world.commit(make_event())
        await radio.until(1)
        status, headers, body = await station.get("/healthz")
        exposition = (await station.get("/metrics"))[2].decode()

    health = json.loads(body)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert (health["status"], health["listeners"]) == ("ok", 1)
    assert health["lagSeconds"] < 5
    assert "realtime_deliveries_total 1.0" in exposition
    assert "realtime_listeners 1.0" in exposition


# Headers that come twice.


@pytest.mark.parametrize("origins", [("http://127.0.0.1", "https://evil.example"), ("https://evil.example", "null")])
async def test_a_page_of_two_origins_is_refused(world: World, origins: tuple[str, str]) -> None:
    """Whichever comes first: nobody can tell which of them the page is of."""
    async with world.broadcaster(allowed_origins=["http://127.0.0.1"]) as station:
        with pytest.raises(InvalidStatus) as refused:
            async with station.listener(
                additional_headers=[("Authorization", "Bearer ours"), *[("Origin", each) for each in origins]]
            ):
                pass

    # Ours, and not the library's 400, which would be its to change.
    assert refused.value.response.status_code == 403


async def test_two_tokens_are_no_token(world: World) -> None:
    """What stands in front of us may have looked at the other one."""
    both = [("Authorization", "Bearer ours"), ("Authorization", "Bearer theirs")]
    async with world.broadcaster() as station:
        with pytest.raises(InvalidStatus) as refused:
            async with station.listener(None, additional_headers=both):
                pass

    assert refused.value.response.status_code == 401


# Two listeners.


class Reading:
    """A database whose reads of the outbox are held back, or fail, until they may go on."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self.write, self.follow, self.place = database.write, database.follow, database.place
        self.is_held = False
        self.failures = 0
        self.asked = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def read(self, unit: Any) -> Any:
        # What is read for a replay is a function of the replay's own.
        if self.is_held and "Replay" in unit.__qualname__:
            self.asked.set()
            await self.may_go_on.wait()
            if self.failures:
                self.failures -= 1
                raise Overloaded
        return await self._database.read(unit)


async def test_a_listener_that_leaves_takes_nothing_from_those_who_wait_for_the_same(world: World) -> None:
    """What is read once for all of them is read to its end."""
    await world.commit_many(10)
    reading = Reading(world.database)
    async with world.server(reading).running("127.0.0.1", 0) as port:  # type: ignore[arg-type]
        station = Station(world.server(), port, asyncio.Event())
        reading.is_held = True
        async with station.listener(query="?since=0") as staying:
            async with station.listener(query="?since=0") as leaving:
                assert [(await each.next())["type"] for each in (leaving, staying)] == ["hello", "hello"]
                await asyncio.wait_for(reading.asked.wait(), 10)
            await until_metrics_say(station, r"realtime_listeners 1\.0")
            reading.may_go_on.set()
            assert await staying.until(10) == list(range(1, 11))


async def test_a_replay_that_fails_sends_its_listener_back_and_is_tried_for_the_next(world: World) -> None:
    """It is closed with 1013, and whoever comes after the failure is brought up to date."""
    await world.commit_many(10)
    reading = Reading(world.database)
    reading.is_held, reading.failures = True, 1
    reading.may_go_on.set()
    async with world.server(reading).running("127.0.0.1", 0) as port:  # type: ignore[arg-type]
        station = Station(world.server(), port, asyncio.Event())
        async with station.listener(query="?since=0") as first:
            assert (await first.next())["type"] == "hello"
            assert await first.closed() == 1013
        async with station.listener(query="?since=0") as second:
            assert (await second.next())["type"] == "hello"
            assert await second.until(10) == list(range(1, 11))


async def test_what_is_gone_is_counted(world: World) -> None:
    """Whether it was pruned or never was, so that a retention that is too short is noticed."""
    await world.commit_many(3)
    async with world.broadcaster() as station:
        await world.database.write(lambda: outbox.prune("9999", 1))
        for count, since in enumerate((0, 99), 1):
            async with station.listener(query=f"?since={since}") as radio:
                assert [(await radio.next())["type"] for _ in range(2)] == ["hello", "gap"]
            await until_metrics_say(station, rf"realtime_gaps_total {count}\.0")


async def heartbeats(station: Station) -> float:
    """Return how many were sent."""
    (count,) = re.findall(r"(?m)^realtime_heartbeats_total (\S+)$", (await station.get("/metrics"))[2].decode())
    return float(count)


async def test_who_is_being_brought_up_to_date_is_not_taken_for_silent(world: World) -> None:
    """A listener on a narrow line answers no heartbeat that lies behind much else; it reads, and so it stays."""
    await world.commit(*(make_event(padding=4000) for _ in range(500)))
    limits = Limits(drain_seconds=0.1, heartbeat_seconds=0.05, stall_seconds=60)
    async with world.broadcaster(limits=limits) as station, station.listener() as radio:
        await radio.next()
        radio.connection.transport.pause_reading()
        radio.connection.transport.write(wire(b'{"type":"resume","since":0}' + b" " * 100))
        await until_metrics_say(station, r"realtime_listeners_behind 1\.0")
        beats = await heartbeats(station)
        async with asyncio.timeout(10):
            while await heartbeats(station) < beats + 3:
                pass
        await until_metrics_say(station, r"realtime_listeners_behind 1\.0")
        radio.connection.transport.resume_reading()
        assert (await radio.next())["type"] == "hello"
        assert await radio.until(500) == list(range(1, 501))


async def test_a_message_says_where_to_start_whatever_the_address_said(world: World) -> None:
    """What the address said counts for what the message leaves open."""
    await world.commit_many(3)
    async with (
        world.broadcaster() as station,
        station.listener(None, query="?since=0&events=call_ended") as telling,
        station.listener(None, query="?since=0") as silent,
    ):
        assert (await telling.ask(type="auth", token="ours", since=2))["since"] == 2
        assert (await silent.ask(type="auth", token="ours"))["since"] == 0
        await world.commit(make_event(EventName.NOTE_CREATED), make_event())
        assert await telling.until(5) == [3, 5]


async def test_one_organization_does_not_take_the_places_of_another(world: World) -> None:
    """The limit holds for each of them."""
    limits = Limits(drain_seconds=0.1, per_organization=2)
    async with (
        world.broadcaster(limits=limits) as station,
        station.listener() as one,
        station.listener() as two,
        station.listener("theirs") as other,
    ):
        assert [(await each.next())["type"] for each in (one, two, other)] == ["hello"] * 3
        with pytest.raises(InvalidStatus):
            async with station.listener():
                pass
        async with station.listener("theirs") as more:
            assert (await more.next())["type"] == "hello"


async def test_a_long_reason_ends_within_the_bytes_that_are_allowed(world: World) -> None:
    """It is cut between two letters, and the connection is closed as it should be."""
    async with world.broadcaster() as station, station.listener() as radio:
        await radio.next()
        (session,) = station.server._reception.sessions
        session.close(1013, "é" * 100)

        assert await radio.closed() == 1013
        assert radio.connection.close_reason == "é" * 61
