"""One JupyterLab and one Chromium for all browser tests; a fresh page and kernel for each."""

import os
import shutil

import pytest
from labpage import CHROMIUM_FLAGS, ROOT, change, copy_course, jupyterlab
from playwright.sync_api import sync_playwright

from derm_hash.doctor import find_browser


@pytest.fixture(scope="session")
def browser():
    path = find_browser()
    if path is None:
        reason = "no Chromium or Chrome on this machine (`derm-hash doctor` says what to do)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with sync_playwright() as playwright:
        # With scrollbars, as a reader has them: Playwright would hide stray ones.
        browser = playwright.chromium.launch(
            executable_path=path, args=CHROMIUM_FLAGS, ignore_default_args=["--hide-scrollbars"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(browser, tmp_path_factory):
    """A JupyterLab on a copy of the course. It wants a browser first: without one, none starts."""
    home = tmp_path_factory.mktemp("jupyter")
    copy_course(ROOT / "notebooks", home / "notebooks")
    reproduction = home / "notebooks" / "08_reproduction.ipynb"
    change(reproduction, "seeds = (0, 1, 2, 3, 4)", "seeds = (0, 1)")
    # What a notebook shows of experiments that take hours lies beside the notebooks.
    shutil.copytree(ROOT / "benchmarks", home / "benchmarks")
    with jupyterlab(home / "notebooks", home) as server:
        yield server


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(120_000)  # a busy machine is slow, not broken
    yield context.new_page()
    context.close()
    server.shut_kernels_down()
