"""The headless runner, on notebooks made for the purpose."""

import base64
import html
import io
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
from helpers import KERNELSPEC, encoded
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tests.notebooks.conftest import SCRIPT

WIDGETS = """
import ipywidgets as widgets
from tqdm.auto import tqdm

class Chart(widgets.VBox):
    def _repr_mimebundle_(self, **kwargs):
        return super()._repr_mimebundle_(**kwargs) | {"image/png": "UElDVFVSRQ=="}

for _ in tqdm(range(3), "a bar"):
    pass
display(Chart())
widgets.IntSlider(3, description="bits")
""".strip()
PARAMETERS = "images: int = 800\nsource = 'atlas'  # or a folder\nseeds = (0, 1)"


@pytest.fixture
def folder(tmp_path):
    """Three notebooks: one with parameters, one that fails, one with widgets."""
    parameters = new_code_cell(PARAMETERS)
    parameters.metadata["tags"] = ["parameters"]
    write(
        tmp_path / "00_first.ipynb",
        new_markdown_cell("# The first one\n\nNext: [second](01_second.ipynb)"),
        parameters,
        new_code_cell("print(images + 1, source, sum(seeds))"),
        new_code_cell("import matplotlib.pyplot as plt\nplt.plot([1, 2]);"),
    )
    write(
        tmp_path / "01_second.ipynb",
        new_markdown_cell("# Second"),
        new_code_cell("before = 1"),
        new_code_cell("before / 0"),
        new_code_cell("'never'"),
    )
    write(tmp_path / "02_third.ipynb", new_markdown_cell("# Third"), new_code_cell(WIDGETS))
    return tmp_path


def write(path, *cells):
    nbformat.write(new_notebook(cells=list(cells), metadata=KERNELSPEC), path)


def run(folder, *options, **environment):
    """Run the script as a user does; returns the finished process and the folder of pages."""
    pages = folder / "pages"
    command = [sys.executable, SCRIPT, "--notebooks", folder, "--out", pages, *options]
    command = [str(part) for part in command]
    env = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, env=env), pages


@pytest.mark.slow
def test_the_whole_run(folder):
    before = {path.name: path.read_bytes() for path in folder.glob("*.ipynb")}
    # A kernel that the user has installed under the usual name, and that does not start.
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["no-such-program"], "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    values = ["--parameters", "images=20", 'source=data/my "folder"', "seeds=(3, 4)"]
    done, pages = run(folder, *values, JUPYTER_PATH=str(folder / "jupyter"), MPLBACKEND="Agg")
    assert done.returncode == 1

    # the failing notebook is reported with its cell and its error, and does not stop the others
    assert "01_second.ipynb, code cell 2 of 3:\n\nbefore / 0\n" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    status = dict(re.findall(r"^(\d\d_\w+)\.ipynb +(\w+) ", done.stdout, re.MULTILINE))
    assert status == {"00_first": "ok", "01_second": "FAILED", "02_third": "ok"}
    assert "1 of 3 notebooks failed: 01_second" in done.stdout

    # pages for all of them, and the files as they were
    index = (pages / "index.html").read_text()
    cells = re.findall(r"<td>(?:<a href=\"(.*?)\">(.*?)</a>|(\w+))</td>", index)
    assert cells == [
        ("00_first.html", "The first one", ""), ("", "", "ok"),
        ("01_second.html", "Second", ""), ("", "", "FAILED"),
        ("02_third.html", "Third", ""), ("", "", "ok"),
    ]  # fmt: skip
    assert sorted(path.stem for path in pages.iterdir()) == [*sorted(status), "index"]
    assert {path.name: path.read_bytes() for path in folder.glob("*.ipynb")} == before

    # the parameters arrived; figures and links are in the page
    first = (pages / "00_first.html").read_text()
    assert '21 data/my "folder" 7' in first
    assert "data:image/png;base64," in first
    assert 'href="01_second.html"' in first

    # of a widget, its picture or its text; of a progress bar, nothing
    third = (pages / "02_third.html").read_text().split("<main>")[-1]
    assert "data:image/png;base64,UElDVFVSRQ==" in third
    assert "IntSlider(value=3, description='bits')" in third
    assert "widget-view+json" not in third and "%|" not in third


