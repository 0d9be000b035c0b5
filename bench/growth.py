"""Growth: the same operations on the same server while the tables grow, and the pages that read them at the end.

Rows are planted with SQL, evenly over a year and a thousand contacts, so that every index is as deep as it would be.
The indexes are made after the rows: sorted once, a million calls and five million events take a minute or so.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

from bench import load, questions, servers
from bench.load import Figures
from bench.rounds import Bench, Row
from bench.servers import Installation, Server

_BASE, _SIZES = 1_000, (1_000, 10_000, 1_000_000)
_SMALL = (100, 200)
_EVENTS_PER_CALL = 5
_CONTACTS = 1_000
_ASKED = 300
_PAGES_ASKED = 100

_PLANT = """
PRAGMA foreign_keys = 0; PRAGMA synchronous = off; PRAGMA cache_size = -512000;
BEGIN;
INSERT INTO contact (id, organization_id, phone_number, name, name_is_placeholder, created_at, updated_at, search)
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {contacts} - 1)
    SELECT printf('aaaaaaaaaaaaaaaa%08x', i), '{org}', printf('+1437%07d', i), printf('Contact %d', i), 0,
        '2025-01-01T00:00:00.000Z', '2025-01-01T00:00:00.000Z', printf('contact %d', i) FROM n;
INSERT INTO conversation (id, organization_id, contact_id, channel_type, channel_identifier, last_message_at,
        created_at)
    SELECT replace(id, 'aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb'), '{org}', id, 'voice', '{ours}', created_at, created_at
    FROM contact WHERE id LIKE 'aaaaaaaaaaaaaaaa%';
INSERT INTO call (id, organization_id, contact_id, conversation_id, external_call_id, source, direction, from_number,
        to_number, status, duration, started_at, ended_at, summary, provider_metadata, payload_digests, created_at)
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {calls} - 1)
    SELECT printf('cccccccccccccccc%08x', i), '{org}', printf('aaaaaaaaaaaaaaaa%08x', i % {contacts}),
        printf('bbbbbbbbbbbbbbbb%08x', i % {contacts}), printf('planted-%d', i), 'ingest', 'inbound', '+14370000000',
        '{ours}', 'no-answer', 61.5, at, at, 'Planted', '{{}}', '{{}}', at
    FROM (SELECT i, strftime('%Y-%m-%dT%H:%M:%S.000Z', 1735689600 + i * 31536000 / {calls}, 'unixepoch') AS at FROM n);
INSERT INTO event (organization_id, sequence, name, at, contact_id, conversation_id, data)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {events})
    SELECT '{org}', {head} + i, 'call_ended', '2025-06-01T00:00:00.000Z',
        printf('aaaaaaaaaaaaaaaa%08x', i % {contacts}), NULL, '{{"callId":"cccccccccccccccc00000000"}}' FROM n;
UPDATE organization SET event_sequence = {head} + {events}, call_count = call_count + {calls} WHERE id = '{org}';
COMMIT;
PRAGMA wal_checkpoint(TRUNCATE);
"""


def measure(bench: Bench) -> list[Row]:
    """Return the median of each operation at each size beside the smallest, and the pages beside a bare request."""
    sizes = _SMALL if bench.is_smoke else _SIZES
    with contextlib.ExitStack() as stack:
        running = [_grown(bench, stack, size) for size in sizes]
        rows = [row for what, ask in _operations() for row in _operation(bench, running, sizes, what, ask)]
        return rows + _pages(bench, running[-1], sizes[-1])


def _grown(bench: Bench, stack: contextlib.ExitStack, calls: int) -> Server:
    installation = bench.installation(f"ours-{calls}")
    _plant(installation, calls)
    return stack.enter_context(servers.ours(installation, f"ours-{calls}"))


def _plant(installation: Installation, calls: int) -> None:
    connection = sqlite3.connect(installation.database)
    org, head = connection.execute("SELECT id, event_sequence FROM organization").fetchone()
    events = calls * _EVENTS_PER_CALL
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN ('call', 'event')"
    ).fetchall()
    connection.executescript("".join(f'DROP INDEX "{name}";' for name, _ in indexes))
    connection.executescript(
        _PLANT.format(org=org, ours=questions.OURS, contacts=_CONTACTS, calls=calls, events=events, head=head)
    )
    connection.executescript("".join(f"{sql};" for _, sql in indexes) + "PRAGMA wal_checkpoint(TRUNCATE);")
    connection.close()


def _operations() -> list[tuple[str, Callable[[Server], load.Ask]]]:
    return [
        (
            "create-note",
            lambda server: questions.fresh(
                questions.CREATE_NOTE, server.installation.tool_secret, lambda: questions.note()
            ),
        ),
        ("ingest", lambda server: questions.fresh(questions.INGEST, server.installation.api_key, questions.call)),
    ]


def _operation(
    bench: Bench, running: list[Server], sizes: tuple[int, ...], what: str, ask: Callable[[Server], load.Ask]
) -> list[Row]:
    asks = {server.name: ask(server) for server in running}

    def one_after_the_other(server: Server) -> Any:
        return load.saturate(server.port, asks[server.name], connections=1, seconds=bench.seconds, count=_ASKED)

    figures = bench.rounds_of(running, one_after_the_other)
    medians = {name: [_median(one) for one in rounds] for name, rounds in figures.items()}
    small = medians[running[0].name]
    return [
        Row(f"{what} at {size:,} calls: p50", medians[server.name], "ms", f"at {sizes[0]:,} calls", small, "≤ 1.2")
        for server, size in zip(running[1:], sizes[1:], strict=True)
    ]


def _pages(bench: Bench, server: Server, calls: int) -> list[Row]:
    token = server.installation.superadmin_token
    contact, conversation = f"{'a' * 16}{7:08x}", f"{'b' * 16}{7:08x}"
    paths = {
        "the first page of calls": "/api/calls/history?limit=50",
        "a page of calls in the middle": f"/api/calls/history?limit=50&offset={calls // 2}",
        "a contact's timeline": f"/api/contacts/{contact}/timeline",
        "a conversation's messages": f"/api/conversation/{conversation}/messages",
    }
    bare = _p99s(bench, server, "/api/auth/verify-token", token)
    rows = []
    for what, path in paths.items():
        above = [one - other for one, other in zip(_p99s(bench, server, path, token), bare, strict=True)]
        rows.append(Row(f"{what} at {calls:,} calls: p99 above a bare request", above, "ms", goal="≤ 10 ms"))
    return rows


def _p99s(bench: Bench, server: Server, path: str, token: str) -> list[float]:
    request = questions.request(path, token, None, "GET")
    count = 20 if bench.is_smoke else _PAGES_ASKED

    def ask(running: Server) -> Any:
        return load.saturate(running.port, lambda: request, connections=1, seconds=30, count=count)

    return [one.quantile(0.99) * 1000 for one in bench.rounds_of([server], ask)[server.name]]


def _median(one: Figures) -> float:
    return one.quantile(0.5) * 1000
