"""What a server may do to a client, played to each of them: JavaScript with either WebSocket of Node, and Python."""

import asyncio
from typing import Any

import pytest

from tests.clients.drivers import Client, Start
from tests.clients.scripted import EPOCH, NEXT_EPOCH, Answer, Said, Way, event, gap, hello, page, scripted
from tests.support.waiting import SLOWNESS, until

pytestmark = pytest.mark.processes

OUT: list[Said] = [None]


async def at(client: Client, place: tuple[int, str]) -> None:
    """Wait until the client stands there."""

    async def stands() -> bool:
        return await client.place() == place

    await until(stands, f"it stands at {place}")


# Its place.


async def test_a_repeated_event_is_given_once(start: Start) -> None:
    """Whether it comes on the same connection or on the next."""
    scripts: list[list[Said]] = [[hello(), event(1), event(1), event(2), 1012], [hello(2), event(2), event(3)]]
    async with scripted(*scripts) as playing, start(url=playing.url, token="ours") as client:
        assert await client.until(3) == [1, 2, 3]

    assert playing.since == [None, 2]


async def test_the_place_and_the_epoch_of_the_hello_are_handed_back(start: Start) -> None:
    """What is committed after the hello and before the first event is not lost."""
    async with (
        scripted([hello(4), 1012], [hello(4), event(5)]) as playing,
        start(url=playing.url, token="ours") as client,
    ):
        await client.until(5)

    assert playing.places == [(None, None), (4, EPOCH)]


async def test_a_place_that_is_given_is_asked_for_with_its_epoch_and_the_filters(start: Start) -> None:
    """All of it goes with the token, and nothing else."""
    filters = {"events": ["call_ended"], "contactId": "c" * 24, "conversationId": "d" * 24}
    async with (
        scripted([hello(41)]) as playing,
        start(url=playing.url, token="ours", since=41, epoch=EPOCH, **filters),
    ):
        await playing.until_connected(1)

    assert playing.asked == [{"type": "auth", "token": "ours", "since": 41, "epoch": EPOCH, **filters}]


async def test_a_gap_moves_the_place_and_the_epoch(start: Start) -> None:
    """It is told once of what is gone, and goes on in the new log."""
    scripts: list[list[Said]] = [[hello(12), gap(12, 3), event(3), 1012], [hello(3, epoch=NEXT_EPOCH), event(4)]]
    async with scripted(*scripts) as playing, start(url=playing.url, token="ours", since=12, epoch=EPOCH) as client:
        told = await client.next("gap")
        assert await client.until(4) == [3, 4]
        await at(client, (4, NEXT_EPOCH))

    assert (told["reason"], told["oldest"]) == ("epoch", 3)
    assert playing.places == [(12, EPOCH), (3, NEXT_EPOCH)]


async def test_a_hello_of_another_log_does_not_hide_the_gap_that_was_not_heard(start: Start) -> None:
    """Where the connection breaks between the two, the old epoch is asked with again."""
    async with (
        scripted([hello(12, epoch=NEXT_EPOCH), None], [hello(12, epoch=NEXT_EPOCH)]) as playing,
        start(url=playing.url, token="ours", since=12, epoch=EPOCH),
    ):
        await playing.until_connected(2)

    assert playing.places == [(12, EPOCH)] * 2


async def test_a_gap_whose_handler_fails_is_asked_for_again_by_who_starts_over(start: Start) -> None:
    """The place stays before the gap."""
    async with (
        scripted([hello(1), gap(1, 9)]) as playing,
        start(url=playing.url, token="ours", since=1, epoch=EPOCH, throwsAtGap=True) as client,
    ):
        stopped = await client.next("stopped")

    assert (stopped["detail"]["since"], stopped["detail"]["epoch"]) == (1, EPOCH)


async def test_a_handler_that_fails_ends_the_follow_before_its_event(start: Start) -> None:
    """The place does not move, nothing that follows is handed on, and nothing is tried again."""
    async with (
        scripted([hello(), event(1), event(2), event(3)]) as playing,
        start(url=playing.url, token="ours", throwsAt=2) as client,
    ):
        stopped = await client.next("stopped")

    assert client.heard == [1, 2]
    assert stopped["detail"]["since"] == 1
    assert len(playing.asked) == 1


async def test_the_place_moves_after_a_slow_handler(start: Start) -> None:
    """What was received before the connection broke is handled first, and not asked for again."""
    async with (
        scripted([hello(), event(1), event(2), None], [hello(2), event(3)]) as playing,
        start(url=playing.url, token="ours", pause=0.1) as client,
    ):
        await client.next("event")
        assert await client.place() == (0, EPOCH)
        assert await client.until(3) == [2, 3]

    assert playing.since == [None, 2]


