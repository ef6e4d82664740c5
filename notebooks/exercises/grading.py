"""Hand out the exercises and grade what comes back, with nbgrader.

    python notebooks/exercises/grading.py release            the students' versions
    python notebooks/exercises/grading.py grade SUBMISSIONS  a table of grades

SUBMISSIONS is a folder with STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb or, as Moodle makes it,
STUDENT/ASSIGNMENT.ipynb. Both commands work in build/exercises/, which is an nbgrader course:
`release/` is for the students, `gradebook.db` and `autograded/` hold what was graded, and
`grades.csv` has a row for each student and assignment.

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
from submissions import checked, file_of, mark, merge_doubled, student_id
from tqdm.auto import tqdm
from traitlets.config import Config
from traitlets.log import get_logger

from derm_hash.errors import InputError, exit_code, one_line
from derm_hash.files import write_atomically

try:
    from nbgrader.api import Gradebook
    from nbgrader.converters import Autograde, GenerateAssignment
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory
except ModuleNotFoundError:
    sys.exit("This needs nbgrader: run `make setup`, or `pip install -e '.[teach]'`")

HERE = Path(__file__).resolve().parent
COURSE = HERE.parents[1] / "build" / "exercises"
SECONDS = 30  # for a cell
STARTUP = 300  # for a kernel
FIRST = 300  # for a cell before the first answer: imports take long on a loaded machine
STAMP = "graded.sha256"
NO_HISTORY = "--HistoryManager.hist_file=:memory:"  # nbclient's default, which options replace
# What nbgrader logs -> why a submission has no points.
CAUSES = {
    "Kernel didn't respond|Kernel died before replying": "No kernel started in time, for this "
    "computer is too busy: run the same command again",
    "DeadKernelError|Kernel died": "The kernel died while it ran the code, which ends Python "
    "itself or takes too much memory",
    "UnresponsiveKernelError|became unresponsive": "The time limit could not stop a cell: look for "
    "an endless loop",
    "iopub|CellTimeoutError": "The time limit stopped it",
    "nbgrader database": "The gradebook cannot be used: close what else works with it",
    "metadata format": "Another version of nbgrader has written its cells: hand it out again",
}


@dataclass(frozen=True)
class Course:
    """Where nbgrader works, and how long a cell may take."""

    root: Path
    seconds: int = SECONDS

    @property
    def log(self) -> Path:
        return self.root / "nbgrader.log"

    def limit(self):
        """A function that says how many seconds a cell may take, for the cells in their order."""
        answered = False

        def seconds(cell) -> int:
            nonlocal answered
            answered = answered or bool(mark(cell).get("solution"))
            return self.seconds if answered else max(FIRST, self.seconds)

        return seconds

    def gradebook(self) -> Gradebook:
        return Gradebook(f"sqlite:///{self.root / 'gradebook.db'}")

    def convert(self, converter, **ids) -> None:
        """Run a converter of nbgrader on one assignment (of one student).

        If that fails, the text of the NbGraderException is what nbgrader has logged.
        """
        config = Config()
        config.CourseDirectory.root = str(self.root)
        config.CourseDirectory.update(ids)
        config.Execute.timeout_func = self.limit()
        config.Execute.startup_timeout = STARTUP
        config.Execute.extra_arguments = ["--IPKernelApp.log_level=ERROR", NO_HISTORY]
        config.OverwriteCells.add_missing_cells = True  # a deleted test is not a passed one
        job = converter(coursedir=CourseDirectory(config=config), config=config)
        job.force = True
        logger, handler = get_logger(), logging.FileHandler(self.log, encoding="utf-8")
        logger.addHandler(handler)
        start = self.log.stat().st_size
        try:
            job.start()
        except NbGraderException as error:
            raise NbGraderException(self.log.read_bytes()[start:].decode()) from error
        finally:
            logger.removeHandler(handler)
            handler.close()


def main(argv=None):
    """Do what the command line asks for; 0 when it worked, 2 with one sentence if it did not."""
    stopped = "stopped; the same command goes on from here"
    return exit_code("grading", lambda: run(argv), stopped)


def run(argv) -> None:
    """Release or grade."""
    options = parse(argv)
    # nbgrader starts a program of this environment by its name alone.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    course = Course(options.course.resolve(), getattr(options, "timeout", SECONDS))
    if options.command == "release":
        for path in release(course):
            print(path)
    else:
        table = grade(course, options.submissions)
        show(table)
        print(save(table, course.root / "grades.csv"))


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
                f"nbgrader could not release {name} ({course.log} says why): if it has gained or "
                f"lost cells since something was graded, move {course.root} away and start anew"
            ) from error
    return [course.root / "release" / name / path.name for name, path in exercises().items()]


def grade(course: Course, submissions: Path) -> pd.DataFrame:
    """Grade every submission that has not been graded as it is; `InputError` if there are none.

    Returns a row for each student and assignment that anybody has handed in: student, assignment,
    points (nan where it could not be graded), maximum, note (empty, or a sentence).
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
        raise InputError(f"There is no folder {submissions}: name the folder of submissions")
    folders = (path for path in submissions.iterdir() if path.is_dir())
    students = sorted(path.name for path in folders if not path.name.startswith("."))
    names = [
        name
        for name in exercises()
        if any(
            (submissions / student / name).is_dir()
            or file_of(submissions / student, name).is_file()
            for student in students
        )
    ]
    if not names:
        raise InputError(
            f"{submissions} has no submission: it should hold STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb, "
            f"where ASSIGNMENT is one of {', '.join(exercises())}"
        )
    return students, names


