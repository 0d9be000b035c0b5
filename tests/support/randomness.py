"""One seed for everything random in a run of the tests; it is printed first, and `TEST_SEED` repeats it.

Passwords, keys and tokens come from `secrets.token_bytes`, in the tests as in the code under test. `draw_from_seed`
replaces it, within the process of the tests, with a generator that starts anew for every test.
"""

import base64
import os
import random
import secrets

_VARIABLE = "TEST_SEED"
_SECRETS = random.Random()


def seed() -> int:
    """Return the seed of this run, drawn once; the workers of a run inherit it."""
    return int(os.environ.setdefault(_VARIABLE, str(random.SystemRandom().randrange(1 << 32))))


def chance(name: str) -> random.Random:
    """Return a generator of its own for whatever `name` says, the same in every run with this seed."""
    return random.Random(f"{seed()} {name}")


def draw_from_seed(name: str) -> None:
    """Draw secrets from the seed and `name`, a test's, from now on."""
    _SECRETS.seed(f"{seed()} {name}")
    secrets.token_bytes = _token_bytes


def encryption_key() -> str:
    """Return a fresh key of the kind `ENCRYPTION_KEYS` holds."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _token_bytes(nbytes: int | None = None) -> bytes:
    return _SECRETS.randbytes(secrets.DEFAULT_ENTROPY if nbytes is None else nbytes)
