"""The explorers in a real JupyterLab: every control, as a reader would use it."""

import io
import random
import re

import pandas as pd
import pytest
from explorerpage import SETUP, ExplorerPage
from helpers import flat_png
from labpage import SCREENSHOTS, open_and_run, wait_for_widgets, write_notebook
from PIL import Image
from playwright.sync_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.browser]
CELLS = (
    SETUP,
    "RetrievalExplorer(model, index, dataset)",
    "RetrievalExplorer(model, index, dataset, other=untrained(1), names=('one', 'two'))",
    "HeatmapExplorer(model, index, dataset)",
    "LossExplorer()",
)
DARK = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"


@pytest.fixture(scope="module")
def notebook(browser, server):
    """A page with all explorers, on which the tests go on from one another."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(120_000)
    page = context.new_page()
    open_and_run(page, server, write_notebook(server, "explorers.ipynb", *CELLS), seconds=300)
    yield page
    context.close()
    server.shut_kernels_down()


def test_ask_turn_and_choose(notebook):
    explorer = ExplorerPage(notebook, 0)
    explorer.button("3").click()
    expect(explorer.button("▸3")).to_be_visible()
    explorer.slide("turned by", *["ArrowRight"] * 6)
    expect(explorer.query("turned by 30 degrees")).to_be_visible()
    expect(explorer.root.get_by_text("of 16 bits flipped by turning")).to_be_visible()
    explorer.root.get_by_label("mirrored").check()
    expect(explorer.query("mirrored")).to_be_visible()
    explorer.slide("radius (bits)", "End")
    expect(explorer.root.get_by_text("images in the database")).to_be_visible()
    expect(explorer.hits).to_have_count(10)
    explorer.slide("hits (k)", "End")
    expect(explorer.hits).to_have_count(20)
    explorer.slide("hits (k)", "Home", "ArrowRight", "ArrowRight")
    expect(explorer.hits).to_have_count(3)
    explorer.select("ranking", "hamming")
    explorer.select("search in", "BCC")
    expect(explorer.root.get_by_text("images of BCC in the database")).to_be_visible()
    expect(explorer.root.locator("img[alt^='hit '][alt*=': BCC,']:visible")).to_have_count(3)
    explorer.select("search in", "all classes")
    expect(explorer.root.get_by_text("images in the database")).to_be_visible()


def test_through_hits_and_back(notebook):
    explorer = ExplorerPage(notebook, 0)
    name = explorer.hits.nth(1).get_attribute("alt").rpartition(" ")[2]
    explorer.hits.nth(1).click(force=True)  # the button's area lies over the picture
    expect(explorer.query(name)).to_be_visible()
    expect(explorer.root.get_by_text("(from the database)")).to_be_visible()
    explorer.button("use as query").first.press("Enter")
    expect(explorer.query(name)).to_have_count(0)
    explorer.button("↩ back").click()
    expect(explorer.query(name)).to_be_visible()
    explorer.button("↩ back").click()
    expect(explorer.button("▸3")).to_be_visible()
    expect(explorer.query("turned by 0 degrees")).to_be_visible()


def test_browse_a_class_and_find_an_id(notebook):
    explorer = ExplorerPage(notebook, 0)
    explorer.select("queries", "MEL")
    others = explorer.root.locator("img[alt^='query '][alt*=': NV,']:visible")
    expect(others).to_have_count(0)
    chosen = explorer.root.get_by_role("button", name="▸")
    first = chosen.inner_text()
    explorer.button("next ▶").click()
    expect(chosen).not_to_have_text(first)
    explorer.button("◀ previous").click()
    expect(chosen).to_have_text(first)
    explorer.select("queries", "all classes")
    expect(others.first).to_be_visible()
    expect(explorer.button("9")).to_be_visible()
    explorer.button("»").click()
    expect(explorer.button("10")).to_be_visible()
    explorer.button("10").press("Enter")
    expect(explorer.button("▸10")).to_be_visible()
    field = explorer.root.get_by_label("image id")
    name = field.input_value()
    field.fill("ATLAS_none")
    field.press("Enter")
    expect(explorer.alert).to_contain_text("There is no image 'ATLAS_none' among")
    expect(field).to_have_value(name)
    other = explorer.hits.first.get_attribute("alt").rpartition(" ")[2]
    field.fill(other)
    field.press("Enter")
    expect(explorer.query(other)).to_be_visible()
    expect(explorer.alert).to_have_count(0)


def test_upload(notebook):
    explorer = ExplorerPage(notebook, 0)
    before = explorer.query("turned").get_attribute("alt")
    bad = {"notes.txt": b"no image", "cut.png": flat_png()[:70], "big.png": b"x" * 12_000_000}
    for name, content in bad.items():
        explorer.upload(name, content)
        expect(explorer.alert).to_contain_text(name)
        assert explorer.query("turned").get_attribute("alt") == before
    explorer.upload("mine.png", flat_png())
    expect(explorer.root.get_by_text("mine (uploaded)")).to_be_visible()
    expect(explorer.root.get_by_text("class not known")).to_be_visible()
    expect(explorer.alert).to_have_count(0)
    explorer.button("↩ back").click()


def test_export(notebook):
    explorer = ExplorerPage(notebook, 0)
    explorer.button("export").click()
    content, name = explorer.save("picture (PNG)")
    assert Image.open(io.BytesIO(content)).width > 300 and name.endswith(".png")
    content, name = explorer.save("hits (CSV)")
    table = pd.read_csv(io.BytesIO(content))
    shown = [text.rpartition(" ")[2] for text in alts(explorer.hits)]
    assert [f"images/{each}.png" for each in shown] == table["image"].tolist()
    explorer.slide("turned by", "ArrowRight")  # links to an older view go away
    expect(explorer.root.get_by_role("link", name="hits (CSV)")).to_have_count(0)


def alts(images):
    return [image.get_attribute("alt") for image in images.all()]


def test_two_models_side_by_side(notebook):
    explorer = ExplorerPage(notebook, 1)
    expect(explorer.root.get_by_text("one", exact=True)).to_be_visible()
    explorer.slide("radius (bits)", "End")
    expect(explorer.root.get_by_text("images in the database")).to_have_count(2)
    expect(explorer.hits).to_have_count(20)
    explorer.slide("turned by", *["ArrowRight"] * 18)
    expect(explorer.query("turned by 90 degrees")).to_be_visible()
    expect(explorer.root.get_by_text("of 16 bits flipped")).to_have_count(2)
    explorer.button("export").click()
    content, _ = explorer.save("hits (CSV)")
    assert pd.read_csv(io.BytesIO(content))["model"].value_counts().to_dict() == {
        "one": 10,
        "two": 10,
    }


def test_heatmaps(notebook):
    explorer = ExplorerPage(notebook, 2)
    maps = explorer.root.locator("img[alt^='query with']")
    for subject in ("class NV", "bit 3", "match with the hit", "gate layer1.0"):
        before = maps.get_attribute("src")
        explorer.select("map", subject)
        expect(maps).to_have_attribute("alt", f"query with {subject}")
        expect(maps).not_to_have_attribute("src", before)
    expect(explorer.root.get_by_text("of the heat is on the lesion")).to_be_visible()
    explorer.slide("turned by", "ArrowRight", "ArrowRight")
    expect(explorer.root.get_by_text("follows the turn with correlation")).to_be_visible()
    chart = explorer.root.get_by_role("img", name="correlation with the unturned map")
    expect(chart).to_have_attribute("aria-label", re.compile("at 10°"))
    explorer.button("turn it once around").click()
    expect(chart).to_have_attribute("aria-label", re.compile("at 330°"))


def test_loss(notebook):
    explorer = ExplorerPage(notebook, 3)
    losses = explorer.root.get_by_role("row", name="loss of the orbit")
    before = losses.inner_text()
    explorer.slide("the bit that disagrees", "ArrowLeft")
    expect(losses).not_to_have_text(before)
    explorer.root.get_by_label("L1").uncheck()
    expect(explorer.root.get_by_role("columnheader", name="L1")).to_have_count(0)


def test_of_many_turns_the_last_one_counts(notebook):
    """While the kernel is busy the page holds one value back, the latest: no queue builds up."""
    explorer = ExplorerPage(notebook, 1)
    changes = explorer.root.evaluate_handle("""explorer => {
        const seen = [];
        new MutationObserver(() => {
            const words = explorer.querySelector("img[alt*='turned by']").alt;
            if (seen.at(-1) !== words) seen.push(words);
        }).observe(explorer, {childList: true, subtree: true});
        return seen;
    }""")
    handle = explorer.root.locator(".widget-slider").filter(has_text="turned by")
    handle.get_by_role("slider").evaluate("""handle => {
        handle.dispatchEvent(new KeyboardEvent('keydown', {key: 'Home', bubbles: true}));
        for (let i = 0; i < 60; i++)
            handle.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}));
    }""")
    expect(explorer.query("turned by 300 degrees")).to_be_visible()
    wait_for_widgets(notebook)
    assert len(changes.json_value()) < 10
    expect(explorer.query("turned by 300 degrees")).to_be_visible()


def test_forty_random_actions(notebook):
    rng = random.Random(0)
    explorer = ExplorerPage(notebook, 0)
    choices = [
        lambda: explorer.slide("turned by", rng.choice(["ArrowRight", "PageUp", "Home"])),
        lambda: explorer.slide("hits (k)", rng.choice(["ArrowRight", "ArrowLeft"])),
        lambda: explorer.slide("radius (bits)", rng.choice(["ArrowRight", "ArrowLeft"])),
        lambda: explorer.select("ranking", rng.choice(["cosine", "manhattan", "hamming"])),
        lambda: explorer.select("search in", rng.choice(["all classes", "MEL", "NV"])),
        lambda: explorer.press(rng.choice(["random", "next ▶", "◀ previous", "«", "»"])),
        lambda: explorer.root.get_by_label("mirrored").click(),
        lambda: explorer.press("use as query"),
    ]
    for _ in range(40):
        rng.choice(choices)()
    wait_for_widgets(notebook)
    expect(explorer.alert).to_have_count(0)
    expect(explorer.query("turned by")).to_be_visible()
    assert explorer.faults() == []


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
@pytest.mark.parametrize("width", [1280, 900])
def test_nothing_overlaps_and_all_can_be_read(notebook, theme, width):
    notebook.evaluate(DARK, theme)
    notebook.set_viewport_size({"width": width, "height": 3000})
    notebook.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
    notebook.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)))")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    names = ("retrieval", "side-by-side", "heatmap", "loss")
    found = {}
    for number, name in enumerate(names):
        explorer = ExplorerPage(notebook, number)
        explorer.root.scroll_into_view_if_needed()
        file = f"{name}-{width}-{theme.split()[1].lower()}.png"
        explorer.root.screenshot(path=SCREENSHOTS / file)
        if faults := explorer.faults():
            found[name] = faults
    assert found == {}
