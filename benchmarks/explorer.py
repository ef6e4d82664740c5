"""How fast the explorers answer in a headless Chromium: in a JupyterLab, and without a kernel.

``python -m benchmarks.explorer`` measures, in the page, the time from a pointer's move until bits
and hits have been painted; the kernel's time for a new query, its first answer and all angles; and
the page's own search. An index of 10,000 images of 96 px, ResNet-18 with attention on the CPU; and
the page of ``make page`` with two networks, whose database is repeated up to 10,000 images.
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import Row, machine
from derm_hash.doctor import find_browser
from derm_hash.explorers.page import run as make_page

ALONE = "pointer move to repainted page, without a kernel"
PROMISED = {  # seconds, median
    ALONE: 0.016,
    "pointer move to repainted page, in JupyterLab": 0.016,
    "new query to first answer": 0.150,
    "new query to all angles": 1.5,
    "turn to new heatmap": 0.500,
    "search of 100,000 codes in the page": 0.010,
}
# The database part of 240 drawn images, repeated, with codes that differ a little: to draw and
# encode 10,000 images would make the start slow and leave the measured time unchanged.
SETUP = """
import numpy as np, torch
from derm_hash import DermHash, HashIndex, HeatmapExplorer, LesionDataset, RetrievalExplorer
from derm_hash import encode, make_atlas

dataset = LesionDataset.from_atlas(make_atlas(240, 96, progress=False))
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
CELLS = (
    "RetrievalExplorer(model, index, queries, database)",
    "HeatmapExplorer(model, index, queries, database)",
)
# In the page: the time that the browser takes to paint a frame after the pointer has moved, from
# the frame's start on, since the screen's own rate decides when that is.
MOVE = """root => new Promise(done => {
    const wheel = root.querySelector('.dh-wheel'), box = wheel.getBoundingClientRect(), times = [];
    wheel.setPointerCapture = () => {};
    const send = (kind, angle) => wheel.dispatchEvent(new PointerEvent(kind, {
        pointerId: 7, bubbles: true,
        clientX: box.left + box.width / 2 + 60 * Math.cos(angle),
        clientY: box.top + box.height / 2 - 60 * Math.sin(angle)}));
    const frame = i => requestAnimationFrame(() => {
        const began = performance.now(), {port1, port2} = new MessageChannel();
        send('pointermove', i / 11.46);  // 5 degrees
        root.explorer.paint();
        port1.onmessage = () => {
            times.push((performance.now() - began) / 1000);
            if (i < 150) return frame(i + 1);
            send('pointerup', 0);
            done(times.slice(10));
        };
        port2.postMessage(0);  // arrives when the frame has been laid out and painted
    });
    send('pointerdown', 0);
    frame(1);
})"""
ASK = """(root, position) => new Promise(done => {
    const {source} = root.explorer, {onquery, onfamiliar} = source, began = performance.now();
    let first;
    source.onquery = query => {
        onquery(query);
        requestAnimationFrame(() => { first = (performance.now() - began) / 1000; });
    };
    source.oncodes = () => root.explorer.query.known.every(Boolean)
        && done([first, (performance.now() - began) / 1000]);
    source.ask({origin: 'query', position});
})"""
HEAT = """root => new Promise(done => {
    const scores = root.querySelector('.dh-scores'), began = performance.now();
    new MutationObserver((_, observer) => {
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => done((performance.now() - began) / 1000)));
    }).observe(scores, {childList: true, subtree: true, characterData: true});
    root.querySelector('.dh-wheel').dispatchEvent(
        new KeyboardEvent('keydown', {key: 'ArrowLeft', shiftKey: true, bubbles: true}));
})"""

# In the page: repeat the database up to 10,000 images, with codes that differ a little.
REPEAT = """root => {
    const {explorer} = root, {about, source, indexes} = explorer, {thumb} = source;
    const n = about.database.length, size = 10000, images = about.database;
    const near = value => Math.min(Math.max(value + 0.1 * (Math.random() - 0.5), 0), 1);
    about.database = Array.from({length: size}, (_, i) => images[i % n]);
    source.thumb = (origin, position, image) =>
        thumb(origin, origin === 'database' ? position % n : position, image);
    explorer.indexes = indexes.map(({codes, bits, constructor: Index}) => {
        const repeated = (_, i) => near(codes[i % codes.length]);
        return new Index(Float32Array.from({length: size * bits}, repeated), bits);
    });
    explorer.changed();
}"""
SEARCH = """root => {
    const Index = root.explorer.indexes[0].constructor, times = [];
    const codes = Float32Array.from({length: 100000 * 16}, Math.random);
    const index = new Index(codes, 16);
    for (let i = 0; i < 40; i++) {
        const query = Float32Array.from({length: 16}, Math.random), began = performance.now();
        index.search(query, {k: 10, radius: i % 2 ? 4 : null});
        times.push((performance.now() - began) / 1000);
    }
    return times;
}"""


def moves_without_kernel() -> list[float]:
    """Seconds of each move on the page of ``make page``."""
    from playwright.sync_api import sync_playwright

    from tests.browser.labpage import CHROMIUM_FLAGS

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "index.html"
        make_page(["--out", str(path)])
        browser = playwright.chromium.launch(executable_path=find_browser(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1366, "height": 1600})
        page.goto(path.as_uri())
        root = page.locator(".dh")
        root.locator(".dh-near", has_text="distance").wait_for()
        root.evaluate(REPEAT)
        page.wait_for_timeout(2000)  # until the page has looked at all angles
        return root.evaluate(MOVE)


def measure(page) -> dict[str, list[float]]:
    """Seconds of each try in JupyterLab, by what is promised."""
    retrieval, heat = (page.locator(".dh").nth(number) for number in range(2))
    retrieval.locator(".dh-near", has_text="distance").wait_for()  # the kernel has said all
    moves = retrieval.evaluate(MOVE)
    asked = [retrieval.evaluate(ASK, position) for position in range(1, 12)][1:]
    heat.locator(".dh-scores", has_text="heat").wait_for()
    turns = [heat.evaluate(HEAT) for _ in range(12)][2:]
    first, last = zip(*asked, strict=True)
    found = (moves, first, last, turns, retrieval.evaluate(SEARCH))
    return dict(zip([name for name in PROMISED if name != ALONE], found, strict=True))


def explorers() -> list[Row]:
    """One row for each promise."""
    rows = [
        Row(
            f"explorer, 10,000 images: {name}, median",
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

    found = {ALONE: moves_without_kernel()}
    with page_of((SETUP, *CELLS), 1366, 1600) as page:
        found |= measure(page)
    for row, times in zip(rows, found.values(), strict=True):
        row.measured, row.note = statistics.median(times), ""
        row.details = {"95 % within": float(np.quantile(times, 0.95))}
    slow = replace(rows[0], what=rows[0].what.replace("median", "95 % within"), target=0.033)
    return [*rows, replace(slow, measured=rows[0].details["95 % within"], details={})]


def main() -> None:
    """Print the rows."""
    for row in explorers():
        print(row)
    print(machine())


if __name__ == "__main__":
    main()
