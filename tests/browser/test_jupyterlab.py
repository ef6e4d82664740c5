"""Every notebook of the course runs in JupyterLab as a reader would run it."""

import pytest
from labpage import ROOT, errors_shown, open_and_run, widget_outputs, widgets_drawn, write_notebook

pytestmark = [pytest.mark.slow, pytest.mark.browser]
COURSE = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))

BARS = """
from tqdm.auto import tqdm
for leave in (True, False):
    for _ in tqdm(range(3), leave=leave):
        pass
"""
SLIDER = """
import ipywidgets as widgets
slider = widgets.IntSlider(3, 0, 9, description="bits")
answer = widgets.Label()
slider.observe(lambda change: setattr(answer, "value", f"squared: {change.new**2}"), "value")
widgets.VBox([slider, answer])
"""


@pytest.mark.parametrize("name", COURSE)
def test_a_notebook_of_the_course(page, server, name):
    cells = open_and_run(page, server, name)
    assert errors_shown(page, cells) == []
    assert all(cell["execution_count"] for cell in cells)
    assert widgets_drawn(page) == len(widget_outputs(cells))


def test_a_widget_is_drawn_and_answers(page, server):
    cells = open_and_run(
        page, server, write_notebook(server, "slider.ipynb", BARS, SLIDER, "'the end'")
    )
    assert errors_shown(page, cells) == []
    assert [len(cell["outputs"]) for cell in cells] == [2, 1, 1]
    assert widgets_drawn(page) == len(widget_outputs(cells)) == 1
    handle = page.get_by_role("slider")
    handle.focus()
    handle.press("ArrowRight")
    page.get_by_text("squared: 16").wait_for()


def test_an_error_is_seen_and_the_run_stops_there(page, server):
    cells = open_and_run(page, server, write_notebook(server, "error.ipynb", "1", "1 / 0", "3"))
    [error] = errors_shown(page, cells)
    assert error.startswith("ZeroDivisionError: division by zero")
    assert [bool(cell["execution_count"]) for cell in cells] == [True, True, False]