@pytest.mark.slow
def test_saving_outputs_in_place(folder, run_here):
    failing = (folder / "01_second.ipynb").read_bytes()
    assert run_here(folder, "--inplace") == 1
    saved = {path: path.read_text() for path in folder.glob("*.ipynb")}
    assert (folder / "01_second.ipynb").read_bytes() == failing, "what fails is not saved"
    first = nbformat.reads(saved[folder / "00_first.ipynb"], as_version=4)
    nbformat.validate(first)
    code = [cell for cell in first.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3]
    assert [cell.metadata for cell in code] == [{"tags": ["parameters"]}, {}, {}]
    assert code[1].outputs[0].text == "801 atlas 1\n"
    assert "(01_second.ipynb)" in first.cells[0].source, "links in the file stay links to notebooks"
    assert first.metadata.keys() == {"kernelspec", "language_info"}
    assert first.metadata.kernelspec.name == "python3"

    # a second run writes the same bytes: nothing random or timed is kept
    assert run_here(folder, "--inplace", "--only", "00", "--only", "02") == 0
    assert {path: path.read_text() for path in folder.glob("*.ipynb")} == saved


def test_a_kernel_starts_in_the_folder_and_the_script_stays_where_it_is(build, tmp_path):
    """Two notebooks run at a time: a change of folder would move the other one's kernel."""
    write(tmp_path / "00_here.ipynb", new_code_cell("import os; print(os.getcwd())"))
    here, places = Path.cwd(), set()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(build.run, tmp_path / "00_here.ipynb", {}, 60)
        while not running.done():
            places.add(Path.cwd())
    notebook, error = running.result()
    assert error is None and notebook.cells[0].outputs[0].text == f"{tmp_path}\n"
    assert places == {here}


@pytest.mark.slow
def test_a_cell_that_takes_too_long_and_a_kernel_that_dies(tmp_path, run_here, capsys):
    write(tmp_path / "00_slow.ipynb", new_code_cell("import time"), new_code_cell("time.sleep(60)"))
    write(tmp_path / "01_dead.ipynb", new_code_cell("import os; os._exit(3)"), new_code_cell("1"))
    assert run_here(tmp_path, "--timeout", 2) == 1
    error = capsys.readouterr().err
    assert "00_slow.ipynb, code cell 2 of 2:\n\ntime.sleep(60)\n" in error
    assert "01_dead.ipynb, code cell 1 of 2:\n\nimport os; os._exit(3)\n" in error
    assert (tmp_path / "pages" / "index.html").read_text().count("<td>FAILED</td>") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parameters", "imagse=1"], "no parameters cell sets imagse"),
        (["--only", "07"], "no such notebook"),
        (["--parameters", "images"], "'images' is not NAME=VALUE"),
        (["--parameters", "=3"], "'=3' is not NAME=VALUE"),
        (["--parameters", "a b=1"], "'a b=1' is not NAME=VALUE"),
        (["--inplace", "--parameters", "images=3"], "leave --parameters out"),
    ],
)
def test_a_wrong_command_line_is_refused(build, folder, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        build.main(["--notebooks", str(folder), "--out", str(folder), *options])
    assert message in str(stopped.value) + capsys.readouterr().err


def test_values_are_python_literals_or_text(build):
    values = [build.assignment(text) for text in ("a=3", "b=0.5", "c=None", "d=x/y", "e=[1, 2]")]
    assert dict(values) == {"a": 3, "b": 0.5, "c": None, "d": "x/y", "e": [1, 2]}


def test_large_photographs_are_saved_as_jpeg_and_drawings_are_not(build):
    noise = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
    photograph = Image.fromarray(noise).resize((400, 300))  # smooth, of many colours
    drawing = Image.new("RGB", (2000, 1000), "white")
    drawing.paste("#0072b2", (300, 300, 600, 600))
    pictures = (photograph, photograph.resize((40, 30)), drawing)
    texts = [base64.b64encode(encoded(picture, "PNG")).decode() for picture in pictures]
    outputs = [new_output("display_data", {"image/png": t, "text/plain": "<>"}) for t in texts]
    build.shrink_pictures(new_notebook(cells=[new_code_cell(outputs=outputs)]))
    kinds = ["image/jpeg", "image/png", "image/png"]  # a small photograph is small enough
    assert [{*output.data} - {"text/plain"} for output in outputs] == [{kind} for kind in kinds]
    jpeg = Image.open(io.BytesIO(base64.b64decode(outputs[0].data["image/jpeg"])))
    difference = np.asarray(jpeg, float) - np.asarray(photograph, float)
    assert jpeg.size == photograph.size and np.abs(difference).mean() < 8


def test_the_alternative_text_of_a_picture_is_in_the_page_also_where_it_became_a_jpeg(
    build, tmp_path
):
    noise = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
    large = encoded(Image.fromarray(noise).resize((400, 300)), "PNG")
    alt = {"image/png": {"alt": "precision < 0.5 & falling"}}
    output = new_output(
        "display_data", {"image/png": base64.b64encode(large).decode()}, metadata=alt
    )
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell(outputs=[output])])
    build.shrink_pictures(notebook)
    build.write_page(notebook, tmp_path / "00_t.html")
    page = (tmp_path / "00_t.html").read_text()
    assert html.unescape(page).count('<img alt="precision < 0.5 & falling"') == 1
    assert "data:image/jpeg" in page


