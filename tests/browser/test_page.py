"""The page that needs no kernel: opened from the disk, as people pass it on."""

import io
import re

import pandas as pd
import pytest
import torch
from explorerpage import ExplorerPage
from labpage import ROOT, SCREENSHOTS
from PIL import Image
from playwright.sync_api import expect

from derm_hash.explorers.page import page_data, write_page

pytestmark = [pytest.mark.slow, pytest.mark.browser]
HOSTILE = "<img src=x onerror=alert(1)>"
# Bits that turning flips at each angle of the side that is shown: as the carpet has them in the
# accent colour, which has little blue, and as they are counted.
CARPET = """(explorer, number) => {
    const {carpet} = explorer.explorer.panels[number], {width, height} = carpet;
    const {data} = carpet.getContext("2d").getImageData(0, 0, width, height);
    return Array.from({length: width}, (_, t) =>
        Array.from({length: height}, (_, b) => +(data[4 * (b * width + t) + 2] < 80))
            .reduce((sum, flipped) => sum + flipped));
}"""
FLIPS = """(explorer, number) => {
    const {panels, view} = explorer.explorer, first = view.mirrored ? 72 : 0;
    return Array.from({length: 72}, (_, t) => panels[number].look(first + t).flips);
}"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A small page of two untrained networks; one image has a hostile name, one model too."""
    from derm_hash import DermHash, LesionDataset, build_index, make_atlas

    dataset = LesionDataset.from_atlas(make_atlas(120, 48, progress=False))
    dataset.table.loc[0, "image"] = f"images/{HOSTILE}.png"
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(DermHash("resnet8", classes=len(dataset.classes)).eval())
        with torch.no_grad():
            models[-1].hash_layer.weight.mul_(60)
            models[-1].hash_layer.bias.zero_()
    indexes = [build_index(model, dataset.split("database")) for model in models]
    data = page_data(dataset, models, indexes, names=("one", HOSTILE), queries=8)
    return write_page(tmp_path_factory.mktemp("page") / "index.html", data)


@pytest.fixture(params=[(1366, "light"), (900, "dark"), (390, "light"), (1366, "dark")], ids=str)
def explorer(request, browser, path):
    """The page at a width and in a theme; nothing leaves the machine and nothing fails."""
    width, theme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 768}, color_scheme=theme, has_touch=width == 390
    )
    page, errors, asked = context.new_page(), [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), timeout=120_000)
    explorer = ExplorerPage(page)
    explorer.name = f"page-{width}-{theme}"
    expect(explorer.hits).not_to_have_count(0)
    yield explorer
    context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_what_a_reader_does(explorer):
    page, width = explorer.page, explorer.page.viewport_size["width"]
    expect(explorer.degrees).to_have_text("90°")
    explorer.drag(0, 45)
    expect(explorer.degrees).to_have_text("135°")
    explorer.wheel.press("Shift+ArrowRight")
    explorer.wheel.press("m")
    expect(explorer.degrees).to_have_text("120°")
    expect(explorer.button("mirror the lesion")).to_have_attribute("aria-pressed", "true")
    explorer.wheel.press("r")
    live = explorer.root.locator(".dh-live")
    expect(live).to_contain_text("210 degrees, mirrored: one", timeout=10_000)
    expect(live).to_contain_text("of 16 bits flipped")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{explorer.name}.png", full_page=True)
    for number in (0, 1):  # the carpet marks the bits that are counted as flipped
        assert explorer.root.evaluate(CARPET, number) == explorer.root.evaluate(FLIPS, number)
    assert explorer.faults() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if width == 1366:  # everything that matters is in sight
        bottom = explorer.hits.last.bounding_box()
        assert bottom["y"] + bottom["height"] <= 768

    first = explorer.query.inner_text()
    place = explorer.hits.nth(1).get_attribute("title")
    explorer.hits.nth(1).click()
    expect(explorer.query).to_contain_text(f"{place}, from the database")
    expect(explorer.degrees).to_have_text("0°")
    expect(explorer.root.locator(".dh-near")).to_contain_text("known at quarter turns")
    expect(explorer.wheel).to_be_in_viewport()
    explorer.trail.first.press("Enter")
    expect(explorer.query).to_have_text(re.sub("\n", "", first))

    strip = explorer.root.locator(".dh-thumbs button")
    stop = explorer.root.locator(".dh-thumbs [tabindex='0']")  # one stop for the key Tab
    assert stop.count() == 1
    stop.press("ArrowRight")
    expect(strip.nth(1)).to_be_focused()
    strip.nth(1).press("ArrowLeft")
    expect(strip.nth(0)).to_be_focused()

    number = explorer.root.get_by_label("hits", exact=True)
    number.fill("99")
    number.press("Enter")
    expect(number).to_have_value("20")
    number.fill("3")
    number.press("Enter")
    explorer.root.get_by_label("Hamming radius").press("End")
    expect(explorer.hits).to_have_count(6)
    explorer.select("search in", "NV")
    for hit in explorer.hits.all():
        expect(hit).to_contain_text("NV")
    explorer.select("ranking", "hamming")
    content, name = explorer.save("save the hits as a table")
    table = pd.read_csv(io.BytesIO(content))
    assert table["model"].tolist() == ["one"] * 3 + [HOSTILE] * 3 and name.endswith(".csv")
    assert table["label"].tolist() == ["NV"] * 6
    assert set(table["ranking"]) == {"hamming"} and set(table["search_in"]) == {"NV"}
    content, _ = explorer.save("save this view as a picture")
    assert Image.open(io.BytesIO(content)).width == 1400
    explorer.button("show or hide the model “one”").click()
    expect(explorer.hits).to_have_count(3)

    field = explorer.root.get_by_role("combobox", name="image id")
    field.fill("nobody")
    field.press("Enter")
    expect(explorer.alert).to_contain_text("There is no image nobody")
    assert explorer.root.locator("img[src=x]").count() == 0


def test_axe_finds_no_serious_fault(browser, path):
    axe = ROOT / "build" / "axe" / "axe.min.js"
    if not axe.exists():
        pytest.skip("no build/axe/axe.min.js: it is in the archive of `npm pack axe-core`")
    context = browser.new_context(viewport={"width": 1366, "height": 768}, bypass_csp=True)
    page = context.new_page()
    page.goto(path.as_uri(), timeout=120_000)
    expect(ExplorerPage(page).hits).not_to_have_count(0)
    page.add_script_tag(path=axe)
    found = page.evaluate("axe.run().then(({violations}) => violations)")
    assert [v["help"] for v in found if v["impact"] in ("serious", "critical")] == []
    context.close()


def test_a_finger_turns_the_lesion(browser, path):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(path.as_uri(), timeout=120_000)
    explorer = ExplorerPage(page)
    expect(explorer.degrees).to_have_text("90°")
    box = explorer.wheel.bounding_box()
    x, y, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"] / 4
    touch = context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [{"x": x + r, "y": y}]),
        ("touchMove", [{"x": x + r * 0.7, "y": y - r * 0.7}]),
        ("touchMove", [{"x": x, "y": y - r}]),
        ("touchEnd", []),
    ):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(explorer.degrees).to_have_text("180°")
    context.close()
