"""What students hand in: find their notebooks, read them, and put their answers in order."""

import ast
import hashlib
import json
import re
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import nbformat
import pandas as pd

from derm_hash.errors import InputError, one_line

SOLUTION = re.compile(r"### BEGIN SOLUTION.*?### END SOLUTION", re.DOTALL)
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS", re.DOTALL)
# Ada Lovelace_1234_assignsubmission_file_/..., and lovelaceada_LATE_1234_5678_02_attention_gate
MOODLE = re.compile(r"(?P<student>.+?)_(?P<id>\d+)_assignsubmission_file_?")
CANVAS = re.compile(r"(?P<student>.+?)(_LATE)?_(?P<id>\d+)_\d+")
LARGEST = 20 * 2**20  # bytes of a submission
# Frames, source lines and objects of others, by which a function could read the test that calls it.
PEEKING = {"_getframe", "currentframe", "f_back", "f_code", "f_globals", "f_locals", "linecache"}
PEEKING |= {"get_ipython", "get_objects", "get_referrers", "setprofile", "settrace", "tb_frame"}
PLAIN = re.compile(r"\w([\w.@+ -]*\w)?")
# What nbformat raises for what is no JSON, for JSON that is no notebook, for endless nesting.
NOT_A_NOTEBOOK = (nbformat.ValidationError, ValueError, LookupError, TypeError, AttributeError)
NOT_A_NOTEBOOK += (RecursionError,)


def file_of(folder: Path, name: str) -> Path:
    """Where a student's notebook lies: in a folder of the assignment or, as from Moodle, beside."""
    flat = folder / f"{name}.ipynb"
    return flat if flat.is_file() and not (folder / name).is_dir() else folder / name / flat.name


def student_id(folder: str) -> str:
    """A name of a student's folder without commas, apostrophes and brackets."""
    if PLAIN.fullmatch(folder):
        return folder
    plain = re.sub(r"[^\w.@+ -]", "_", unicodedata.normalize("NFC", folder)).strip(" .@+-")
    return f"{plain}_{hashlib.sha256(folder.encode()).hexdigest()[:8]}"


def checked(folder: Path, exercises: Mapping[str, Path], name: str) -> nbformat.NotebookNode:
    """A student's submission of an assignment, else `InputError`.

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
    """What nbgrader calls the cells that it knows, but for those that all exercises have."""
    shared = {"setup", "check", "helpers"}
    return {str(mark(cell).get("grade_id")) for cell in notebook.cells if mark(cell)} - shared


def assemble(
    submitted: nbformat.NotebookNode, source: nbformat.NotebookNode
) -> tuple[nbformat.NotebookNode, list[str]]:
    """The lecturer's notebook with a student's answers, and sentences about what was mended.

    The lecturer's cells are those of ``source``, hidden tests included, in its order, and the one
    that prepares comes first; the student's own cells follow the one that they followed. Of a
    copied or split answer the pieces are put together.
    """
    known = {mark(cell)["grade_id"]: cell for cell in source.cells if mark(cell)}
    pieces, own, last = {}, {"": []}, ""
    for cell in submitted.cells:
        name = str(mark(cell).get("grade_id"))
        if name in known:
            pieces.setdefault(name, []).append(cell)
            last = name
        elif cell.cell_type == "code" and cell.source not in {c.source for c in source.cells}:
            own.setdefault(last, []).append(cell)
    cells, first = [], own.pop("")
    for name, cell in known.items():
        if mark(cell).get("solution"):
            same = [c.source for c in pieces.get(name, ()) if c.cell_type == cell.cell_type]
            same = same or [c.source for c in pieces.get(name, ())]
            stub = re.sub(SOLUTION, "raise NotImplementedError()", cell.source)
            cell.source = put_together(same, stub) if same else ""
        prepares = mark(cell).get("locked") and not mark(cell).get("grade")
        cells += [cell, *first] if prepares else [*first, cell]
        cells += own.get(name, ())
        first = []
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    source.cells = cells
    return source, list(mended(pieces, known))


def mended(pieces: dict[str, list], known: dict) -> Iterator[str]:
    """What a lecturer should know about the cells that came back."""
    if doubled := [name for name, cells in pieces.items() if len(cells) > 1]:
        yield f"Doubled cells were merged: {', '.join(doubled)}"
    shown = {
        name: [statements(re.sub(HIDDEN, "", cell.source)), statements(cell.source)]
        for name, cell in known.items()
        if mark(cell).get("grade") and not mark(cell).get("solution")
    }
    found = {name: statements(cells[-1].source) for name, cells in pieces.items()}
    for what, names in {
        "deleted": [name for name in shown if name not in found],
        "changed": [name for name in shown if found.get(name, shown[name][0]) not in shown[name]],
    }.items():
        if names:
            yield f"Tests that were {what}, and put back: {', '.join(names)}"


def peeks(notebook: nbformat.NotebookNode) -> set[str]:
    """What a student's cells use that no answer needs, and that could show the tests."""
    found = set()
    for cell in notebook.cells:
        if cell.cell_type == "code" and not mark(cell).get("locked") and is_python(cell.source):
            for node in ast.walk(ast.parse(cell.source)):
                found |= {getattr(node, "id", ""), getattr(node, "attr", "")}
                if isinstance(node, ast.Import | ast.ImportFrom):
                    found |= {part for each in node.names for part in each.name.split(".")}
    return found & PEEKING


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


