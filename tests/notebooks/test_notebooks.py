"""What every notebook of the course has in common, read from the files without running them."""

import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
COURSE = sorted(FOLDER.glob("[0-9]*.ipynb"))
ABSOLUTE = re.compile(r"(?<![\w.:/])/(home|root|work|tmp|usr|opt|mnt|Users|content)/|\b[A-Z]:\\\w")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

each = pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)


def cells(path, kind):
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def prose(path):
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell.outputs]


def test_there_are_nine():
    assert [path.name[:2] for path in COURSE] == [f"{i:02}" for i in range(9)]


@each
def test_it_is_a_valid_notebook_for_the_python_kernel(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    # Without this JupyterLab asks for a kernel before anything runs.
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@each
def test_it_opens_with_a_title_what_one_learns_and_how_long_it_takes(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    opening = "\n".join(cell.source for cell in cells(path, "markdown")[:3])
    assert re.search(r"\blearn", opening, re.IGNORECASE), "what will the reader learn?"
    assert re.search(r"\d\s+(minutes|min)\b", opening), "how many minutes does it take?"


@each
def test_it_ends_with_a_recap(path):
    headings = re.findall(r"^#+ (.+)", prose(path), re.MULTILINE)
    assert any("recap" in heading.lower() for heading in headings[-3:]), headings


@each
def test_it_links_to_its_neighbours(path):
    i = COURSE.index(path)
    for neighbour in {*COURSE[max(i - 1, 0) : i], *COURSE[i + 1 : i + 2]}:
        assert f"({neighbour.name})" in prose(path)


@each
def test_its_links_to_files_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)\s#]+)", prose(path))
    files = [target for target in targets if not re.match(r"https?:|mailto:|attachment:", target)]
    assert [target for target in files if not (FOLDER / target).exists()] == []


@each
def test_one_cell_sets_the_parameters(path):
    tags = [cell.metadata.get("tags", []) for cell in cells(path, "code")]
    assert sum("parameters" in tag for tag in tags) == 1


@each
def test_code_cells_are_short(path):
    lengths = [len(cell.source.splitlines()) for cell in cells(path, "code")]
    assert median(lengths) <= 8
    assert max(lengths) <= 25


@each
@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff_has_nothing_to_say(path, command):
    ruff = [sys.executable, "-m", "ruff", *command, "--quiet", str(path)]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each
def test_no_path_of_somebodys_machine(path):
    shown = [str(output) for output in outputs(path)]
    text = "\n".join([prose(path), *(cell.source for cell in cells(path, "code")), *shown])
    text = re.sub(r"'image/png': '[^']*'|base64,[A-Za-z0-9+/=]*", "", text)
    found = ABSOLUTE.search(text)
    assert found is None, text[max(found.start() - 80, 0) : found.end() + 80]


@each
def test_saved_outputs_hold_neither_errors_nor_dead_widgets(path):
    assert [output for output in outputs(path) if output.output_type == "error"] == []
    assert [output for output in outputs(path) if WIDGET_VIEW in output.get("data", {})] == []
