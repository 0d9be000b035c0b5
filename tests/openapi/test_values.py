from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from openapi import models
from openapi.values import Moment


def test_bodies_do_not_show_their_values() -> None:
    """A body's repr names its fields, so that a secret cannot slip into a log."""
    body = models.CallsSaveVoiceAiConfigRequest(elevenlabsApiKey="sk_secret", sinchEstKeyId="k")

    assert repr(body) == "CallsSaveVoiceAiConfigRequest('elevenlabsApiKey', 'sinchEstKeyId')"
    assert "sk_secret" not in str(body)


def test_refused_values_are_not_quoted() -> None:
    """What pydantic says about a bad value does not repeat it."""
    with pytest.raises(ValidationError) as caught:
        models.CallsSaveVoiceAiConfigRequest.model_validate({"elevenlabsApiKey": ["sk_secret"]})

    assert "sk_secret" not in str(caught.value)


def test_moments_are_in_utc_and_written_in_wire_form() -> None:
    """Whatever the offset a moment came with."""
    adapter: TypeAdapter[datetime] = TypeAdapter(Moment)
    moment = adapter.validate_python("2026-05-15T11:10:00.5+02:00")

    assert moment == datetime(2026, 5, 15, 9, 10, 0, 500_000, tzinfo=UTC)
    assert adapter.dump_python(moment) == "2026-05-15T09:10:00.500Z"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-05-15T09:10:00"])
def test_moments_outside_the_calendar_or_without_offset_are_refused(text: str) -> None:
    """A moment nobody can place is not one."""
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python(text)
