"""Following a database in tests."""

from persistence.database import Follower


async def until_quiet(follower: Follower) -> None:
    """Return when a tenth of a second has passed in which nothing was committed."""
    while await follower.wait(0.1) != ():
        pass
