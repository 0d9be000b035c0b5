"""Listening to a call: the link, and the audio behind it."""

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from domain.times import from_wire, now
from persistence.models import AuditEntry, Recording
from tests.handlers.test_history import ingested
from tests.support.api import Api, running_api
from tests.support.audio import mp3
from tests.support.object_storage import bucket, plain_client, s3_server
from tests.support.reading import OURS, THEIRS, get

pytestmark = pytest.mark.any_engine

SIZE = len(mp3())


async def link_to(api: Api) -> str:
    """Ingest a call and return the link to its recording, without the host."""
    made = await ingested(api)
    body = (await get(api, f"/api/calls/{made['callId']}/recording")).json()
    parts = urlsplit(body["audioUrl"])
    assert f"{parts.scheme}://{parts.netloc}" == "https://relay.example"
    return f"{parts.path}?{parts.query}"


async def test_a_recording_is_a_link_with_the_transcript(api: Api) -> None:
    """What was said stands there as data and as text; the link is good for ten minutes."""
    made = await ingested(api)
    response = await get(api, f"/api/calls/{made['callId']}/recording")
    body = response.json()
    left = (from_wire(body["expiresAt"]) - from_wire(now())).total_seconds()

    assert response.headers["cache-control"] == "no-store"
    assert (body["callId"], body["direction"], body["from"], body["to"]) == (made["callId"], "inbound", THEIRS, OURS)
    assert body["transcriptionText"] == "Agent: Hi.\nUser: Hello."
    assert [turn["role"] for turn in body["transcriptionData"]] == ["agent", "user"]
    assert 590 < left <= 600


async def test_who_listened_is_written_down(api: Api) -> None:
    """Handing out a link leaves an entry in the audit log."""
    made = await ingested(api)
    body = (await get(api, f"/api/calls/{made['callId']}/recording")).json()
    (entry,) = await api.read(lambda: list(AuditEntry.select().where(AuditEntry.action == "recording.listened")))

    assert (entry.organization_id, entry.subject) == (api.organization_id, body["recordingId"])
    assert entry.user_id


async def test_the_link_plays_without_a_token(api: Api) -> None:
    """The whole audio, with its type, its length and what tells it from another."""
    response = await api.http.get(await link_to(api))

    assert (response.status_code, response.content) == (200, mp3())
    assert response.headers["content-type"] == "audio/mpeg"
    assert response.headers["content-length"] == str(SIZE)
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["cache-control"] == "private, no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert len(response.headers["etag"]) == 66


RANGES: list[tuple[str, int, int]] = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-1023", 0, 1024),
    ("bytes=100-", 100, SIZE),
    ("bytes=-100", SIZE - 100, SIZE),
    (f"bytes=-{SIZE * 2}", 0, SIZE),
    (f"bytes={SIZE - 1}-{SIZE * 9}", SIZE - 1, SIZE),
    ("Bytes= 5 - 9", 5, 10),
]


async def test_a_range_is_answered_with_that_part(api: Api, subtests: pytest.Subtests) -> None:
    """206, the bytes, and where they stand in the whole."""
    link = await link_to(api)
    for asked, start, end in RANGES:
        with subtests.test(asked=repr(asked)[:60]):
            response = await api.http.get(link, headers={"Range": asked})

            assert (response.status_code, response.content) == (206, mp3()[start:end])
            assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
            assert response.headers["content-length"] == str(end - start)


IGNORED_RANGES: list[str] = ["bytes=0-1,5-9", "items=0-1", "bytes=9-3", "bytes=-", "nonsense", "bytes=a-b"]


async def test_a_range_that_may_be_ignored_is(api: Api, subtests: pytest.Subtests) -> None:
    """Several ranges, other units and nonsense get the whole."""
    link = await link_to(api)
    for asked in IGNORED_RANGES:
        with subtests.test(asked=repr(asked)[:60]):
            response = await api.http.get(link, headers={"Range": asked})

            assert (response.status_code, response.content) == (200, mp3())


RANGES_OUTSIDE: list[str] = [f"bytes={SIZE}-", f"bytes={SIZE * 2}-{SIZE * 3}", "bytes=-0"]


