"""Static files: those of the pages, and Plotly's script out of its package, compressed once."""

import gzip
import hashlib
import mimetypes
import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

STATIC = Path(__file__).resolve().parent / "static"
PLOTLY = "plotly.min.js"
KEPT = "public, max-age=31536000, immutable"
SMALLEST_COMPRESSED = 1024
# Plotly fills one style sheet rule by rule, which starts empty, and adds one for its maps, used or not.
ADDED_STYLE = re.compile(rb"\.textContent='((?:[^'\\\\]|\\\\.)*)',document\.head\.appendChild")


@dataclass(frozen=True)
class StaticFile:
    """A file in memory."""

    name: str
    body: bytes
    kind: str
    digest: str


class StaticFiles:
    """Serves the files of the folder ``static``, and Plotly's."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        name = str(scope["path"]).removeprefix(str(scope.get("root_path", ""))).lstrip("/")
        if name not in files():
            raise HTTPException(404, f"there is no static file '{name}'")
        await answer(read(name), Headers(scope=scope), QueryParams(scope["query_string"]))(scope, receive, send)


def answer(file: StaticFile, headers: Headers, query: QueryParams) -> Response:
    """Return a file, or that the browser's copy is the same; one that is asked for by its digest may be kept."""
    tag = f'"{file.digest}"'
    cached = KEPT if query.get("v") == file.digest else "no-cache"
    shared = {"ETag": tag, "Cache-Control": cached, "Vary": "Accept-Encoding"}
    if headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=shared)
    if "gzip" in headers.get("accept-encoding", "") and len(file.body) >= SMALLEST_COMPRESSED:
        return Response(compressed(file.name), headers={**shared, "Content-Encoding": "gzip"}, media_type=file.kind)
    return Response(file.body, headers=shared, media_type=file.kind)


@cache
def files() -> dict[str, Path]:
    """Return the static files by name: what is not listed here is not served, whatever path is asked for."""
    own = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}
    return {**own, PLOTLY: plotly_script()}


def plotly_script() -> Path:
    """Return Plotly's script in its package, which is not imported for it."""
    found = find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("plotly is not installed: pip install plotly")
    return Path(found.submodule_search_locations[0]) / "package_data" / PLOTLY


@cache
def plotly_styles() -> tuple[str, ...]:
    """Return the digests, as a content security policy names them, of the style sheets that Plotly adds to a page."""
    added = [found[1] for found in ADDED_STYLE.finditer(plotly_script().read_bytes())]
    return tuple(f"'sha256-{b64encode(hashlib.sha256(style).digest()).decode()}'" for style in [b"", *added])


@cache
def read(name: str) -> StaticFile:
    """Read a file once."""
    body = files()[name].read_bytes()
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StaticFile(name, body, kind, hashlib.sha256(body).hexdigest()[:16])


@cache
def compressed(name: str) -> bytes:
    """Compress a file once."""
    return gzip.compress(read(name).body, 6, mtime=0)


def static_address(name: str) -> str:
    """Return the address of a static file, with its digest, so that browsers may keep it."""
    return f"/static/{name}?v={read(name).digest}"