async def test_a_pong_keeps_the_place_and_proves_that_the_line_stands(start: Start) -> None:
    """A quiet line that answers is kept, and after an interruption it goes on from where the last pong said."""
    async with (
        scripted([hello(1, heartbeat=0.05)], [hello(7)]) as playing,
        start(url=playing.url, token="ours", pongSeconds=60) as client,
    ):
        await client.next("live")
        await playing.until_asked(5)
        assert len(playing.asked) == 1
        playing.break_off()
        await playing.until_connected(2)

    assert playing.since == [None, 7]


# Coming back.


async def test_a_pong_that_does_not_come_ends_the_connection(start: Start) -> None:
    """A line that is dead is not called live for long."""
    async with (
        scripted([Way.MUTE, hello(1, heartbeat=0.05)], [hello(1)]) as playing,
        start(url=playing.url, token="ours", pongSeconds=0.2) as client,
    ):
        waiting = await client.next("waiting")
        await playing.until_connected(2)

    assert (waiting["detail"]["code"], waiting["detail"]["reason"]) == (1006, "no answer")


async def test_pauses_grow_up_to_a_limit_and_begin_anew_after_an_event(start: Start) -> None:
    """A server that says hello and closes is asked less and less; one that brings an event is trusted again."""
    greeting = hello(base=0.01, longest=0.05)
    scripts: list[list[Said]] = [
        [greeting, None], [greeting, None], OUT, [greeting, None], [greeting, event(1), None], [greeting],
    ]  # fmt: skip
    async with scripted(*scripts) as playing, start(url=playing.url, token="ours", chance=1) as client:
        pauses = [(await client.next("waiting"))["detail"]["seconds"] for _ in range(5)]

    assert pauses == [0.01, 0.02, 0.04, 0.05, 0.01]


async def test_pauses_begin_anew_after_time_on_air(start: Start) -> None:
    """A connection that stood for half a minute was a good one, however quiet."""
    greeting = hello(base=0.01, longest=0.05)
    async with (
        scripted([greeting, None], [greeting, None], [greeting], [greeting]) as playing,
        start(url=playing.url, token="ours", chance=1) as client,
    ):
        pauses = [(await client.next("waiting"))["detail"]["seconds"] for _ in range(2)]
        await client.next("live")
        await client.skew(31)
        playing.break_off()
        pauses.append((await client.next("waiting"))["detail"]["seconds"])

    assert pauses == [0.01, 0.02, 0.01]


async def test_every_pause_is_left_to_chance(start: Start) -> None:
    """Those that come back after a restart do not come all at once, and neither do those that were cut off."""
    async with (
        scripted([hello(), 1012], [hello(), event(1), None], [hello()]) as playing,
        start(url=playing.url, token="ours", chance=0.5) as client,
    ):
        pauses = [(await client.next("waiting"))["detail"]["seconds"] for _ in range(2)]

    assert pauses == [0.005, 0.005]


@pytest.mark.parametrize("code", [4401, 4497, 4498, 1002, 1003, 1007, 1009, 4403])
async def test_what_cannot_get_better_is_not_tried_again(start: Start, code: int) -> None:
    """A token that is worth nothing, and a mistake of its own, end it."""
    async with scripted([hello(), code]) as playing, start(url=playing.url, token="ours") as client:
        ended = await client.next("stopped", "waiting")

    assert (ended["kind"], ended["detail"]["code"], ended["detail"]["reason"]) == ("stopped", code, "as written")
    assert len(playing.asked) == 1


@pytest.mark.parametrize("text", ["{", "[]", '"hello"', "null", '{"type": 1}'])
async def test_a_frame_that_cannot_be_read_ends_the_connection(start: Start, text: str) -> None:
    """It comes back to where it was."""
    async with (
        scripted([hello(3), text], [hello(3), event(4)]) as playing,
        start(url=playing.url, token="ours") as client,
    ):
        assert (await client.next("waiting"))["detail"]["reason"] == "a frame cannot be read"
        await client.until(4)

    assert playing.since == [None, 3]


async def test_frames_nobody_knows_yet_are_ignored(start: Start) -> None:
    """A server that learned to say more does not disturb it."""
    async with (
        scripted([hello(), {"type": "news"}, event(1)]) as playing,
        start(url=playing.url, token="ours") as client,
    ):
        assert await client.until(1) == [1]

    assert playing.upgrades == 1


# Errors, and tokens.


