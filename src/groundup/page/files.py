"""The files of the page, as they are served, and all of them in one file."""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# nothing comes from elsewhere, and no text of a model is ever a program
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
STYLE = re.compile(r'<link rel="stylesheet" href="page/([a-z-]+\.css)" ?/?>')
IMPORT = re.compile(r'from "\./([a-z-]+\.js)"')
READABLE = "".join(set(map(chr, range(32, 127))) - set("%#"))  # of a data URL
PROGRAM = '<script type="module" src="page/app.js"></script>'


@cache
def page_files() -> dict[str, str]:
    """Return the text of each file of the page by its name."""
    folder = files("groundup.page") / "assets"
    return {each.name: each.read_text("utf-8") for each in sorted(folder.iterdir(), key=str)}


def media_type(name: str) -> str:
    """Return the media type of a file of the page."""
    return KINDS[name[name.rindex(".") :]]


def one_file(recording: dict[str, Any], title: str) -> str:
    """Return the page as one file that needs no server, with what it is to show.

    Modules aren't loaded from files, so each is in the page: the import map gives the address of
    its own text for its name.

    Args:
        recording: What it shows, in the form that the page's source.js reads.
        title: The title of the page.
    """
    assets = page_files()
    modules = {name: text for name, text in assets.items() if name.endswith(".js")}
    # a module from a data URL has no folder: names in the map are bare
    addresses = {f"groundup/{name}": _data_url(_bare(text)) for name, text in modules.items()}
    known = _script("importmap", json.dumps({"imports": addresses}, ensure_ascii=False))
    numbers = json.dumps(recording, allow_nan=False, separators=(",", ":"))
    shown = _script("application/json", numbers, ' id="recording"')
    begin = _script("module", 'import "groundup/app.js";')
    page = STYLE.sub(lambda link: f"<style>\n{assets[link[1]]}</style>", assets["index.html"])
    page = page.replace(PROGRAM, "\n".join([known, shown, begin]))
    return page.replace("<title>groundup</title>", f"<title>{_escaped(title)}</title>")


def _bare(text: str) -> str:
    """Return a module that imports others by the names of the import map."""
    return IMPORT.sub(r'from "groundup/\1"', text)


def _script(kind: str, text: str, more: str = "") -> str:
    """A script element, which no text within it can end."""
    safe = text.replace("<", "\\u003c")
    return f'<script type="{kind}"{more}>{safe}</script>'


def _data_url(text: str) -> str:
    """Return the address of a module's own text, which stays readable in the file."""
    return "data:text/javascript," + quote(text, safe=READABLE)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