def grade_one(course: Course, folder: Path, name: str) -> tuple[float, str]:
    """Points of one student's submission, and a note; InputError where it cannot be graded."""
    path, student = file_of(folder, name), student_id(folder.name)
    notebook = checked(folder, exercises(), name)
    doubled = merge_doubled(notebook, course.root / "release" / name / f"{name}.ipynb")
    key = hashlib.sha256(f"{course.seconds}".encode() + exercises()[name].read_bytes())
    key.update(path.read_bytes())
    graded = course.root / "autograded" / student / name
    stamp = graded / STAMP
    if not stamp.exists() or stamp.read_text() != key.hexdigest():
        # The notebook alone: a module that lies beside it could stand in for a real one.
        submitted = course.root / "submitted" / student / name / f"{name}.ipynb"
        submitted.parent.mkdir(parents=True, exist_ok=True)
        submitted.write_text(nbformat.writes(notebook), encoding="utf-8")
        try:
            course.convert(Autograde, assignment_id=name, student_id=student)
        except NbGraderException as error:
            raise InputError(f"{cause(str(error))}; {course.log} has the details") from error
        check_setup(graded / f"{name}.ipynb")
        write_atomically(stamp, lambda part: part.write_text(key.hexdigest()))
    with course.gradebook() as book:
        points = book.find_submission(name, student).score
    notes = [f"Doubled cells were merged: {', '.join(doubled)}"] if doubled else []
    if late := len(stopped(graded / f"{name}.ipynb")):
        notes.append(f"Cells stopped after {course.seconds} s: {late}")
    return points, "; ".join(notes)


def cause(log: str) -> str:
    """What stopped nbgrader, in one sentence, from what it has logged."""
    for pattern, sentence in CAUSES.items():
        if re.search(pattern, log):
            return sentence
    errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", log, re.MULTILINE)
    return f"nbgrader could not grade it ({one_line(errors[-1]) if errors else 'unknown error'})"


def check_setup(graded: Path) -> None:
    """Raise InputError if the time limit stopped a cell of the teacher's that only prepares."""
    for cell in stopped(graded):
        if mark(cell).get("locked") and not mark(cell).get("grade"):
            raise InputError(
                f"The cell {mark(cell).get('grade_id')}, which no student has written, was stopped "
                "by the time limit: this computer is too busy; run the same command again"
            )


def stopped(graded: Path) -> list[nbformat.NotebookNode]:
    """The cells of a graded notebook that the time limit has stopped."""
    return [
        cell
        for cell in nbformat.read(graded, as_version=4).cells
        if any(output.get("ename") == "CellTimeoutError" for output in cell.get("outputs", ()))
    ]


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
    sys.exit(main())
