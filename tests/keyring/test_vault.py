from cryptography.fernet import Fernet
from pydantic import SecretStr

from keyring.vault import Vault


def test_what_was_signed_before_a_rotation_is_recognised_after_it() -> None:
    """Texts are on their way while the keys are rotated, and their reports come home."""
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    before, during, after = (Vault(SecretStr(ring)) for ring in (old, f"{new},{old}", new))
    token = before.sign("status", "message 1")

    assert during.is_signed("status", "message 1", token)
    assert after.is_signed("status", "message 1", during.sign("status", "message 1"))
    assert not after.is_signed("status", "message 1", token)


def test_a_token_is_good_for_its_purpose_and_its_text_alone() -> None:
    """One that was handed out for one thing opens no other."""
    vault = Vault(SecretStr(Fernet.generate_key().decode()))
    token = vault.sign("status", "message 1")

    assert vault.is_signed("status", "message 1", token)
    assert not vault.is_signed("link", "message 1", token)
    assert not vault.is_signed("status", "message 2", token)
