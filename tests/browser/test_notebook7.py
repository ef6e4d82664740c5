"""The retrieval explorer in Notebook 7."""

import pytest
from explorerpage import SETUP, ExplorerPage
from helpers import flat_png
from labpage import errors_shown, jupyterlab, open_and_run, write_notebook
from playwright.sync_api import expect

pytest.importorskip("notebook", reason="Notebook 7 is not installed: `make setup` installs it")
pytestmark = [pytest.mark.slow, pytest.mark.browser]
CELLS = (SETUP, "RetrievalExplorer(model, index, dataset, angle=90, radius=None)")


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    home = tmp_path_factory.mktemp("notebook7")
    (home / "notebooks").mkdir()
    context = browser.new_context(viewport={"width": 1366, "height": 900})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.errors = []
    own = "reading 'schema'"  # an error of Notebook 7's start, whatever the notebook holds
    page.on("pageerror", lambda e: own not in str(e) and page.errors.append(str(e)))
    with jupyterlab(home / "notebooks", home, app="notebook") as server:
        page.cells = open_and_run(page, server, write_notebook(server, "page.ipynb", *CELLS))
        yield page
        context.close()


def test_a_reader_turns_asks_and_uploads(page):
    explorer = ExplorerPage(page)
    assert errors_shown(page, page.cells) == []
    expect(explorer.degrees).to_have_text("90°")
    expect(explorer.hits).to_have_count(10)
    explorer.wheel.scroll_into_view_if_needed()
    explorer.drag(0, 45)
    expect(explorer.degrees).to_have_text("135°")
    explorer.wheel.press("r")  # in a notebook's command mode: a raw cell
    explorer.wheel.press("m")
    expect(explorer.degrees).to_have_text("225°")
    assert page.locator(".jp-CodeCell").count() == len(CELLS)
    name = explorer.hits.nth(2).get_attribute("title")
    explorer.hits.nth(2).click()
    expect(explorer.query).to_contain_text(f"{name}, from the database")
    explorer.upload("notes.txt", b"no image")
    expect(explorer.alert).to_contain_text("notes.txt is not an image")
    explorer.upload("mine.png", flat_png())
    expect(explorer.query).to_contain_text("mine, uploaded")
    assert explorer.faults() == [] and page.errors == []
