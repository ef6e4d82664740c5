"""What every notebook of the course has in common, read from the files without running them.

The course is committed with its outputs, so that it can be read where it cannot be run.
"""

import re
import shlex
import subprocess
import symtable
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import nbformat
import papermill
import pytest
from IPython.core.inputtransformer2 import TransformerManager

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
COURSE = sorted(FOLDER.glob("[0-9]*.ipynb"))
OTHERS = [
    *sorted((FOLDER / "exercises").glob("*.ipynb")),
    *sorted((FOLDER / "app").glob("*.ipynb")),
]
ABSOLUTE = re.compile(r"(?<![\w.:/])/(home|root|work|tmp|usr|opt|mnt|Users|content)/|\b[A-Z]:\\\w")
SOLUTION = re.compile(r"### BEGIN SOLUTION.*?### END SOLUTION", re.DOTALL)
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", re.DOTALL)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

PICTURES = {"image/png", "image/jpeg"}
LARGEST = 1_000_000  # bytes of a notebook with its outputs
REFRESH = "run `make notebooks`, which saves the outputs of a clean run, and commit what it writes"

each = pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)


def cells(path, kind):
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def prose(path):
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell.outputs]


def test_there_are_eleven():
    assert [path.name[:2] for path in COURSE] == [f"{i:02}" for i in range(11)]


