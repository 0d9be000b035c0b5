from persistence.postgresql import ServerDatabase
from persistence.sqlite import EmbeddedDatabase
from tests.support.api import Api


async def test_the_api_runs_on_the_engine_that_was_asked_for(api: Api, engine: str) -> None:
    """Whatever is tested here is tested on both."""
    expected = {"sqlite": EmbeddedDatabase, "postgresql": ServerDatabase}[engine]

    assert isinstance(api.relay.database, expected)
    assert (await api.http.get("/readyz")).json()["status"] == "ready"
