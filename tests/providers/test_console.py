"""The development provider."""

from structlog.testing import capture_logs

from domain.statuses import MessageStatus
from providers.console import Console
from tests.support.text_contract import TEXT


async def test_it_sends_nothing_and_says_so() -> None:
    """One line tells that a text was not sent, and the text counts as sent."""
    with capture_logs() as lines:
        sent = await Console().send(TEXT)

    assert [line["event"] for line in lines] == ["text.not_sent"]
    assert lines[0]["provider_message_id"] == sent.provider_message_id
    assert lines[0]["reference"] == TEXT.reference
    assert sent.status is MessageStatus.SENT


async def test_every_text_gets_an_id_of_its_own() -> None:
    """Two texts are two messages."""
    assert await Console().send(TEXT) != await Console().send(TEXT)


async def test_the_line_hides_number_and_text() -> None:
    """The log learns how long the text was and how its numbers end."""
    with capture_logs() as lines:
        await Console().send(TEXT)

    assert TEXT.text not in str(lines)
    assert TEXT.to_number not in str(lines)
    assert TEXT.from_number not in str(lines)
    assert (lines[0]["to_number"], lines[0]["characters"]) == ("••••••••••23", len(TEXT.text))
