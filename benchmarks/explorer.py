"""How fast the explorers answer: the time from a slider's release until the browser has painted.

``python -m benchmarks.explorer`` opens a JupyterLab and a headless Chromium, presses the arrow key
on the slider that turns the query, and measures in the page until hits, bits and query have been
painted: an index of 10,000 images of 224 px, ResNet-18 with attention on the CPU.
"""

import statistics
from dataclasses import replace

import numpy as np
from tqdm.auto import tqdm

from benchmarks import Row, machine
from derm_hash.doctor import find_browser

TURNS = 40
PROMISED = {"retrieval": 0.150, "heatmap": 0.500}  # seconds, median
# The database part of 240 drawn images, repeated, with codes that differ a little: to draw and
# encode 10,000 images would make the start slow and leave the measured time unchanged.
SETUP = """
import numpy as np, torch
from derm_hash import DermHash, HashIndex, HeatmapExplorer, LesionDataset, RetrievalExplorer
from derm_hash import encode, make_atlas

dataset = LesionDataset.from_atlas(make_atlas(240, 224, progress=False))
queries, drawn = dataset.split("query"), dataset.split("database")
torch.manual_seed(0)
model = DermHash(classes=len(dataset.classes)).eval()
with torch.no_grad():
    model.hash_layer.weight.mul_(60)
    model.hash_layer.bias.zero_()
copies = np.arange(10_000) % len(drawn)
noise = np.random.default_rng(0).normal(0, 0.05, (10_000, model.bits))
codes = np.clip(encode(model, drawn)[copies] + noise, 0, 1)
database = drawn.select(copies)
index = HashIndex.build(codes, database.labels, database.table)
"""
CELLS = {
    "retrieval": "RetrievalExplorer(model, index, queries, database)",
    "heatmap": "HeatmapExplorer(model, index, queries, database)",
}
# In the page: press the key and wait for the picture and all others to be painted.
TURN = """([handle, watched]) => new Promise(done => {
    const before = watched.innerHTML, began = performance.now();
    const observer = new MutationObserver(async () => {
        if (watched.innerHTML === before) return;
        observer.disconnect();
        const explorer = watched.closest('.derm-hash-explorer');
        const images = [...explorer.querySelectorAll('img')];
        await Promise.all(images.map(image => image.decode().catch(() => 0)));
        requestAnimationFrame(() => setTimeout(() => done((performance.now() - began) / 1000)));
    });
    observer.observe(watched, {childList: true, subtree: true, characterData: true});
    handle.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
})"""


def measure(page, number: int, turns: int = TURNS) -> list[float]:
    """Seconds of each of ``turns`` presses of the arrow key, after three to warm up."""
    explorer = page.locator(".derm-hash-explorer").nth(number)
    slider = explorer.locator(".widget-slider").filter(has_text="turned by")
    handle = slider.get_by_role("slider").element_handle()
    # The explorer sends the query's picture, or the chart, last.
    last = "img[alt*='turned by']" if number == 0 else "svg[aria-label^='correlation']"
    watched = explorer.locator(".widget-html-content", has=page.locator(last)).element_handle()
    times = []
    for _ in tqdm(range(turns + 3), list(CELLS)[number], leave=False):
        times.append(page.evaluate(TURN, [handle, watched]))
        page.wait_for_timeout(50)
    return times[3:]


def explorers() -> list[Row]:
    """The time from a slider's release to a repainted page: one row for each explorer."""
    rows = [
        Row(
            f"{name} explorer, 10,000 images: slider to repainted page, median",
            "",
            promised,
            None,
            "s",
            at_most=True,
            note="no Chromium or Chrome here",
        )
        for name, promised in PROMISED.items()
    ]
    if find_browser() is None:
        return rows
    try:
        from tests.browser.labpage import page_of  # needs playwright, which not everybody has
    except ImportError:
        return [replace(row, note="Playwright is not installed") for row in rows]

    with page_of((SETUP, *CELLS.values()), 1280, 2400) as page:
        for number, row in enumerate(rows):
            times = measure(page, number)
            row.measured, row.note = statistics.median(times), ""
            row.details = {"95 % within": float(np.quantile(times, 0.95))}
    return rows


def main() -> None:
    """Print the rows."""
    for row in explorers():
        print(row)
    print(machine())


if __name__ == "__main__":
    main()
