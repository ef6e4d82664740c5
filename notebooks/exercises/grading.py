"""Hand out the exercises and grade what comes back, with nbgrader.

    python notebooks/exercises/grading.py release            the students' versions
    python notebooks/exercises/grading.py grade SUBMISSIONS  a table of grades

SUBMISSIONS is a folder with STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb. Both commands work in
build/exercises/, which is an nbgrader course: `release/` is for the students, `gradebook.db` and
`autograded/` hold what was graded, and `grades.csv` has a row for each student and assignment.

Grading runs the students' code with your rights: docs/teaching.md says where to do that.
"""

import argparse
import hashlib
import logging
import os
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
from tqdm.auto import tqdm
from traitlets.config import Config
from traitlets.log import get_logger

from derm_hash.errors import InputError
from derm_hash.files import write_atomically

try:
    from nbgrader.api import Gradebook
    from nbgrader.converters import Autograde, GenerateAssignment
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory
except ModuleNotFoundError:
    sys.exit("This needs nbgrader: run `make setup`, or `pip install -e '.[teach]'`.")

HERE = Path(__file__).resolve().parent
COURSE = HERE.parents[1] / "build" / "exercises"
SECONDS = 30  # for a cell
LARGEST = 20 * 2**20  # bytes of a submission
STAMP = "graded.sha256"
NO_HISTORY = "--HistoryManager.hist_file=:memory:"  # nbclient's default, which options replace
# nbgrader looks folders up with a pattern, where other characters have a meaning.
STUDENT = re.compile(r"\w([\w.@+ -]*\w)?")
# What nbformat raises for what is no JSON, for JSON that is no notebook, for endless nesting.
NOT_A_NOTEBOOK = (
    nbformat.ValidationError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)


@dataclass(frozen=True)
class Course:
    """Where nbgrader works, and how long a cell may take."""

    root: Path
    seconds: int = SECONDS

    @property
    def log(self) -> Path:
        return self.root / "nbgrader.log"

    def gradebook(self) -> Gradebook:
        return Gradebook(f"sqlite:///{self.root / 'gradebook.db'}")

    def convert(self, converter, **ids) -> None:
        """Run a converter of nbgrader on one assignment (of one student); may raise
        NbGraderException."""
        config = Config()
        config.CourseDirectory.root = str(self.root)
        config.CourseDirectory.update(ids)
        config.Execute.timeout = self.seconds
        config.Execute.extra_arguments = ["--IPKernelApp.log_level=ERROR", NO_HISTORY]
        config.OverwriteCells.add_missing_cells = True  # a deleted test is not a passed one
        job = converter(coursedir=CourseDirectory(config=config), config=config)
        job.force = True
        logger, handler = get_logger(), logging.FileHandler(self.log, encoding="utf-8")
        logger.addHandler(handler)
        try:
            job.start()
        finally:
            logger.removeHandler(handler)
            handler.close()


def main(argv=None):
    """Do what the command line asks for."""
    options = parse(argv)
    # nbgrader starts a program of this environment by its name alone.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    course = Course(options.course.resolve(), getattr(options, "timeout", SECONDS))
    try:
        if options.command == "release":
            for path in release(course):
                print(path)
        else:
            table = grade(course, options.submissions)
            show(table)
            print(save(table, course.root / "grades.csv"))
    except InputError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command goes on from here.")


def parse(argv):
    """The command line, checked."""
    parser = argparse.ArgumentParser(description="Hand out and grade the exercises.")
    parser.add_argument("--course", type=Path, default=COURSE, help="folder to work in")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("release", help="write the students' versions")
    grading = commands.add_parser("grade", help="grade a folder of submissions; runs their code")
    grading.add_argument("submissions", type=Path, help="STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb")
    grading.add_argument("--timeout", type=int, default=SECONDS, help="seconds a cell may take")
    options = parser.parse_args(argv)
    if options.command == "grade" and options.timeout < 1:
        parser.error(f"a cell needs a second or more, not --timeout {options.timeout}")
    return options


def exercises() -> dict[str, Path]:
    """Name of each assignment -> its notebook with solutions."""
    return {path.stem: path for path in sorted(HERE.glob("[0-9]*.ipynb"))}


def release(course: Course) -> list[Path]:
    """Write the students' version of every assignment, and note its tests in the gradebook.

    Returns the paths of the notebooks to hand out. Raises InputError where nbgrader refuses.
    """
    course.root.mkdir(parents=True, exist_ok=True)
    for name, path in exercises().items():
        source = course.root / "source" / name / path.name
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(path.read_bytes())
        try:
            course.convert(GenerateAssignment, assignment_id=name)
        except NbGraderException as error:
            raise InputError(
                f"nbgrader could not release {name}: {course.log} says why. If it has gained or "
                f"lost cells since something was graded, move {course.root} away and start anew."
            ) from error
    return [course.root / "release" / name / path.name for name, path in exercises().items()]


