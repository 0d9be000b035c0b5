"""How much of request bodies may be held in memory at once."""

from domain.errors import Overloaded

# Below this a body is not worth counting: thousands of them fit into what one large recording takes.
_SMALL = 1024 * 1024


class BodyRoom:
    """Room for large bodies, shared by every request of this process; one body always fits, whatever its size."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    def share(self) -> "BodyShare":
        """Return a request's share, which is empty at first."""
        return BodyShare(self)

    def take(self, size: int) -> None:
        """Take so many bytes.

        Raises:
            Overloaded: when others hold too much already.
        """
        if self._held and self._held + size > self._limit:
            raise Overloaded("Too many large requests are being received")
        self._held += size

    def give_back(self, size: int) -> None:
        """Free so many bytes."""
        self._held -= size


class BodyShare:
    """What one request holds of the room, until it is answered."""

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self._held = 0

    def grow_to(self, size: int) -> None:
        """Hold `size` bytes in all; small bodies hold nothing.

        Raises:
            Overloaded: when there is no room.
        """
        if size > max(self._held, _SMALL):
            # What we hold ourselves must not stand in our own way.
            self._room.give_back(self._held)
            self._held = 0
            self._room.take(size)
            self._held = size

    def free(self) -> None:
        """Give everything back."""
        self._room.give_back(self._held)
        self._held = 0