async def test_errors_of_the_server_are_handed_on(start: Start) -> None:
    """The sentence that explains a close arrives, and the connection goes on if the server lets it."""
    trouble = {"type": "error", "code": "try_later", "message": "That cannot be done just now."}
    async with (
        scripted([hello(), trouble, event(1)]) as playing,
        start(url=playing.url, token="ours") as client,
    ):
        told = await client.next("error")
        assert await client.until(1) == [1]

    assert (told["code"], told["message"]) == (trouble["code"], trouble["message"])


async def test_options_that_the_server_refuses_end_it_with_its_sentence(start: Start) -> None:
    """It does not wait for a close that only says that no token came."""
    trouble = {"type": "error", "code": "invalid_message", "message": "epoch is not a known field."}
    async with scripted([trouble]) as playing, start(url=playing.url, token="ours") as client:
        told = await client.next("error")
        stopped = await client.next("stopped")

    assert told["message"] == trouble["message"]
    assert (stopped["detail"]["code"], stopped["detail"]["reason"]) == ("invalid_message", trouble["message"])


async def test_a_token_is_asked_for_again_once(start: Start) -> None:
    """Where the fresh one is refused as well there is no other."""
    async with scripted([4401]) as playing, start(url=playing.url, tokens=["one", "two", "three"]) as client:
        await client.next("stopped")

    assert [asked["token"] for asked in playing.asked] == ["one", "two"]


async def test_a_token_that_never_comes_is_not_waited_for_without_end(start: Start) -> None:
    """It is told, and asked for again after a pause."""
    async with (
        scripted([hello()]) as playing,
        start(url=playing.url, tokens=[None, "late"], tokenSeconds=0.2, chance=0) as client,
    ):
        told = await client.next("error")
        waiting = await client.next("waiting")
        await client.next("live")

    assert told["code"] == "token_failed"
    assert "token() gave nothing within 0.2 s" in waiting["detail"]["reason"]
    assert [asked["token"] for asked in playing.asked] == ["late"]


@pytest.mark.parametrize("state", ["connecting", "waiting"])
async def test_a_client_that_is_stopped_does_not_connect(start: Start, state: str) -> None:
    """Neither while a token is fetched nor while it waits to come back; and its process ends."""
    async with (
        scripted([hello(), 1012]) as playing,
        start(url=playing.url, tokens=[None] if state == "connecting" else ["ours"], stopsAt=state) as client,
    ):
        await client.next("stopped")
        assert await client.stop() == 0

    assert len(playing.asked) == int(state == "waiting")


async def test_a_client_can_be_stopped_while_its_upgrade_is_not_answered(start: Start) -> None:
    """No error is left to nobody, which would end the process."""
    async with scripted([Way.SILENT]) as playing, start(url=playing.url, token="ours") as client:
        await playing.until(lambda: playing.upgrades == 1)
        assert await client.stop() == 0


async def test_a_client_that_is_stopped_while_live_ends(start: Start) -> None:
    """Its process ends with it."""
    async with scripted([hello()]) as playing, start(url=playing.url, token="ours") as client:
        await client.next("live")
        assert await client.stop() == 0


@pytest.mark.parametrize("way", [Way.SILENT, Way.REFUSED, None])
async def test_an_upgrade_that_fails_is_tried_again(start: Start, way: Way | None) -> None:
    """Without another way it stays with the socket, and no error is left to nobody."""
    async with (
        scripted([way], [way], [way], [hello()]) as playing,
        start(url=playing.url, token="ours", connectSeconds=1 if way is Way.SILENT else 60, chance=0.01) as client,
    ):
        codes = [(await client.next("waiting"))["detail"]["code"] for _ in range(3)]
        await client.next("live")
        assert await client.stop() == 0

    assert codes == [1006] * 3


async def test_a_connection_that_is_not_greeted_is_given_up(start: Start) -> None:
    """A proxy may let the upgrade through and nothing else."""
    async with scripted([], [hello()]) as playing, start(url=playing.url, token="ours", connectSeconds=0.5) as client:
        waiting = await client.next("waiting")
        await client.next("live")

    assert waiting["detail"]["reason"] == "no greeting within 0.5 s"
    assert playing.upgrades == 2


# The options.


