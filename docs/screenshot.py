"""Take the README's pictures of the explorer from the page of `make page`.

python -m docs.screenshot

docs/explorer.png is the page as it opens, docs/turning.webp the lesion turned once around.
"""

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from derm_hash.doctor import find_browser
from derm_hash.explorers import page
from derm_hash.plots.style import with_palette
from tests.browser.labpage import CHROMIUM_FLAGS

HERE = Path(__file__).parent
STEP, STAY = 10, 90  # degrees between two pictures, and where the lesion stays for a moment
SHORT, LONG = 110, 1200  # milliseconds of a picture
TURN = """angle => {
    document.querySelector('.dh').explorer.turn(angle, false);
    return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""


def main() -> None:
    """Two models on the query that the page begins with."""
    if not page.OUT.exists():
        page.run([])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=CHROMIUM_FLAGS)
        tab = browser.new_page(viewport={"width": 1366, "height": 700}, reduced_motion="reduce")
        tab.goto(page.OUT.resolve().as_uri())
        tab.locator(".dh-hit").first.wait_for()
        tab.locator(".dh-flips").first.wait_for(state="attached")
        tab.wait_for_timeout(3000)  # until the ring is drawn
        still = picture(tab)
        with_palette(still).save(HERE / "explorer.png", optimize=True)
        frames, times = [], []
        for angle in range(0, 360, STEP):
            tab.evaluate(TURN, angle)
            frames.append(picture(tab))
            times.append(LONG if angle == STAY else SHORT)
        browser.close()
    options = {"save_all": True, "append_images": frames[1:], "duration": times, "loop": 0}
    frames[0].save(HERE / "turning.webp", quality=45, method=4, **options)


def picture(tab) -> Image.Image:
    """What the tab shows."""
    return Image.open(io.BytesIO(tab.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
