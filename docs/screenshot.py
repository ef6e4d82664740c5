"""Take the README's picture of the explorer, docs/explorer.png, from the page of `make page`.

python -m docs.screenshot
"""

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from derm_hash.doctor import find_browser
from derm_hash.explorers import page
from derm_hash.plots.style import with_palette
from tests.browser.labpage import CHROMIUM_FLAGS


def main() -> None:
    """Two models on the query whose bits move most without the loss, turned by 90 degrees."""
    if not page.OUT.exists():
        page.run([])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=CHROMIUM_FLAGS)
        tab = browser.new_page(viewport={"width": 1366, "height": 740})
        tab.goto(page.OUT.resolve().as_uri())
        tab.locator(".dh-hit").first.wait_for()
        tab.wait_for_timeout(1000)  # until the ring is drawn
        content = tab.screenshot()
        browser.close()
    picture = with_palette(Image.open(io.BytesIO(content)).convert("RGB"))
    picture.save(Path(__file__).with_name("explorer.png"), optimize=True)


if __name__ == "__main__":
    main()