async def test_a_range_outside_the_audio_is_416(api: Api, subtests: pytest.Subtests) -> None:
    """The answer says how long the audio is."""
    link = await link_to(api)
    for asked in RANGES_OUTSIDE:
        with subtests.test(asked=repr(asked)[:60]):
            response = await api.http.get(link, headers={"Range": asked})

            assert response.status_code == 416
            assert response.headers["content-range"] == f"bytes */{SIZE}"
            assert response.json()["success"] is False


async def test_a_range_of_other_content_gets_the_whole(api: Api) -> None:
    """`If-Range` with our tag keeps the range, with any other drops it."""
    link = await link_to(api)
    tag = (await api.http.head(link)).headers["etag"]
    same = await api.http.get(link, headers={"Range": "bytes=0-9", "If-Range": tag})
    other = await api.http.get(link, headers={"Range": "bytes=0-9", "If-Range": '"other"'})

    assert (same.status_code, other.status_code) == (206, 200)


async def test_head_says_what_get_would_send(api: Api) -> None:
    """The headers alone."""
    link = await link_to(api)
    whole, head = await api.http.get(link), await api.http.head(link)

    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "etag", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]


async def test_a_link_that_was_changed_in_any_part_is_refused(api: Api) -> None:
    """Another recording, another expiry, another signature: 401, and an unknown recording tells no more."""
    link = await link_to(api)
    path, _, query = link.partition("?")
    expires, signature = [part.partition("=")[2] for part in query.split("&")]
    other = f"/api/recordings/{'0' * 24}/audio?{query}"
    changed = [
        f"{path}?expires={int(expires) + 1}&signature={signature}",
        f"{path}?expires={expires}&signature={'0' * 64}",
        f"{path}?expires=0{expires}&signature={signature}",
        f"{path}?expires={expires}",
        path,
        other,
    ]
    statuses = [(await api.http.get(one)).status_code for one in changed]

    assert statuses == [401] * len(changed)


async def test_an_expired_link_is_refused(api: Api) -> None:
    """A link we signed ourselves is good until its moment and no longer."""
    link = await link_to(api)
    path = link.partition("?")[0]
    store = api.relay.store
    expires = "1"
    signature = store._signature(path[1:], expires)  # type: ignore[attr-defined]
    response = await api.http.get(f"{path}?expires={expires}&signature={signature}")

    assert response.status_code == 401
    assert "expired" in response.json()["error"]


async def test_a_recording_that_is_gone_is_404(api: Api) -> None:
    """Whether its file or its row went."""
    link = await link_to(api)
    for path in api.objects():
        path.unlink()
    without_file = await api.http.get(link)
    await api.relay.database.write(lambda: Recording.delete().execute())
    without_row = await api.http.get(link)

    assert (without_file.status_code, without_row.status_code) == (404, 404)


async def test_a_call_without_a_recording_has_none_to_read(api: Api) -> None:
    """404, although the call is there."""
    made = await ingested(api, recording=None, status="busy", transcript=None, summary=None)
    response = await get(api, f"/api/calls/{made['callId']}/recording")

    assert response.status_code == 404


async def test_a_recording_in_a_bucket_is_a_link_of_the_buckets_own(tmp_path: Path) -> None:
    """Signed for ten minutes; our own address serves nothing then, whatever it is shown."""
    with s3_server() as url, bucket(plain_client(url)) as name:
        settings = {
            "r2_endpoint_url": url,
            "r2_bucket": name,
            "r2_access_key_id": "key",
            "r2_secret_access_key": "secret",
        }
        async with running_api(tmp_path / "var", **settings) as api, httpx.AsyncClient(trust_env=False) as outside:
            made = await ingested(api)
            body = (await get(api, f"/api/calls/{made['callId']}/recording")).json()
            played = await outside.get(body["audioUrl"], headers={"Range": "bytes=0-9"})
            path = f"/api/recordings/{body['recordingId']}/audio"
            ours = await api.http.get(path, params={"expires": "9999999999", "signature": "0" * 64})

            assert "X-Amz-Expires=600" in body["audioUrl"]
            assert (played.status_code, played.content) == (206, mp3()[:10])
            assert ours.status_code == 401
