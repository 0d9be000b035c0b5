"""What every vendor's credentials have in common: frozen, checked, silent in `repr`, and storable."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr


def _is_sendable(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not 0 < len(text) <= 512 or not all("!" <= letter <= "~" for letter in text):
        raise ValueError("must be 1 to 512 visible ASCII characters without spaces")
    return secret


Secret = Annotated[SecretStr, AfterValidator(_is_sendable)]


class Credentials(BaseModel):
    """One organization's account with a vendor.

    A `ValidationError` hides its input in its text; its `errors()` still carry it, so show only `loc` and `msg`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def to_secret_dict(self) -> dict[str, str]:
        """Return every field in the clear, for encrypted storage; `model_validate` reads it back."""
        fields = {name: value for name, value in self if value is not None}
        return {name: v.get_secret_value() if isinstance(v, SecretStr) else str(v) for name, v in fields.items()}

    def private(self) -> tuple[str, ...]:
        """Return the values that no error may quote: secrets and account identifiers."""
        return tuple(
            value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in self
            if isinstance(value, SecretStr) or (value is not None and name.endswith("id"))
        )