def _written(given: object) -> str | None:
    """Name a case by its options, whatever cases come before it."""
    return " ".join(f"{name}={value!r}"[:40] for name, value in given.items()) if isinstance(given, dict) else None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://127.0.0.1/v1"}, "url must be the address of the broadcaster"),
        ({"url": "127.0.0.1:2213"}, "url must be the address of the broadcaster"),
        ({"url": "ws://["}, "url must be the address of the broadcaster"),
        ({"url": "ws://127.0.0.1/v1#x"}, "url must be the address of the broadcaster"),
        ({"url": 7}, "url must be the address of the broadcaster"),
        ({"token": ""}, "token must be an API key or JWT, or a function that returns one."),
        ({"token": "x" * 4097}, "token must be an API key or JWT, or a function that returns one."),
        ({"token": None}, "token must be an API key or JWT, or a function that returns one."),
        ({"since": "41"}, "since must be the sequence of the last event handled, a whole number from 0."),
        ({"since": -1}, "since must be the sequence of the last event handled, a whole number from 0."),
        ({"since": 1.5}, "since must be the sequence of the last event handled, a whole number from 0."),
        ({"since": True}, "since must be the sequence of the last event handled, a whole number from 0."),
        ({"since": 1, "epoch": "1"}, "epoch must be the epoch that came with the position, 24 hexadecimal digits."),
        ({"epoch": EPOCH}, "epoch belongs to a position: give since as well."),
        ({"events": []}, "events must be a list of at least one of call_initiated, call_ended,"),
        ({"events": "call_ended"}, "events must be a list of at least one of call_initiated, call_ended,"),
        ({"events": ["call_started"]}, "events must be a list of at least one of call_initiated, call_ended,"),
        ({"events": ["erased", "erased"]}, "events must be a list of at least one of call_initiated, call_ended,"),
        ({"contactId": "7"}, "must be the id of a contact, 24 hexadecimal digits."),
        ({"conversationId": "A" * 24}, "must be the id of a conversation, 24 hexadecimal digits."),
        ({"fallbackUrl": "ws://127.0.0.1"}, "must be the address of GET /api/events, such as"),
        ({"pongSeconds": 0}, "must be a number of seconds above 0."),
        ({"tokenSeconds": "5"}, "must be a number of seconds above 0."),
        ({"connectSeconds": None, "contactID": "c" * 24}, "contact"),
    ],
    ids=_written,
)
async def test_a_wrong_option_is_refused_at_once_in_the_same_words(
    start: Start, options: dict[str, Any], words: str
) -> None:
    """Nothing is connected to; each client says the same."""
    async with scripted([hello()]) as playing, start(**{"url": playing.url, "token": "ours", **options}) as client:
        thrown = await client.next()

    assert thrown["kind"] == "thrown"
    assert words in thrown["message"]
    assert playing.upgrades == 0


# Over HTTP, where sockets are blocked.

BLOCKED: list[list[Said]] = [[Way.REFUSED]]


async def test_two_failed_upgrades_are_enough_to_read_over_http(start: Start) -> None:
    """With the same token, place, epoch and filters, and the same callbacks."""
    filters = {"events": ["call_ended", "erased"], "contactId": "c" * 24, "conversationId": "d" * 24}
    pages: list[Answer] = [page(2, head=2), page(3, 4, head=6), Way.SILENT]
    async with (
        scripted(*BLOCKED, pages=pages) as playing,
        start(
            url=playing.url,
            fallbackUrl=playing.fallback_url,
            token="ours",
            since=1,
            epoch=EPOCH,
            chance=0.01,
            **filters,
        ) as client,
    ):
        polling = await client.next("polling")
        assert await client.until(4) == [2, 3, 4]
        await playing.until(lambda: len(playing.queries) == 3)
        await at(client, (6, EPOCH))
        assert await client.stop() == 0

    assert polling["detail"] == {"since": 1, "epoch": EPOCH}
    assert playing.upgrades == 2
    first, second, third = playing.queries
    asked = {"token": "Bearer ours", "epoch": EPOCH, "limit": "500", **filters, "events": "call_ended,erased"}
    assert first == {**asked, "since": "1", "wait": "0"}
    assert second == {**asked, "since": "2", "wait": "25"}
    assert third["since"] == "6"


async def test_without_a_place_it_reads_what_happens_from_now_on(start: Start) -> None:
    """The first page says where that is."""
    async with (
        scripted(*BLOCKED, pages=[page(1, head=7), page(8, head=8), Way.SILENT]) as playing,
        start(url=playing.url, fallbackUrl=playing.fallback_url, token="ours", chance=0.01) as client,
    ):
        assert await client.until(8) == [8]
        await playing.until(lambda: len(playing.queries) == 3)

    assert [(query["since"], query.get("epoch")) for query in playing.queries] == [
        ("0", None),
        ("7", EPOCH),
        ("8", EPOCH),
    ]


