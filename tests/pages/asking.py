"""Asks a running server over HTTP, without a browser."""

import http.client
from urllib.parse import urlsplit

from tests.pages.conftest import Served

Answer = tuple[int, dict[str, str], str]


def ask(server: Served, path: str, method: str = "GET", cookie: str = "", body: str = "", **headers: str) -> Answer:
    """Return status, headers by lower-case name, and body; a header's ``_`` stands for ``-``."""
    connection = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if cookie:
        given["Cookie"] = cookie
    connection.request(method, path, body.encode() or None, given)
    found = connection.getresponse()
    text = found.read().decode(errors="replace")
    connection.close()
    return found.status, {name.lower(): value for name, value in found.getheaders()}, text


def cookie_of(server: Served) -> str:
    """Return the cookie that the printed address gives."""
    status, headers, _ = ask(server, f"/?entry={server.entry}")
    assert status == 303
    return headers["set-cookie"].partition(";")[0]