def test_a_hidden_answer_stays_hidden_in_the_page(build, tmp_path):
    source = "Why?\n\n<details><summary>Answer</summary>\n\nBecause *so*.\n\n</details>\n\nOn."
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_markdown_cell(source)])
    assert build.write_page(notebook, tmp_path / "00_t.html") == "T"
    page = (tmp_path / "00_t.html").read_text()
    hidden = re.search(r"<details>(.*?)</details>", page, re.DOTALL).group(1)
    assert "<summary>Answer</summary>" in hidden and "Because <em>so</em>." in hidden
    assert "On." not in hidden


FETCHED = re.compile(  # scripts, styles and pictures from elsewhere; links do not count
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*"
    r"|\bimport\b[^;]{0,200}https?:|url\(.?http"
)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
CODE, FORMULA = r"```.*?```|`[^`\n]*`", r"\$\$.+?\$\$|\$[^$\n]+\$"


@pytest.mark.parametrize("path", sorted(SCRIPT.parent.glob("0*.ipynb")), ids=lambda path: path.stem)
def test_a_page_needs_no_network_and_no_other_file_and_its_formulas_are_drawn(
    build, path, tmp_path
):
    notebook = nbformat.read(path, as_version=4)
    prose = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    formulas = len(re.findall(FORMULA, re.sub(CODE, "", prose, flags=re.S), flags=re.S))
    for cell in notebook.cells:
        formulas += sum(
            "text/latex" in output.get("data", {}) for output in cell.get("outputs", ())
        )
    build.write_page(notebook, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert FETCHED.findall(page) == []
    assert re.findall(r'<img\b[^>]*\bsrc="(?!data:)[^"]*', page) == []
    for alt, name in PICTURE.findall(prose):
        drawing = base64.b64encode((path.parent / name).read_bytes()).decode()
        image = f'<img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{drawing}"'
        assert len(alt) > 40 and page.count(image) == 1, f"{name}: what does the picture show?"
    drawn = re.findall(r"<math\b.*?</math>", page, flags=re.S)
    assert len(drawn) == formulas
    assert [each for each in drawn if "\\" in each] == []


def test_the_rule_for_what_is_fetched_finds_it():
    for text in ('<script src="https://a.org/x.js">', "import x from 'https://a.org/x.mjs'"):
        assert FETCHED.search(text)
    assert not FETCHED.search('<a href="https://a.org">')
