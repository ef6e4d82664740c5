"""The explorers in a real JupyterLab: what a reader does, with a kernel that answers."""

import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from explorerpage import SETUP, ExplorerPage
from helpers import flat_png
from labpage import SCREENSHOTS, open_and_run, start_run, write_notebook
from playwright.sync_api import expect

from derm_hash.losses import PENALTIES, OrbitPenalty, penalty_curve

pytestmark = [pytest.mark.slow, pytest.mark.browser]
CELLS = (
    SETUP,
    "explorer = RetrievalExplorer(model, index, dataset, other=untrained(1), "
    "names=('one', 'two'), angle=90, radius=None)\nexplorer",
    "HeatmapExplorer(model, index, dataset)",
    "LossExplorer()",
    "from derm_hash import Guess\nGuess('How many bits flip?', high=16, truth=3)",
    "Guess('Draw the loss', x=[0, 0.5, 1], truth=[0, 0.4, 0.7])",
)
RETRIEVAL, HEAT, LOSS, NUMBER, CURVE = range(5)
TWO_KEYS = """(wheel, keys) => { for (const key of keys)
    wheel.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true})); }"""
DARK = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
IN_KERNEL = """code => new Promise(done => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const run = kernel.requestExecute({code, store_history: false});
    run.onIOPub = message => message.content.text && done(message.content.text.trim());
})"""


@pytest.fixture(scope="module")
def notebook(browser, server):
    """A page with all explorers, on which the tests go on from one another."""
    context = browser.new_context(viewport={"width": 1366, "height": 1000})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    open_and_run(page, server, write_notebook(server, "explorers.ipynb", *CELLS), seconds=300)
    yield page
    context.close()
    server.shut_kernels_down()


def test_every_angle_arrives_and_the_lesion_turns(notebook):
    explorer = ExplorerPage(notebook, RETRIEVAL)
    expect(explorer.degrees).to_have_text("90°")
    expect(explorer.hits).to_have_count(20)
    expect(explorer.root.locator(".dh-near")).to_contain_text("distance")  # the last answer
    known = "explorer => explorer.explorer.query.known.every(Boolean)"
    assert explorer.root.evaluate(known)
    explorer.wheel.scroll_into_view_if_needed()
    explorer.drag(0, 45)
    expect(explorer.degrees).to_have_text("135°")
    explorer.wheel.evaluate(TWO_KEYS, "rm")  # neither of them is a key of JupyterLab's here
    expect(explorer.degrees).to_have_text("225°")
    assert notebook.locator(".jp-CodeCell").count() == len(CELLS)
    state = "print(explorer.angle, explorer.mirrored, explorer.radius)"
    for _ in range(20):  # the kernel hears of it when the hand rests
        notebook.wait_for_timeout(500)
        if (told := notebook.evaluate(IN_KERNEL, state)) == "225.0 True None":
            break
    assert told == "225.0 True None"


def test_through_hits_an_id_and_back(notebook):
    explorer = ExplorerPage(notebook, RETRIEVAL)
    first = explorer.query.inner_text().replace("\n", "")
    name = explorer.hits.nth(2).get_attribute("title")
    explorer.hits.nth(2).press("Enter")
    expect(explorer.query).to_contain_text(f"{name}, from the database")
    expect(explorer.degrees).to_have_text("0°")
    field = explorer.root.get_by_role("combobox", name="image id")
    field.fill("nobody")
    field.press("Enter")
    expect(explorer.alert).to_contain_text("There is no image 'nobody' among")
    explorer.root.locator(".dh-thumbs button").nth(4).click()
    expect(explorer.alert).to_be_empty()
    expect(explorer.trail).to_have_count(2)
    explorer.trail.first.click()
    expect(explorer.query).to_have_text(first)


def test_upload_and_export(notebook):
    explorer = ExplorerPage(notebook, RETRIEVAL)
    before = explorer.query.inner_text()
    assert explorer.root.locator("input[type=file]").get_attribute("accept") == "image/*"
    # Jupyter's own limit of a message lets the largest file through; the page refuses a larger one.
    files = {"notes.txt": b"no image", "largest.png": b"x" * 10_000_000}
    for name, content in (files | {"big.png": b"x" * 10_000_001}).items():
        explorer.upload(name, content)
        expect(explorer.alert).to_contain_text(
            f"{name} {'is not' if name in files else 'has more'}"
        )
        assert explorer.query.inner_text() == before
    explorer.upload("<b>mine</b>.png", flat_png())
    expect(explorer.query).to_contain_text("b>, uploaded")
    expect(explorer.query).to_contain_text("class not known")
    assert explorer.numbers()["precision@10"] == "–"
    content, _ = explorer.save("save the hits as a table")
    assert pd.read_csv(io.BytesIO(content))["model"].tolist() == ["one"] * 10 + ["two"] * 10
    explorer.trail.last.click()
    expect(explorer.query).not_to_contain_text("uploaded")
    explorer.button("any query of the class").click()
    expect(explorer.query).not_to_contain_text(before.split()[-1])  # another one than now
    ways = [each.get_attribute("title") for each in explorer.trail.all()]
    assert ways and not [way for way in ways if "mine" in way]


