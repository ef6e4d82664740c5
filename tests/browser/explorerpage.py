"""What a reader of a page with an explorer does and sees, for the browser tests."""

import math

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
    model = DermHash("resnet8", classes=len(dataset.classes)).eval()
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
        if (!walker.currentNode.data.trim() || !seen(e)) continue;
        if (e.closest('style, select, svg, [disabled]')) continue;
        const [a, b] = [luminance(rgb(getComputedStyle(e).color)), luminance(behind(e))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(1)}: ${words(e)}`);
    }
    for (const image of explorer.querySelectorAll('img'))
        if (seen(image) && !image.alt && !image.closest('button'))
            faults.push(`no words for ${image.outerHTML.slice(0, 80)}`);
    const parts = [...explorer.querySelectorAll('button, select, input, img, h2, p, label, table,'
        + '.dh-number, .dh-bits, .dh-carpet, .dh-map, .dh-wheel, .dh-chart')].filter(
        e => seen(e) && !e.closest('.dh-thumbs, .dh-live'));
    for (const e of parts) {
        if (e.scrollWidth > e.clientWidth + 1 && e.matches('button, p, h2'))
            faults.push(`cut off: ${words(e)}`);
        const box = e.getBoundingClientRect(), page = explorer.getBoundingClientRect();
        if (box.right > page.right + 1) faults.push(`beyond the edge: ${words(e)}`);
    }
    for (const [i, e] of parts.entries()) for (const other of parts.slice(i + 1)) {
        if (e.contains(other) || other.contains(e) || e.closest('.dh-radius, .dh-wheel')) continue;
        const [a, b] = [e.getBoundingClientRect(), other.getBoundingClientRect()];
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 2 && high > 2)
            faults.push(`overlap: ${e.tagName} ${words(e)} / ${other.tagName} ${words(other)}`);
    }
    for (const e of explorer.querySelectorAll('*')) {
        const style = getComputedStyle(e);
        if (seen(e) && /auto|scroll/.test(style.overflowX + style.overflowY)
            && style.scrollbarWidth !== 'none' && e.offsetWidth - e.clientWidth > 12)
            faults.push(`scrollbar: ${e.className}`);
    }
    for (const e of explorer.querySelectorAll('button, select, input'))
        if (seen(e) && !(e.ariaLabel || e.textContent.trim() || e.labels?.length))
            faults.push(`no name: ${e.outerHTML.slice(0, 80)}`);
    return faults;
}"""


class ExplorerPage:
    """One explorer on a page."""

    def __init__(self, page, number=0):
        self.page = page
        self.root = page.locator(".dh").nth(number)
        self.wheel = self.root.locator(".dh-wheel")
        self.degrees = self.root.locator(".dh-degrees")
        self.hits = self.root.locator(".dh-hit:visible")
        self.query = self.root.locator(".dh-query").first
        self.alert = self.root.get_by_role("alert")
        self.trail = self.root.locator(".dh-trail button")

    def button(self, name):
        return self.root.get_by_role("button", name=name)

    def select(self, label, option):
        self.root.get_by_label(label, exact=True).select_option(label=option)

    def numbers(self, panel=0):
        """Name -> text of the numbers of a model."""
        texts = self.root.locator(".dh-panel").nth(panel).locator(".dh-number").all_inner_texts()
        return {name: value for value, name in (text.split("\n") for text in texts)}

    def drag(self, start, end):
        """Turn the lesion with the mouse from one direction to another, in degrees."""
        box = self.wheel.bounding_box()

        def at(degrees):
            turned = math.radians(degrees)
            x, y = (0.3 * box["width"] * f(turned) for f in (math.cos, math.sin))
            return box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2 - y

        self.page.mouse.move(*at(start))
        self.page.mouse.down()
        for step in range(1, 7):
            self.page.mouse.move(*at(start + (end - start) * step / 6))
        self.page.mouse.up()

    def upload(self, name, content):
        file = {"name": name, "mimeType": "", "buffer": content}
        self.root.locator("input[type=file]").set_input_files(file)

    def save(self, name):
        """The content of the file that a button saves, and its name."""
        with self.page.expect_download() as download:
            self.button(name).click()
        return download.value.path().read_bytes(), download.value.suggested_filename

    def faults(self):
        return self.root.evaluate(FAULTS)
