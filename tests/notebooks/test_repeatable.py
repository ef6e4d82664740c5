"""A notebook that is run again gives the same numbers."""

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NUMBER = re.compile(r"(?<![\w.#])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
# pandas draws ids at random, and its styles refer to them.
RANDOM = re.compile(r"<style.*?</style>|\b(?:id|class)=\"[^\"]*\"", re.DOTALL)


def numbers_of(path):
    """The numbers in the outputs of a notebook, code cell by code cell."""
    cells = nbformat.read(path, as_version=4).cells
    return [numbers(cell) for cell in cells if cell.cell_type == "code"]


def numbers(cell):
    """All numbers in the texts and tables of a cell's outputs."""
    texts = [output.get("text", "") for output in cell.outputs]
    texts += [
        RANDOM.sub("", output.data.get("text/html", output.data.get("text/plain", "")))
        for output in cell.outputs
        if "data" in output and not {"image/png", "image/jpeg"} & set(output.data)
    ]
    return [number for text in texts for number in NUMBER.findall(text)]


def test_numbers_are_found_in_texts_and_tables():
    table = '<style>#T_1 {color: #123}</style><td id="T_1f" class="col2" >0.25</td><td>1,024</td>'
    cell = nbformat.v4.new_code_cell(
        outputs=[
            nbformat.v4.new_output("stream", text="rank 3: -1.5e-07, layer1.0"),
            nbformat.v4.new_output("display_data", {"text/html": table, "text/plain": "<at 7>"}),
            nbformat.v4.new_output("display_data", {"image/png": "00", "text/plain": "9"}),
        ]
    )
    assert numbers(cell) == ["3", "-1.5e-07", "0.25", "1,024"]


@pytest.mark.slow
def test_a_notebook_gives_the_same_numbers_twice(tmp_path, run_here, monkeypatch):
    """In new kernels: the first run has an empty cache, the second one the cache of the first."""
    monkeypatch.setenv("DERM_HASH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    turns = []
    for folder in (tmp_path / "once", tmp_path / "twice"):
        folder.mkdir()
        for path in (*FOLDER.glob("01_*.ipynb"), *FOLDER.glob("02_*.ipynb")):
            shutil.copy(path, folder)
        assert run_here(folder, "--inplace") == 0
        turns.append([numbers_of(path) for path in sorted(folder.glob("*.ipynb"))])
    for first, second in zip(*turns, strict=True):
        assert sum(map(len, first)) > 20
        assert first == second
