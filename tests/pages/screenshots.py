"""Draws the pictures of the documentation: ``python -m tests.pages.screenshots [STORE NAME]``."""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.pages import stores
from tests.pages.conftest import BROWSER, opened, serving
from tests.pages.test_every_page import settle

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
# file, path, theme, and the size of the window
PICTURES = (
    ("pages-search.png", "/searches/{name}", "light", (1280, 1100)),
    ("pages-searches.png", "/", "dark", (1280, 560)),
)
COLOURS = 128


def draw(store: Path, name: str) -> None:
    """Draw all pictures of a store."""
    with serving(store, "--read-only") as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for file, path, theme, (width, height) in PICTURES:
            size = {"width": width, "height": height}
            with opened(browser, base_url=served.address, color_scheme=theme, viewport=size) as page:
                page.goto(served.url(path.format(name=name)))
                settle(page)
                page.wait_for_timeout(500)
                page.screenshot(path=FOLDER / file)
            with Image.open(FOLDER / file) as image:
                image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(FOLDER / file, optimize=True)
        browser.close()


def main() -> None:
    """Draw the pictures of a given store, or of one that is made for it."""
    if len(sys.argv) > 2:
        draw(Path(sys.argv[1]), sys.argv[2])
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(stores.make(Path(folder) / "store"), "first")


if __name__ == "__main__":
    main()
