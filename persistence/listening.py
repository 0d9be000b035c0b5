"""A connection to PostgreSQL that listens for NOTIFY and asks questions, in the loop that writes to listeners.

It uses libpq's own calls for that (PostgreSQL's manual, "Asynchronous Command Processing"), through psycopg's `pq`: a
cursor costs several times as much, and all of it is paid between two writes to a crowd.
"""

import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from itertools import count
from typing import Any, TypeVar

import peewee
import psycopg
from psycopg import pq
from psycopg.adapt import PyFormat, Transformer

from persistence.arrivals import Arrivals, Steps
from persistence.statements import Questions

R = TypeVar("R")

CHANNEL = "relay_events"

_POLL_SECONDS = 0.05
_SILENCE_SECONDS = 15
_GOOD = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_SNAPSHOT = "SELECT pg_current_snapshot()::text"


class Follower:
    """Waits for commits, and reads them, on a connection of its own.

    It needs no thread: one that reads while the loop writes to a thousand sockets is kept waiting for the interpreter
    for milliseconds, again and again.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], engine: peewee.Database) -> None:
        self._server = connection.pgconn
        self._types = Transformer(connection)
        self._engine = engine
        self._seen = ""
        self._named: set[str] = set()
        self._prepared: dict[str, bytes] = {}
        self._arrivals = Arrivals(self._server.socket, self._take)

    def wait(self, timeout: float) -> Steps[Collection[str] | None]:
        """Return the organizations named in notifications, None when they or a look at the server name none."""
        deadline = time.monotonic() + timeout
        while (remaining := deadline - time.monotonic()) > 0:
            # What was committed since the last wait has been named already.
            if not self._named:
                yield min(remaining, _POLL_SECONDS)
            if self._named:
                named, self._named = self._named, set()
                return None if "" in named else named
            if (yield from self._changed()):
                return None
        return ()

    def read(self, questions: Questions[R]) -> Steps[R]:
        """Answer questions; not to be used again when that was interrupted.

        Raises:
            TimeoutError: when the server does not answer at all.
        """
        try:
            question = next(questions)
            while True:
                rows = yield from self._ask(*question.statement.rendered(self._engine, question.values))
                question = questions.send(rows)
        except StopIteration as end:
            result: R = end.value
            return result

    async def run(self, steps: Steps[R], then: Callable[[], bool] = bool) -> R:
        """Take steps, in this loop."""
        return await self._arrivals.run(steps, then)

    def look(self) -> None:
        """Take in notifications and answers, and take the next step."""
        self._arrivals.look()

    async def listen(self) -> None:
        """Have the server notify us from here on."""
        await self.run(self._ask(f"LISTEN {CHANNEL}"))

    def leave(self) -> None:
        """Let go of the connection."""
        self._arrivals.close()

    def _changed(self) -> Steps[bool]:
        ((snapshot,),) = yield from self._ask(_SNAPSHOT)
        before, self._seen = self._seen, snapshot
        return before not in ("", snapshot)

    def _ask(self, sql: str, values: Sequence[Any] = ()) -> Steps[list[tuple[Any, ...]]]:
        name = self._prepared.get(sql) or (yield from self._prepare(sql))
        texts = self._types.dump_sequence(values, [PyFormat.TEXT] * len(values))
        self._server.send_query_prepared(name, texts)
        answer = yield from self._answer()
        self._types.set_pgresult(answer)
        return self._types.load_rows(0, answer.ntuples, tuple)

    def _prepare(self, sql: str) -> Steps[bytes]:
        name, places = b"asked_%d" % len(self._prepared), count(1)
        # libpq counts the places of values, peewee does not. What they hold is for the server to find out.
        self._server.send_prepare(name, re.sub("%s", lambda _: f"${next(places)}", sql).encode())
        yield from self._answer()
        self._prepared[sql] = name
        return name

    def _answer(self) -> Steps[pq.abc.PGresult]:
        while self._server.flush():
            yield 0
        answer = yield from self._next_answer()
        while following := (yield from self._next_answer()):
            answer = following
        if answer is None or answer.status not in _GOOD:
            raise psycopg.OperationalError(answer.get_error_message() if answer else "PostgreSQL had nothing to say")
        return answer

    def _next_answer(self) -> Steps[pq.abc.PGresult | None]:
        while self._server.is_busy():
            if not (yield _SILENCE_SECONDS):
                raise TimeoutError("PostgreSQL does not answer")
        return self._server.get_result()

    def _take(self) -> None:
        self._server.consume_input()
        while notice := self._server.notifies():
            self._named.add(notice.extra.decode())


@contextlib.asynccontextmanager
async def listening(url: str, engine: peewee.Database, **options: Any) -> AsyncIterator[Follower]:
    """Connect with libpq's `options`, and listen; statements are written as for `engine`."""
    async with contextlib.AsyncExitStack() as stack:
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True, **options)
        stack.push_async_callback(connection.close)
        follower = Follower(connection, engine)
        stack.callback(follower.leave)
        await follower.listen()
        yield follower
