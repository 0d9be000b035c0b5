"""Pages of what a query finds, newest first, without reading what lies before them."""

from collections.abc import Collection
from typing import Any

from peewee import Expression

from domain.positions import Position


def following(query: Any, at: Any, id_: Any, after: Position | None, limit: int) -> list[Any]:
    """Return at most `limit` rows of `query` after the position, ordered by the columns `at` and `id_`.

    An index that ends in these two columns goes straight to the page.
    """
    if after is not None:
        # The first half is what an index can seek; the second sorts out who shares the moment.
        query = query.where(at <= after.at, (at < after.at) | (id_ < after.id))
    return list(query.order_by(at.desc(), id_.desc()).limit(limit))


def among(model: Any, organization_id: str, column: Any, values: Collection[str]) -> Expression:
    """Return the condition that `column` has one of `values`, and that the row is the organization's.

    What is given is sought by its ids. SQLite, told to compare the organization as well, would rather go through
    everything the organization has, so that comparison is written as one that no index can serve.
    """
    return column.in_(list(values)) & (model.organization.concat("") == organization_id)


def numbered(model: Any, matching: Any, at: Any, *, total: int, offset: int, limit: int) -> list[str]:
    """Return the ids of the rows `offset` to `offset + limit` of the `total` that match, newest first.

    Counting off happens inside an index over `at` and `id`, from whichever end is nearer; no row is read for it.
    """
    wanted = min(limit, total - offset)
    if wanted <= 0:
        return []
    query: Any = model.select(model.id).where(matching)
    if offset <= total - offset - wanted:
        query = query.order_by(at.desc(), model.id.desc()).offset(offset)
        return [row[0] for row in query.limit(wanted).tuples()]
    query = query.order_by(at, model.id).offset(total - offset - wanted)
    return [row[0] for row in query.limit(wanted).tuples()][::-1]
