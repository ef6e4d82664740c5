"""The headless runner, on notebooks made for the purpose."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "notebooks" / "build.py"

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


@pytest.fixture
def folder(tmp_path):
    """Three notebooks: one with parameters, one that fails, one with widgets."""
    parameters = new_code_cell("images: int = 800\nsource, size = 'atlas', 64\nsource = 'atlas'")
    parameters.metadata["tags"] = ["parameters"]
    write(
        tmp_path / "00_first.ipynb",
        new_markdown_cell("# The *first* one\n\nNext: [second](01_second.ipynb)"),
        parameters,
        new_code_cell("print(images + 1, source)"),
        new_code_cell("import matplotlib.pyplot as plt\nplt.plot([1, 2]);"),
    )
    write(
        tmp_path / "01_second.ipynb",
        new_markdown_cell("# Second"),
        new_code_cell("before = 1"),
        new_code_cell("before / 0"),
        new_code_cell("'never'"),
    )
    write(
        tmp_path / "02_third.ipynb",
        new_markdown_cell("# Third"),
        new_code_cell(WIDGETS),
    )
    return tmp_path


def write(path, *cells):
    nbformat.write(new_notebook(cells=list(cells)), path)


def run(folder, *options):
    """Run the script as a user does; returns the finished process and the folder of pages."""
    pages = folder / "pages"
    command = [sys.executable, SCRIPT, "--notebooks", folder, "--out", pages, *options]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True), pages


@pytest.mark.slow
def test_the_whole_run(folder):
    before = {path.name: path.read_bytes() for path in folder.glob("*.ipynb")}
    done, pages = run(folder, "--parameters", "images=20", "source=data/my folder")
    assert done.returncode == 1

    # the failing notebook is reported with its cell and its error, and does not stop the others
    assert "01_second.ipynb, code cell 2 of 3:\n\nbefore / 0\n" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    status = dict(re.findall(r"^(\d\d_\w+)\.ipynb +(\w+) ", done.stdout, re.MULTILINE))
    assert status == {"00_first": "ok", "01_second": "FAILED", "02_third": "ok"}
    assert "1 of 3 notebooks failed: 01_second" in done.stdout

    # pages for all of them, and the files as they were
    index = (pages / "index.html").read_text()
    assert re.findall(r'class="(\w+)">(\w+)<', index) == [("ok",) * 2, ("failed",) * 2, ("ok",) * 2]
    assert 'href="00_first.html">The *first* one</a>' in index
    assert sorted(path.stem for path in pages.iterdir()) == ["00_first", *list(status)[1:], "index"]
    assert {path.name: path.read_bytes() for path in folder.glob("*.ipynb")} == before

    # the parameters arrived; figures and links are in the page
    first = (pages / "00_first.html").read_text()
    assert "21 data/my folder" in first
    assert "data:image/png;base64," in first
    assert 'href="01_second.html"' in first

    # of a widget, its picture or its text; of a progress bar, nothing
    third = (pages / "02_third.html").read_text().split("<main>")[-1]
    assert "data:image/png;base64,UElDVFVSRQ==" in third
    assert "IntSlider(value=3, description='bits')" in third
    assert "widget-view+json" not in third and "%|" not in third


@pytest.mark.slow
def test_saving_outputs_in_place(folder):
    (folder / "01_second.ipynb").unlink()
    done, _ = run(folder, "--inplace")
    assert done.returncode == 0, done.stderr
    saved = {path: path.read_text() for path in folder.glob("*.ipynb")}
    first = nbformat.reads(saved[folder / "00_first.ipynb"], as_version=4)
    code = [cell for cell in first.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3]
    assert code[1].outputs[0].text == "801 atlas\n"
    assert "(01_second.ipynb)" in first.cells[0].source, "links in the file stay links to notebooks"
    assert not any("execution" in cell.metadata for cell in code)
    assert first.metadata.kernelspec.name == "python3"

    # a second run writes the same bytes: nothing random or timed is kept
    done, _ = run(folder, "--inplace")
    assert {path: path.read_text() for path in folder.glob("*.ipynb")} == saved


@pytest.mark.slow
def test_a_failing_notebook_is_not_saved(folder):
    before = (folder / "01_second.ipynb").read_bytes()
    done, _ = run(folder, "--inplace", "--only", "01")
    assert done.returncode == 1
    assert (folder / "01_second.ipynb").read_bytes() == before


@pytest.mark.slow
def test_a_cell_that_takes_too_long_and_a_kernel_that_dies(tmp_path):
    write(tmp_path / "00_slow.ipynb", new_code_cell("import time"), new_code_cell("time.sleep(60)"))
    write(tmp_path / "01_dead.ipynb", new_code_cell("import os; os._exit(3)"))
    done, pages = run(tmp_path, "--timeout", 2)
    assert done.returncode == 1
    assert "00_slow.ipynb, code cell 2 of 2:\n\ntime.sleep(60)\n" in done.stderr
    assert "01_dead.ipynb, code cell 1 of 1:\n\nimport os; os._exit(3)\n" in done.stderr
    assert (pages / "index.html").read_text().count('class="failed"') == 2


def test_a_name_that_no_notebook_has_is_refused(build, folder):
    with pytest.raises(SystemExit, match="No parameters cell sets imagse"):
        build.main(["--notebooks", str(folder), "--out", str(folder), "--parameters", "imagse=1"])


def test_a_notebook_that_is_not_there(build, folder):
    with pytest.raises(SystemExit, match="no such notebook"):
        build.main(["--notebooks", str(folder), "--only", "07"])


@pytest.mark.parametrize("text", ["images", "=3", "a b=1"])
def test_malformed_assignments_are_refused(build, capsys, text):
    with pytest.raises(SystemExit):
        build.main(["--parameters", text])
    assert "is not NAME=VALUE" in capsys.readouterr().err


def test_in_place_and_parameters_exclude_each_other(build, capsys):
    with pytest.raises(SystemExit):
        build.main(["--inplace", "--parameters", "images=3"])
    assert "leave --parameters out" in capsys.readouterr().err


def test_values_are_python_literals_or_text(build):
    values = [build.assignment(text) for text in ("a=3", "b=0.5", "c=None", "d=x/y", "e=[1, 2]")]
    assert dict(values) == {"a": 3, "b": 0.5, "c": None, "d": "x/y", "e": [1, 2]}


def test_large_photographs_are_saved_as_jpeg_and_drawings_are_not(build):
    noise = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
    photograph = Image.fromarray(noise).resize((400, 300))  # smooth, of many colours
    drawing = Image.new("RGB", (2000, 1000), "white")
    drawing.paste("#0072b2", (300, 300, 600, 600))
    outputs = [
        new_output("display_data", {"image/png": as_png(picture), "text/plain": "<Figure>"})
        for picture in (photograph, photograph.resize((40, 30)), drawing)
    ]
    build.shrink_pictures(new_notebook(cells=[new_code_cell(outputs=outputs)]))
    kinds = ["image/jpeg", "image/png", "image/png"]  # a small photograph is small enough
    assert [{*output.data} - {"text/plain"} for output in outputs] == [{kind} for kind in kinds]
    jpeg = Image.open(io.BytesIO(base64.b64decode(outputs[0].data["image/jpeg"])))
    difference = np.asarray(jpeg, float) - np.asarray(photograph, float)
    assert jpeg.size == photograph.size and np.abs(difference).mean() < 8


def as_png(picture):
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_hidden_answer_stays_hidden_in_the_page(build, tmp_path):
    """nbconvert alone closes <details> after the summary and shows what should be hidden."""
    source = "Why?\n\n<details><summary>Answer</summary>\n\nBecause *so*.\n\n</details>\n\nOn."
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_markdown_cell(source)])
    build.write_page(notebook, tmp_path / "00_t.ipynb", tmp_path)
    page = (tmp_path / "00_t.html").read_text()
    hidden = re.search(r"<details>(.*?)</details>", page, re.DOTALL).group(1)
    assert "<summary>Answer</summary>" in hidden and "Because <em>so</em>." in hidden
    assert "HIDE" not in page and "On." not in hidden
