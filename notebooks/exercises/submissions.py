"""What students hand in: find their notebooks, read them, and mend what nbgrader cannot read."""

import ast
import hashlib
import json
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat

from derm_hash.errors import InputError

LARGEST = 20 * 2**20  # bytes of a submission
# nbgrader looks folders up with a pattern, where other characters have a meaning.
PLAIN = re.compile(r"\w([\w.@+ -]*\w)?")
# What nbformat raises for what is no JSON, for JSON that is no notebook, for endless nesting.
NOT_A_NOTEBOOK = (nbformat.ValidationError, ValueError, LookupError, TypeError, AttributeError)
NOT_A_NOTEBOOK += (RecursionError,)


def file_of(folder: Path, name: str) -> Path:
    """Where a student's notebook lies: in a folder of the assignment or, as from Moodle, beside."""
    flat = folder / f"{name}.ipynb"
    return flat if flat.is_file() and not (folder / name).is_dir() else folder / name / flat.name


def student_id(folder: str) -> str:
    """A name of a student's folder for nbgrader, which has no commas, apostrophes or brackets."""
    if PLAIN.fullmatch(folder):
        return folder
    plain = re.sub(r"[^\w.@+ -]", "_", unicodedata.normalize("NFC", folder)).strip(" .@+-")
    return f"{plain}_{hashlib.sha256(folder.encode()).hexdigest()[:8]}"


def checked(folder: Path, exercises: Mapping[str, Path], name: str) -> nbformat.NotebookNode:
    """A student's submission of an assignment that nbgrader can work with, else `InputError`.

    ``folder`` is the student's, ``exercises`` leads from assignments to notebooks with solutions.
    """
    path = file_of(folder, name)
    if not path.is_file():
        strays = ", ".join(stray_notebooks(folder, name, exercises))
        found = f"; found {strays}: rename it if that is meant" if strays else ""
        raise InputError(f"There is no {name}/{name}.ipynb{found}")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path.name} is larger than 20 MB: ask for it without outputs")
    try:
        content = path.read_bytes()
        with warnings.catch_warnings(action="ignore"):  # about cells without ids, or with the same
            text = content.decode(json.detect_encoding(content))
            _, notebook = nbformat.validator.normalize(nbformat.reads(text, as_version=4))
            nbformat.validate(notebook)
    except NOT_A_NOTEBOOK as error:
        raise InputError(f"{path.name} is damaged: it is not a Jupyter notebook") from error
    if not ids(notebook) & ids(nbformat.read(exercises[name], as_version=4)):
        raise InputError(f"{path.name} holds no cell of this assignment: is it another one?")
    return notebook


def stray_notebooks(folder: Path, name: str, others: Iterable[str]) -> list[str]:
    """Notebooks of a student that may be the one that is missing from the folder `name`."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*.ipynb"))]
    elsewhere = {*others} - {name}
    return [
        path.as_posix()
        for path in paths
        if path.parts[0].removesuffix(".ipynb") not in elsewhere
        and ".ipynb_checkpoints" not in path.parts
    ]


def mark(cell) -> dict:
    """What nbgrader knows about a cell; empty where it knows nothing."""
    found = cell.metadata.get("nbgrader")
    return found if isinstance(found, dict) else {}


def ids(notebook) -> set[str]:
    """What nbgrader calls the cells that it knows, but for `setup`, which all exercises have."""
    return {str(mark(cell).get("grade_id")) for cell in notebook.cells if mark(cell)} - {"setup"}


def merge_doubled(notebook: nbformat.NotebookNode, release: Path) -> list[str]:
    """Make one cell of those that a copy or a split has given the same name.

    The pieces of an answer are put together where the first one stands; of a test, the last copy
    is kept, and of any other cell the first. Returns the names.
    """
    released = nbformat.read(release, as_version=4).cells
    stubs = {mark(cell).get("grade_id"): cell for cell in released}
    named, doubled = {}, []
    for cell in notebook.cells:
        if "grade_id" in mark(cell):
            named.setdefault(str(mark(cell)["grade_id"]), []).append(cell)
    for name, cells in named.items():
        if len(cells) == 1:
            continue
        stub = stubs.get(name, cells[0])
        pieces = [cell for cell in cells if cell.cell_type == stub.cell_type] or cells
        kept = pieces[-1 if mark(stub).get("grade") else 0]
        if mark(stub).get("solution"):
            kept.source = put_together([cell.source for cell in pieces], stub.source)
        left_out = {id(cell) for cell in cells} - {id(kept)}
        notebook.cells = [cell for cell in notebook.cells if id(cell) not in left_out]
        doubled.append(name)
    return doubled


def put_together(pieces: list[str], stub: str) -> str:
    """One answer from copies or parts of it; what does not differ from the stub is left out."""
    answers = [piece for piece in pieces if statements(piece) != statements(stub)] or pieces[:1]
    if not is_python("\n".join(answers)):
        answers = [piece for piece in answers if is_python(piece)] or answers
    return "\n".join(answers)


def statements(source: str) -> list[str]:
    """The lines of a cell without comments, indentation and empty lines."""
    lines = [line.strip() for line in source.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def is_python(source: str) -> bool:
    """Whether a text has the syntax of Python."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
