"""Swagger UI at /docs: the page, and the files it consists of, from this server alone."""

from pathlib import Path

import swagger_ui_bundle
from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from handlers.own_paths import Endpoint, fixed

# Source maps are half of what the page weighs, and for nobody here; the others are templates, or made of one.
_LEFT_OUT = frozenset({".map", ".j2", ".html"})


def swagger_pages() -> dict[str, Endpoint]:
    """Return the page and its files, by path; it shows `/openapi.json`, also behind a proxy that adds a prefix."""
    folder = Path(swagger_ui_bundle.swagger_ui_path)
    template = Environment(autoescape=True).from_string((folder / "index.j2").read_text("utf-8"))
    page = fixed("text/html; charset=utf-8", template.render(openapi_spec_url="../openapi.json").encode())
    files = {f"/docs/{path.name}": _file(path) for path in sorted(folder.iterdir()) if path.suffix not in _LEFT_OUT}
    return {"/docs": _to_folder, "/docs/": page, "/docs/index.html": page, **files}


async def _to_folder(_: Request) -> Response:
    return RedirectResponse("./docs/")


def _file(path: Path) -> Endpoint:
    async def page(_: Request) -> Response:
        return FileResponse(path)

    return page
