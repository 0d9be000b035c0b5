"""Serve one application in a process of its own: `python -m bench.serve bench.peers.floor:build 8001 [ours]`.

Every server gets the same: uvicorn, one worker, uvloop, httptools, no access log. Ours reads HTTP as it always does.
"""

import importlib
import sys
import warnings

warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")

import uvicorn  # noqa: E402


def main() -> None:
    module, _, factory = sys.argv[1].partition(":")
    app = getattr(importlib.import_module(module), factory)()
    http: object = "httptools"
    if sys.argv[3:] == ["ours"]:
        from config import Settings
        from handlers.protocol import limited

        defaults = Settings.model_fields
        http = limited(*(defaults[f"{what}_seconds"].default for what in ("request_head", "request_body", "answer")))
    # Ours looks at a proxy's headers when a proxy is configured, uvicorn whenever the peer has a local address.
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http=http,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=sys.argv[3:] != ["ours"],
    )


if __name__ == "__main__":
    main()
