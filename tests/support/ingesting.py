"""An API that is asked to ingest a call with each of several recordings, as a process that can run on another network.

Reads `{"folder": …, "settings": {…}, "urls": […]}` from standard input and writes
`{url: [status, error]}` in its last line.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.support.api import running_api

CALL = {
    "direction": "inbound",
    "fromNumber": "+14165550142",
    "toNumber": "+12362320246",
    "duration": 1,
    "status": "completed",
    "transcript": [],
    "summary": "Crown.",
}


async def ingest(folder: Path, settings: dict[str, Any], urls: list[str]) -> dict[str, tuple[int, str | None]]:
    async with running_api(folder, **settings) as api:
        answers = {url: await api.ingest(CALL | {"recording": url}) for url in urls}
    return {url: (answer.status_code, answer.json().get("error")) for url, answer in answers.items()}


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    outcome = asyncio.run(ingest(Path(wanted["folder"]), wanted["settings"], wanted["urls"]))
    json.dump(outcome, sys.stdout)