@each
def test_it_is_a_valid_notebook_for_the_python_kernel(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    # Without this JupyterLab asks for a kernel before anything runs.
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@each
def test_it_has_the_parts_of_a_lesson(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    opening = "\n".join(cell.source for cell in cells(path, "markdown")[:3])
    assert re.search(r"\blearn", opening, re.IGNORECASE), "what will the reader learn?"
    assert re.search(r"\d\s+(minutes|min)\b", opening), "how many minutes does it take?"
    assert re.search(r"\bpredict\b", prose(path), re.IGNORECASE), "what does the reader predict?"
    assert prose(path).count("<details>") == prose(path).count("</details>") > 0, "no hidden answer"
    headings = re.findall(r"^#+ (.+)", prose(path), re.MULTILINE)
    assert any("recap" in heading.lower() for heading in headings[-3:]), headings
    _, _, questions = prose(path).partition("**To think about**")
    assert len(re.findall(r"^\d\. .+\?", questions, re.MULTILINE)) in (2, 3)


@each
def test_it_links_to_its_neighbours_to_files_that_exist_and_to_a_paper(path):
    targets = re.findall(r"\]\(([^)\s#]+)", prose(path))
    i = COURSE.index(path)
    neighbours = {*COURSE[max(i - 1, 0) : i], *COURSE[i + 1 : i + 2]}
    assert {neighbour.name for neighbour in neighbours} <= {*targets}
    files = [target for target in targets if not re.match(r"https?:|mailto:|attachment:", target)]
    assert [target for target in files if not (FOLDER / target).exists()] == []
    papers = r"https://(doi\.org|arxiv\.org|openaccess\.thecvf\.com)/"
    assert any(re.match(papers, target) for target in targets)


@pytest.mark.parametrize("path", COURSE[:9], ids=lambda path: path.stem)
def test_it_follows_the_query_lesion(path):
    code = [cell.source for cell in cells(path, "code")]
    (parameters,) = (source for source in code if re.search(r"^data = ", source, re.MULTILINE))
    assert "follow = None  # number of a query; None: the lesion of this course" in parameters
    assert any(re.search(r"^query = course_query\(\w+, follow\)", s, re.M) for s in code)
    assert any(re.search(r"\bquery\b", source) for source in code if source != parameters)
    assert re.search(r"\bour query\b|\b[Qq]uery lesion\b", prose(path))


INSTALL = cells(COURSE[0], "code")[0].source


@each
def test_its_first_code_cell_is_the_one_that_installs_the_package(path):
    assert cells(path, "code")[0].source == INSTALL


def test_that_cell_calls_pip_only_where_the_package_is_missing(monkeypatch, tmp_path):
    calls = []
    shell = SimpleNamespace(run_line_magic=lambda name, line: calls.append((name, line)))
    code = TransformerManager().transform_cell(INSTALL)
    exec(code, {"get_ipython": lambda: shell})
    assert calls == []
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        exec(code, {"get_ipython": lambda: shell})
    ((name, line),) = calls
    assert name == "pip" and line.startswith('install -q "..[lab]"')

    # IPython hands the line to a shell. Here the folder above is no checkout.
    (tmp_path / "content").mkdir()
    command = f"{shlex.quote(sys.executable)} -m pip --disable-pip-version-check {line}"
    done = subprocess.run(
        command, shell=True, cwd=tmp_path / "content", capture_output=True, text=True
    )
    assert "is not installable" in done.stderr
    assert done.stdout.strip() == "First run !git clone ADDRESS and %cd derm-hash/notebooks"


@each
def test_one_cell_sets_parameters_that_papermill_can_replace(path):
    tagged = [c for c in cells(path, "code") if "parameters" in c.metadata.get("tags", ())]
    (source,) = (cell.source for cell in tagged)
    assert papermill.inspect_notebook(path).keys() == names(source)[0]


@pytest.mark.parametrize("path", [*COURSE, *OTHERS], ids=lambda path: path.stem)
def test_code_cells_are_short(path):
    sources = [cell.source for cell in cells(path, "code")]
    assert max(len(source.splitlines()) for source in sources) <= 25
    # Students get an exercise without its hidden tests and its solutions.
    given = [re.sub(HIDDEN, "", re.sub(SOLUTION, "...", source)).strip() for source in sources]
    assert median(len(source.splitlines()) for source in given) <= 8


def names(source):
    """The names that a cell sets at its top level, and those that it uses from other cells."""
    python = re.sub(r"^( *)[%!].*", r"\1pass", source, flags=re.MULTILINE)
    top = symtable.symtable(python, "cell", "exec")
    tables, taken = [top], set()
    for table in tables:  # grows while it is walked: functions in functions
        tables += table.get_children()
        taken |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    made = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    return made, taken - made


def test_names_that_a_cell_sets_and_uses():
    source = "%matplotlib inline\nfor i in rows:\n    %cd {i}\n    x = f(i)\n"
    source += "def g(a):\n    return a + b + x"
    assert names(source) == ({"i", "x", "g"}, {"rows", "f", "b"})


@each
def test_a_cell_can_be_run_again_at_any_time(path):
    """No cell uses a name that two other cells set, since it would get the last value."""
    everything = [names(cell.source) for cell in cells(path, "code")]
    often = Counter(name for made, _ in everything for name in made)
    taken = set().union(*(taken for _, taken in everything))
    assert {name for name in taken if often[name] > 1} == set()


@each
@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_it_passes_ruff(path, command):
    ruff = [sys.executable, "-m", "ruff", *command, "--quiet", str(path)]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@each
def test_it_shows_no_path_of_a_machine(path):
    shown = [str(output) for output in outputs(path)]
    text = "\n".join([prose(path), *(cell.source for cell in cells(path, "code")), *shown])
    text = re.sub(r"'image/(png|jpeg)': '[^']*'|base64,[A-Za-z0-9+/=]*", "", text)
    found = ABSOLUTE.search(text)
    assert found is None, text[max(found.start() - 80, 0) : found.end() + 80]


# --- the saved outputs -------------------------------------------------------------------


@each
def test_it_was_run_once_from_top_to_bottom_without_errors(path):
    counts = [cell.execution_count for cell in cells(path, "code") if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1)), f"{path.name}: {REFRESH}"
    kinds = [output.output_type for output in outputs(path)]
    assert "error" not in kinds, f"{path.name} ended with an error: put it right and {REFRESH}"
    shown = [output for output in outputs(path) if PICTURES & set(output.get("data", {}))]
    assert shown, f"{path.name} has no figure in its outputs: {REFRESH}"
    size = path.stat().st_size
    assert size <= LARGEST, f"{path.name} has {size:,} bytes: show less, or smaller; then {REFRESH}"


@each
def test_its_outputs_hold_no_progress_bars_and_no_warnings(path):
    streams = [output for output in outputs(path) if output.output_type == "stream"]
    texts = [output.text for output in streams]
    texts += ["".join(output.get("data", {}).get("text/plain", "")) for output in outputs(path)]
    litter = [text for text in texts if re.search(r"\d%\||it/s\]|\r", text)]
    assert litter == [], f"{path.name}: {REFRESH}"
    warnings = [output.text for output in streams if output.name == "stderr"]
    assert warnings == [], f"{path.name}: let it print no warnings, then {REFRESH}"


@each
def test_its_widgets_have_pictures_in_their_place(path):
    """A widget is dead without its kernel; a picture is not."""
    data = [output.get("data", {}) for output in outputs(path)]
    assert not any(WIDGET_VIEW in each for each in data), f"{path.name}: {REFRESH}"
    assert "widgets" not in nbformat.read(path, as_version=4).metadata, f"{path.name}: {REFRESH}"
    explorers = sum(re.search(r"^\w+Explorer\(", c.source, re.M) is not None
                    for c in cells(path, "code"))  # fmt: skip
    stills = [each for each in data if "Explorer" in each.get("text/plain", "")]
    assert len(stills) == explorers, f"{path.name}: {REFRESH}"
    assert all(PICTURES & set(each) for each in stills), f"{path.name}: {REFRESH}"


@each
def test_every_picture_has_an_alternative_text(path):
    """In the metadata, where IPython keeps it and the pages of `make walkthrough` take it from."""
    shown = [output for output in outputs(path) if PICTURES & set(output.get("data", {}))]
    texts = [output.metadata.get(*PICTURES & set(output.data), {}).get("alt") for output in shown]
    assert all(texts), f"{path.name}: {REFRESH}"
