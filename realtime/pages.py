"""What the broadcaster shows to browsers: the published events as data and as a page, and the live feed.

Each page is one self-contained file: no build step, nothing loaded from elsewhere, and a content security policy that
admits exactly the script and style it carries.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

from domain import documents
from domain.origins import socket_origins

StaticPage = tuple[str, bytes]

_HERE = Path(__file__).parent
_EVENTS = _HERE.parent / "openapi" / "events.yaml"
_CLIENT = _HERE.parent / "clients" / "javascript" / "index.js"
_HTML = "text/html; charset=utf-8"
_SCRIPT = re.compile(r'<script type="module">(.*?)</script>', re.DOTALL)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
# HTML in a description is shown, not obeyed.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_CSS = """
:root { color-scheme: light dark; } body { font: 16px/1.55 system-ui, sans-serif; max-width: 54rem; margin: 0 auto;
padding: 1rem; } code, pre { font: .9em/1.45 ui-monospace, monospace; } pre { overflow-x: auto; padding: .8rem;
border: 1px solid #8886; border-radius: .4rem; } table { border-collapse: collapse; } td, th { text-align: left;
padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
"""


def load(realtime_url: str = "", *, for_people: bool = True) -> dict[str, StaticPage]:
    """Return every page, by path, as content type and body; without those for people, the data that programs read.

    `realtime_url` is where the broadcaster is, when somebody else serves the pages.
    """
    # The reader written in C is ten times as quick, and there wherever PyYAML comes as a wheel.
    document = yaml.load(_EVENTS.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    client = _CLIENT.read_text()
    data = {"/events.json": ("application/json", documents.dump(document))}
    if not for_people:
        return data
    return data | {
        "/events": (_HTML, _events(document).encode()),
        "/live": (_HTML, _live(client, realtime_url).encode()),
        "/client.js": ("text/javascript; charset=utf-8", client.encode()),
    }


def _live(client: str, realtime_url: str) -> str:
    page = (_HERE / "live.html").read_text().replace("{{realtime}}", html.escape(realtime_url))
    page = page.replace("{{connect}}", "".join(f" {origin}" for origin in socket_origins(realtime_url)))
    page = page.replace("{{client}}", _EXPORT.sub("", client))
    for name, pattern in (("script", _SCRIPT), ("style", _STYLE)):
        (content,) = pattern.findall(page)
        page = page.replace(f"{{{{{name}-hash}}}}", _hash(content))
    return page


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


# The document as a page.


def _events(document: dict[str, Any]) -> str:
    info = document["info"]
    parts = [f"<h1>{html.escape(info['title'])}</h1>", _MARKDOWN.render(info["description"])]
    for key, heading in (("follow", "What the server sends"), ("ask", "What you may send")):
        parts.append(f"<h2>{heading}</h2>")
        for reference in document["operations"][key]["messages"]:
            parts += _message(document["components"]["messages"][reference["$ref"].rsplit("/", 1)[-1]])
    parts.append('<p>The whole document, with every schema: <a href="events.json">events.json</a> (AsyncAPI 3).</p>')
    policy = f"default-src 'none'; style-src '{_hash(_CSS)}'; base-uri 'none'"
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{html.escape(info["title"])}</title>'
        f"<style>{_CSS}</style></head><body><main>"
    )
    return head + "\n".join(parts) + "</main></body></html>"


def _message(message: dict[str, Any]) -> Iterator[str]:
    name = html.escape(message["name"])
    yield f'<h3 id="{name}"><code>{name}</code> – {html.escape(message["title"])}</h3>'
    if "summary" in message:
        yield f"<p>{_MARKDOWN.renderInline(message['summary'])}</p>"
    for example in message["examples"]:
        yield f"<pre>{html.escape(documents.dump(example['payload']).decode())}</pre>"