def collect(download: Path, to: Path, exercises: Iterable[str]) -> list[str]:
    """Sort a download into ``to``/STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb, with the ids in a table.

    ``download`` is a ZIP file or a folder, as Moodle or Canvas make them, or flat with names like
    ``ada_02_attention_gate.ipynb``. Of several copies the newest counts. Returns a sentence for
    each file that was left out, and a count; InputError where nothing fits.
    """
    names, left_out, students = list(exercises), [], {}
    count = 0
    for label, _, read in sorted(members(download), key=lambda member: (member[1], member[0])):
        found = owner(label, names)
        if ".ipynb_checkpoints" in label:
            continue
        if found is None:
            left_out.append(f"{label}: left out, for its name is that of no assignment")
            continue
        student, number, name = found
        path = to / student / name / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read())
        students[student] = (number, re.sub(r"[_ ]+", " ", student))
        count += 1
    if not count:
        raise InputError(f"{download} has no notebook of {', '.join(names)}: is it the right file?")
    rows = [(student, *about) for student, about in students.items()]
    path = to / "students.csv"
    table = pd.DataFrame(rows, columns=["student", "id", "name"], dtype=str)
    if path.is_file():
        table = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False), table])
    table.drop_duplicates("student", keep="last").to_csv(path, index=False)
    return [*left_out, f"{count} notebooks of {len(students)} students in {to}"]


def members(download: Path) -> Iterator[tuple[str, float | tuple, Callable[[], bytes]]]:
    """The notebooks of a ZIP file or a folder: path inside, time of change, function that reads."""
    if download.is_dir():
        for path in download.rglob("*.ipynb"):
            if path.is_file() and not path.is_symlink():  # a link could show what its owner may not
                label = path.relative_to(download).as_posix()
                yield label, path.stat().st_mtime, path.read_bytes
        return
    try:
        archive = zipfile.ZipFile(download)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{download} is no ZIP file and no folder: {one_line(error)}") from error
    for entry in archive.infolist():
        if entry.filename.endswith(".ipynb"):
            if entry.file_size > LARGEST:
                raise InputError(f"{entry.filename} in {download} is larger than 20 MB: remove it")
            yield entry.filename, entry.date_time, lambda entry=entry: archive.read(entry)


def owner(label: str, names: Iterable[str]) -> tuple[str, str, str] | None:
    """Student, id and assignment from the path of a notebook; None if it is of no assignment."""
    *folders, file = label.replace("\\", "/").split("/")
    name = next((name for name in names if name in file or name in folders), None)
    if name is None or {"..", ".ipynb_checkpoints"} & set(folders):
        return None
    of_moodle = next(
        (MOODLE.fullmatch(folder) for folder in folders if MOODLE.fullmatch(folder)), 0
    )
    if of_moodle:
        return of_moodle["student"], of_moodle["id"], name
    if folders and (own := [folder for folder in folders if folder != name]):
        return own[-1], "", name
    start = file.partition(name)[0].rstrip("_- ")
    of_canvas = CANVAS.fullmatch(start)
    if of_canvas:
        return of_canvas["student"], of_canvas["id"], name
    return (start, "", name) if start else None