async def test_a_gap_of_a_page_is_told_before_its_events(start: Start) -> None:
    """It moves the place and the epoch as one of the socket does."""
    missing = {"since": 12, "oldest": 3, "reason": "epoch"}
    async with (
        scripted(*BLOCKED, pages=[page(3, head=3, epoch=NEXT_EPOCH, missing=missing), Way.SILENT]) as playing,
        start(
            url=playing.url, fallbackUrl=playing.fallback_url, token="ours", since=12, epoch=EPOCH, chance=0.01
        ) as client,
    ):
        told = await client.next("gap", "event")
        assert await client.until(3) == [3]
        await playing.until(lambda: len(playing.queries) == 2)
        await at(client, (3, NEXT_EPOCH))

    assert told == {"kind": "gap", "type": "gap", "epoch": NEXT_EPOCH, **missing}


async def test_a_handler_that_fails_ends_reading_before_its_event(start: Start) -> None:
    """As it does over a socket."""
    async with (
        scripted(*BLOCKED, pages=[page(2, 3, 4, head=4)]) as playing,
        start(
            url=playing.url, fallbackUrl=playing.fallback_url, token="ours", since=1, throwsAt=3, chance=0.01
        ) as client,
    ):
        stopped = await client.next("stopped")

    assert client.heard == [2, 3]
    assert stopped["detail"]["since"] == 2


async def test_an_api_that_does_not_wait_is_asked_every_two_seconds_at_most(start: Start) -> None:
    """Nothing is asked in a tight circle."""
    began = asyncio.get_running_loop().time
    async with (
        scripted(*BLOCKED, pages=[page(head=1)]) as playing,
        start(url=playing.url, fallbackUrl=playing.fallback_url, token="ours", since=1, chance=0.01) as client,
    ):
        await client.next("polling")
        await playing.until(lambda: len(playing.queries) >= 2)
        second = began()
        await playing.until(lambda: len(playing.queries) >= 3)
        third = began()

    assert third - second >= 1.9


@pytest.mark.parametrize("answer", [401, 400])
async def test_a_refusal_of_the_api_ends_it(start: Start, answer: int) -> None:
    """A token that is not valid, and a question that is not understood, do not get better."""
    async with (
        scripted(*BLOCKED, pages=[answer]) as playing,
        start(url=playing.url, fallbackUrl=playing.fallback_url, token="ours", since=1, chance=0.01) as client,
    ):
        stopped = await client.next("stopped")

    assert stopped["detail"]["code"] == {401: 4401, 400: "invalid_message"}[answer]
    assert stopped["detail"]["reason"] == f"answered {answer}"


async def test_an_api_without_room_is_asked_again_when_it_says(start: Start) -> None:
    """`Retry-After` is the least, and chance comes on top."""
    async with (
        scripted(*BLOCKED, pages=[(503, 1), page(2, head=2), Way.SILENT]) as playing,
        start(url=playing.url, fallbackUrl=playing.fallback_url, token="ours", since=1, chance=0.01) as client,
    ):
        pauses = [(await client.next("waiting"))["detail"] for _ in range(3)]
        assert await client.until(2) == [2]

    assert pauses[2]["code"] == 503
    assert 1 < pauses[2]["seconds"] < 1.1


async def test_the_socket_is_tried_now_and_then_and_taken_when_it_opens(start: Start) -> None:
    """What came over HTTP is not handed on again, and what comes over the socket follows it."""
    scripts: list[list[Said]] = [*BLOCKED, *BLOCKED, *BLOCKED, [Way.POLLED, hello(3), event(3), event(4)]]
    async with (
        scripted(*scripts, pages=[page(2, 3, head=3), Way.SILENT]) as playing,
        start(
            url=playing.url, fallbackUrl=playing.fallback_url, token="ours", since=1, chance=0.01, hasten=True
        ) as client,
    ):
        assert await client.until(4) == [2, 3, 4]
        assert await client.stop() == 0

    assert playing.upgrades == 4
    assert playing.places == [(3, EPOCH)]


async def test_a_socket_that_says_nothing_once_it_is_open_is_left_for_http_again(start: Start) -> None:
    """One more failure is enough."""
    scripts: list[list[Said]] = [*BLOCKED, *BLOCKED, [Way.POLLED], *BLOCKED]
    async with (
        scripted(*scripts, pages=[page(2, head=2), Way.SILENT, page(head=2)]) as playing,
        start(
            url=playing.url, fallbackUrl=playing.fallback_url, token="ours", since=1, chance=0.01, hasten=True,
            connectSeconds=6 * SLOWNESS,  # within it the client opens the socket and says where to start
        ) as client,
    ):  # fmt: skip
        await client.next("polling")
        await playing.until_connected(1)
        await client.next("waiting")
        await client.next("polling")
