"""The lecturer's pages: they keep up with the course."""

import re

from tests.exercises.notebooks import EXERCISES, FOLDER, mark, read

PAGES = FOLDER.parents[1] / "docs" / "teaching"


def questions(path):
    """How many questions a lesson ends with."""
    text = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    return len(re.findall(r"^\d\. ", text.partition("**To think about**")[2], re.MULTILINE))


def test_every_question_of_the_course_is_answered():
    sections = re.split(r"^## ", (PAGES / "answers.md").read_text("utf-8"), flags=re.MULTILINE)
    answered = {s[:2]: len(re.findall(r"^\d\. ", s, re.MULTILINE)) for s in sections[1:]}
    lessons = sorted(FOLDER.parent.glob("[0-9]*.ipynb"))
    assert answered == {path.name[:2]: questions(path) for path in lessons}


def test_the_table_of_assignments_is_that_of_the_notebooks():
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| (\d+) \| (\d*) ?\| (\d+) \|$",
        (PAGES / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == [path.stem for path in EXERCISES]
    for path, (_, total, hand, minutes) in zip(EXERCISES, rows, strict=True):
        asked = [mark(cell) for cell in read(path).cells if mark(cell).get("grade")]
        assert sum(cell["points"] for cell in asked) == int(total)
        assert sum(cell["points"] for cell in asked if cell["solution"]) == int(hand or 0)
        assert f"about {minutes} minutes" in read(path).cells[0].source


def test_links_lead_somewhere():
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
            assert target.startswith("https://") or (PAGES / target).exists(), target
