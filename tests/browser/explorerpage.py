"""What a reader of a page with an explorer does and sees, for the browser tests."""

from playwright.sync_api import expect

expect.set_options(timeout=60_000)  # a busy machine is slow, not broken

# An untrained network on a few lesions: its codes are spread, so that turning flips bits.
SETUP = """
import numpy as np, torch
from derm_hash import DermHash, LesionDataset, build_index, make_atlas
from derm_hash import HeatmapExplorer, LossExplorer, RetrievalExplorer

dataset = LesionDataset.from_atlas(make_atlas(160, 48, progress=False))

def untrained(seed):
    torch.manual_seed(seed)
    model = DermHash("resnet10", classes=len(dataset.classes)).eval()
    with torch.no_grad():
        model.hash_layer.weight.mul_(60)
        model.hash_layer.bias.zero_()
    return model, build_index(model, dataset.split("database"))

model, index = untrained(0)
"""

# Text that is hard to read, cut off, or under something else; pictures without words.
FAULTS = """explorer => {
    const faults = [];
    const seen = e => e.checkVisibility({visibilityProperty: true})
        && e.getBoundingClientRect().width > 1;
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const luminance = c => c.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = e => {
        for (; e; e = e.parentElement) {
            const c = rgb(getComputedStyle(e).backgroundColor);
            if (c.length === 3 || c[3] === 1) return c;
        }
        return [255, 255, 255];
    };
    const words = e => (e.textContent || '').trim().slice(0, 40);
    const walker = document.createTreeWalker(explorer, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const e = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || e.tagName === 'STYLE' || !seen(e)) continue;
        if (e.closest('[disabled]')) continue;
        const [a, b] = [luminance(rgb(getComputedStyle(e).color)), luminance(behind(e))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(1)}: ${words(e)}`);
    }
    for (const image of explorer.querySelectorAll('img'))
        if (seen(image) && !image.alt) faults.push(`no words for ${image.outerHTML.slice(0, 80)}`);
    const parts = [...explorer.querySelectorAll('button, select, label, img, .widget-html-content,'
        + '.widget-readout, input, .slider-container')].filter(
        e => seen(e) && (e.textContent.trim() || e.matches('img, input, .slider-container')));
    for (const e of parts) {
        if (e.scrollWidth > e.clientWidth + 1 && e.matches('button, label, .widget-html-content'))
            faults.push(`cut off: ${words(e)}`);
        const box = e.getBoundingClientRect(), page = explorer.getBoundingClientRect();
        if (box.right > page.right + 1) faults.push(`beyond the edge: ${words(e)}`);
    }
    for (const [i, e] of parts.entries()) for (const other of parts.slice(i + 1)) {
        if (e.contains(other) || other.contains(e)) continue;
        const [a, b] = [e.getBoundingClientRect(), other.getBoundingClientRect()];
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 2 && high > 2)
            faults.push(`overlap: ${e.tagName} ${words(e)} / ${other.tagName} ${words(other)}`);
    }
    return faults;
}"""


class ExplorerPage:
    """One explorer on a page."""

    def __init__(self, page, number=0):
        self.page = page
        self.root = page.locator(".derm-hash-explorer").nth(number)

    def button(self, name):
        return self.root.get_by_role("button", name=name, exact=True)

    def press(self, name):
        """Press the first such button that is there, if it can be pressed just now."""
        self.root.evaluate(
            """(explorer, name) => [...explorer.querySelectorAll('button')]
                .find(b => b.textContent.trim() === name && b.checkVisibility())?.click()""",
            name,
        )

    def select(self, label, option):
        self.root.get_by_label(label, exact=True).select_option(label=option)

    def slide(self, label, *keys):
        """Press keys on the handle of a slider."""
        slider = self.root.locator(".widget-slider").filter(has_text=label)
        handle = slider.get_by_role("slider")
        handle.focus()
        for key in keys:
            handle.press(key)

    def query(self, text):
        """The picture of the query, as its words say that it is."""
        return self.root.locator(f"img[alt*='{text}'][alt^='query ATLAS']")

    @property
    def hits(self):
        return self.root.locator("img[alt^='hit ']:visible")

    @property
    def alert(self):
        return self.root.get_by_role("alert")

    def upload(self, name, content):
        with self.page.expect_file_chooser() as chosen:
            self.root.get_by_role("button", name="upload an image").click()
        chosen.value.set_files({"name": name, "mimeType": "", "buffer": content})

    def save(self, link):
        """The content of the file that a link saves."""
        with self.page.expect_download() as download:
            self.root.get_by_role("link", name=link).click()
        return download.value.path().read_bytes(), download.value.suggested_filename

    def faults(self):
        return self.root.evaluate(FAULTS)
