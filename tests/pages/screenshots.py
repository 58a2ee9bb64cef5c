"""Draws the pictures of the documentation from real searches: ``python -m tests.pages.screenshots [STORE]``.

Without a store it runs two short searches first, which takes some minutes. A store that is given has them already.
"""

import os
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import metaloom
from tests.pages.conftest import BROWSER, opened, serving
from tests.pages.test_every_page import settle

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images"
# file, path, theme, and the size of the window
PICTURES = (
    ("pages-search.png", "/searches/glyphs", "light", (1280, 1250)),
    ("pages-trial.png", "/searches/glyphs/trials/0", "dark", (1280, 1000)),
)
COLOURS = 96
SHORTER = ("outer.steps=60", "outer.validate_every=10", "search.trials=16", "search.scheduler.grace_steps=20")


def searched(store: Path) -> Path:
    """Run the searches, and return the store."""
    metaloom.search("default", overrides=SHORTER, name="glyphs", store=store, executor="inline", seed=0)
    metaloom.search("quick", name="sines", store=store, executor="inline", seed=0)
    return store


def draw(store: Path) -> None:
    """Draw all pictures of a store, whose path the pages show from the folder above it."""
    os.chdir(store.parent)
    with serving(Path(store.name), "--read-only") as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for file, path, theme, (width, height) in PICTURES:
            size = {"width": width, "height": height}
            with opened(browser, base_url=served.address, color_scheme=theme, viewport=size) as page:
                page.goto(served.url(path))
                settle(page)
                page.wait_for_timeout(500)
                page.screenshot(path=FOLDER / file)
            with Image.open(FOLDER / file) as image:
                image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(FOLDER / file, optimize=True)
        browser.close()


def main() -> None:
    """Draw the pictures of a given store, or of one that is made for it."""
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]).absolute())
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(searched(Path(folder) / "metaloom-store"))


if __name__ == "__main__":
    main()
