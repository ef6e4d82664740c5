"""Slides are made from the notebooks as they are, and open without a network."""

import base64
import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.exercises.notebooks import FOLDER

TEACHING = FOLDER.parents[1] / "docs" / "teaching"


@pytest.fixture
def slides(monkeypatch):
    monkeypatch.syspath_prepend(TEACHING)
    return __import__("slides")


def test_each_session_of_the_plan_has_slides_that_need_no_network(slides):
    plan = (TEACHING / "plan.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \|.*\| (.*) \|$", plan, re.MULTILINE)
    assert [number for number, _ in rows] == list(slides.sessions())
    for number, question in rows:
        session = slides.sessions()[number]
        assert session["question"] == question
        page = slides.page(number, session)
        ids = [each for value in session.values() if isinstance(value, list) for each in value]
        lessons = len(session) - 2
        assert page.count("<section>") == len(ids) + lessons + 2  # a title, questions, the question
        assert re.findall(r'(?:src|href)="(?!data:)[^"]*"|url\(|@import', page) == []
        assert "$$" not in page and "\\frac" not in re.sub(r"<annotation.*?</annotation>", "", page)


def test_a_picture_in_a_text_is_in_the_slide_which_shows_no_other_section(slides):
    gate = base64.b64encode((slides.NOTEBOOKS / "figures" / "gate.svg").read_bytes()).decode()
    text = "Before.\n\n## A\n\nThe [gate](there):\n\n![a gate, $x$](figures/gate.svg)\n\nAfter."
    cell = new_markdown_cell(text, id="gate")
    slide = slides.slide(new_notebook(cells=[cell]), "02", "gate")
    assert f'<img alt="a gate, $x$" src="data:image/svg+xml;base64,{gate}">' in slide
    assert "The gate:" in slide and "Before" not in slide and "After" not in slide


def test_a_slide_has_a_heading_a_text_and_what_the_cell_has_drawn(slides):
    picture = new_output("display_data", {"image/png": "AAAA", "text/plain": "<Figure>"})
    cells = [
        new_markdown_cell("## A *gate*\n\nWith $x^2$ and [a link](there).\n\n" + "long " * 99),
        new_code_cell("draw()", outputs=[picture]),
        new_code_cell("nothing()"),
    ]
    for cell, name in zip(cells, ("text", "drawn", "empty"), strict=True):
        cell["id"] = name
    notebook = new_notebook(cells=cells)
    slide = slides.slide(notebook, "02", "drawn")
    assert "<h2>A <em>gate</em></h2>" in slide and "and a link." in slide
    assert "<msup><mi>x</mi><mn>2</mn></msup>" in slide and "long" not in slide
    assert '<img alt="" src="data:image/png;base64,AAAA">' in slide
    assert "long" in slides.slide(notebook, "02", "text")
    for gone in ("empty", "missing"):
        with pytest.raises(LookupError, match=f"{gone}.*mend slides.toml"):
            slides.slide(notebook, "02", gone)