def grade(course: Course, submissions: Path) -> pd.DataFrame:
    """Grade every submission that has not been graded as it is.

    Returns
    -------
    DataFrame with a row for each student and assignment that anybody has handed in: student,
    assignment, points (nan where it could not be graded), maximum, note (empty, or a sentence).

    Raises
    ------
    InputError
        If the folder does not hold submissions.
    """
    students, names = survey(submissions)
    release(course)
    with course.gradebook() as book:
        maximum = {name: book.find_assignment(name).max_score for name in names}
    rows = []
    jobs = [(student, name) for student in students for name in names]
    for student, name in tqdm(jobs, "grading", unit="notebook"):
        try:
            with warnings.catch_warnings(action="ignore"):  # SQLAlchemy's, about nbgrader
                points, note = grade_one(course, submissions / student, name)
        except InputError as error:
            points, note = float("nan"), str(error)
        rows.append((student, name, points, maximum[name], note))
    return pd.DataFrame(rows, columns=["student", "assignment", "points", "maximum", "note"])


def survey(submissions: Path) -> tuple[list[str], list[str]]:
    """The students, and the assignments that at least one of them has handed in."""
    if not submissions.is_dir():
        raise InputError(f"There is no folder {submissions}: name the folder of submissions.")
    folders = (path for path in submissions.iterdir() if path.is_dir())
    students = sorted(path.name for path in folders if not path.name.startswith("."))
    names = [
        name
        for name in exercises()
        if any((submissions / student / name).is_dir() for student in students)
    ]
    if not names:
        raise InputError(
            f"{submissions} has no submission: it should hold STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb, "
            f"where ASSIGNMENT is one of {', '.join(exercises())}."
        )
    return students, names


def grade_one(course: Course, folder: Path, name: str) -> tuple[float, str]:
    """Points of one student's submission, and a note; InputError where it cannot be graded."""
    student, content = folder.name, checked(folder, name)
    key = hashlib.sha256(f"{course.seconds}".encode() + exercises()[name].read_bytes() + content)
    graded = course.root / "autograded" / student / name
    stamp = graded / STAMP
    if not stamp.exists() or stamp.read_text() != key.hexdigest():
        # The notebook alone: a module that lies beside it could stand in for a real one.
        submitted = course.root / "submitted" / student / name / f"{name}.ipynb"
        submitted.parent.mkdir(parents=True, exist_ok=True)
        submitted.write_bytes(content)
        try:
            course.convert(Autograde, assignment_id=name, student_id=student)
        except NbGraderException as error:
            raise InputError(
                f"It could not be run to its end: {course.log} says why (a kernel that died?)."
            ) from error
        write_atomically(stamp, lambda part: part.write_text(key.hexdigest()))
    with course.gradebook() as book:
        points = book.find_submission(name, student).score
    return points, overtime(graded / f"{name}.ipynb", course.seconds)


def checked(folder: Path, name: str) -> bytes:
    """Content of a submission that nbgrader can work with; InputError says what is wrong."""
    path = folder / name / f"{name}.ipynb"
    if not STUDENT.fullmatch(folder.name):
        raise InputError(
            "Rename the student's folder: letters, digits, spaces and any of . _ - + @ are "
            "possible, with a letter, digit or _ at both ends."
        )
    if not path.is_file():
        strays = ", ".join(stray_notebooks(folder, name))
        found = f"; found {strays}: rename it if that is meant" if strays else ""
        raise InputError(f"There is no {name}/{name}.ipynb{found}.")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path.name} is larger than 20 MB: ask for it without outputs.")
    try:
        notebook = nbformat.reads(path.read_text("utf-8"), as_version=4)
        nbformat.validate(notebook)
    except NOT_A_NOTEBOOK as error:
        raise InputError(f"{path.name} is damaged: it is not a Jupyter notebook.") from error
    if not ids(notebook) & ids(nbformat.read(exercises()[name], as_version=4)):
        raise InputError(f"{path.name} holds no cell of this assignment: is it another one?")
    return path.read_bytes()


def stray_notebooks(folder: Path, name: str) -> list[str]:
    """Notebooks of a student that may be the one that is missing from the folder `name`."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*.ipynb"))]
    elsewhere = exercises().keys() - {name}
    return [
        path.as_posix()
        for path in paths
        if path.parts[0] not in elsewhere and ".ipynb_checkpoints" not in path.parts
    ]


def ids(notebook) -> set[str]:
    """What nbgrader calls the cells that it knows, but for `setup`, which all exercises have."""
    marks = [cell.metadata.get("nbgrader") for cell in notebook.cells]
    return {str(mark.get("grade_id")) for mark in marks if isinstance(mark, dict)} - {"setup"}


def overtime(graded: Path, seconds: int) -> str:
    """A sentence about the cells of a graded notebook that were stopped, if there are any."""
    cells = nbformat.read(graded, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    stopped = sum(output.get("ename") == "CellTimeoutError" for output in outputs)
    return f"Cells stopped after {seconds} s: {stopped}." if stopped else ""


def show(table: pd.DataFrame) -> None:
    """Print the points, and below them the notes."""
    print(table.drop(columns="note").to_string(index=False, na_rep="-", float_format="{:g}".format))
    for row in table[table["note"] != ""].itertuples():
        print(f"{row.student}, {row.assignment}: {row.note}")


def save(table: pd.DataFrame, path: Path) -> Path:
    """Write the table as CSV, all or nothing."""
    write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%g"))
    return path


if __name__ == "__main__":
    main()