def test_heatmaps(notebook):
    explorer = ExplorerPage(notebook, HEAT)
    scores = explorer.root.locator(".dh-scores")
    for subject in ("bit 3", "gate layer1.0"):
        before = scores.inner_text()
        explorer.select("map", subject)
        expect(scores).not_to_have_text(before)
    expect(scores).to_contain_text("The query's gate goes from")
    explorer.wheel.press("Shift+ArrowLeft")
    expect(scores).to_contain_text("follows the turn with correlation")
    chart = explorer.root.get_by_role("img", name="correlation with the unturned map")
    explorer.button("compare the map at every 30 degrees").dblclick()  # it turns once all the same
    expect(chart).to_have_attribute("aria-label", re.compile("at 330°"))
    expect(explorer.degrees).to_have_text("15°")
    explorer.select("map", "match with the hit")  # one curve, whatever hits other angles have
    explorer.button("compare the map at every 30 degrees").click()
    expect(chart).to_have_attribute("aria-label", re.compile("at 30°.* at 330°"))
    explorer.button("hit 3").click()
    expect(explorer.root.get_by_text("hit 3:")).to_be_visible()


def test_the_loss_is_that_of_the_package(notebook):
    explorer = ExplorerPage(notebook, LOSS)
    dot = explorer.root.get_by_role("slider", name="copy turned by 90 degrees")
    dot.press("PageUp")
    explorer.root.get_by_label("γ, the scale").fill("0.3")
    copies = np.array([0.9, 0.3, 0.2, 0.2])
    rows = explorer.root.locator("tbody tr").all_inner_texts()
    for kind, row in zip(PENALTIES, rows, strict=True):
        codes = torch.tensor(copies).view(4, 1, 1).requires_grad_()
        value = OrbitPenalty(kind, 0.3)(codes)
        value.backward()
        slope = penalty_curve(kind, 0.3, np.abs(copies - copies.mean())[:1])[1]
        shown = [float(text) for text in row.split("\t")[1:]]
        np.testing.assert_allclose(shown, [value.item(), slope[0], codes.grad[0].item()], atol=6e-4)


def test_guesses_are_committed_before_the_truth_is_shown(notebook):
    number, curve = ExplorerPage(notebook, NUMBER).root, ExplorerPage(notebook, CURVE).root
    number.get_by_label("guess", exact=True).fill("5")
    expect(number.locator(".dh-answer")).to_be_empty()
    number.get_by_role("button").click()
    expect(number.locator(".dh-answer")).to_have_text("You said 5, it is 3 ")
    curve.get_by_role("button").click()
    expect(curve.locator(".dh-answer")).to_contain_text("Draw from one end to the other")
    for key in ("ArrowUp", "ArrowRight", "ArrowRight"):  # without a mouse, too
        curve.locator("svg").press(key)
    expect(curve.locator("path").first).to_have_attribute("d", re.compile("M.*L.*L"))
    box = curve.locator("svg").bounding_box()
    notebook.mouse.move(box["x"] + 2, box["y"] + 150)
    notebook.mouse.down()
    notebook.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20, steps=5)
    notebook.mouse.up()
    curve.get_by_role("button").click()
    expect(curve.locator(".dh-answer")).to_contain_text("On average you are")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
@pytest.mark.parametrize("width", [1366, 900])
def test_nothing_overlaps_and_all_can_be_read(notebook, theme, width):
    notebook.evaluate(DARK, theme)
    notebook.set_viewport_size({"width": width, "height": 2000})
    notebook.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)
    notebook.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 500)))")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, name in enumerate(("retrieval", "heatmap", "loss", "guess", "curve")):
        explorer = ExplorerPage(notebook, number)
        explorer.root.scroll_into_view_if_needed()
        file = f"{name}-{width}-{theme.split()[1].lower()}.png"
        explorer.root.screenshot(path=SCREENSHOTS / file)
        if faults := explorer.faults():
            found[name] = faults
    assert found == {} and notebook.errors == []


def test_the_first_answer_does_not_wait_for_cells_that_still_run(page, server):
    """Whoever runs all cells of notebook 00 can turn the lesion while the others compute."""
    wait = (
        "import time\nfrom pathlib import Path\nwhile not Path('go').exists():\n    time.sleep(0.1)"
    )
    cells = SETUP, "RetrievalExplorer(model, index, dataset)", wait
    start_run(page, server, write_notebook(server, "busy.ipynb", *cells))
    expect(page.locator(".dh-hits img[src^=blob]")).to_have_count(10)
    explorer = ExplorerPage(page, 0)
    explorer.wheel.focus()
    explorer.wheel.press("r")
    expect(explorer.degrees).to_have_text("90°")
    expect(page.locator(".dh-hits img[src^=blob]")).to_have_count(10)
    assert page.locator(".jp-InputPrompt", has_text="[*]").count() == 1  # the cell still runs
    (server.folder / "go").touch()
    expect(page.locator(".jp-InputPrompt", has_text="[*]")).to_have_count(0)
