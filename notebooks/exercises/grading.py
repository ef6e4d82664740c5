"""Hand out the exercises, collect what comes back, and grade it.

    python notebooks/exercises/grading.py release            the students' versions
    python notebooks/exercises/grading.py student-kit        the whole course with them, as a ZIP
    python notebooks/exercises/grading.py collect ZIP        a download -> a folder of submissions
    python notebooks/exercises/grading.py grade SUBMISSIONS  tables of grades

All work in build/exercises/: `release/` is for the students, `graded/` holds the notebooks as they
ran, and the tables lie beside them; docs/teaching/ explains them. The notebooks have the format
of nbgrader. Grading runs the students' code, in a sandbox: running.py says what holds it.
"""

import argparse
import copy
import hashlib
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
import running
import tables
from exam import examination
from submissions import assemble, checked, collect, file_of, peeks, student_id
from tqdm.auto import tqdm

from derm_hash.errors import InputError, exit_code
from derm_hash.files import write_text

try:
    from nbgrader.preprocessors import (
        ClearHiddenTests,
        ClearMarkScheme,
        ClearOutput,
        ClearSolutions,
        LockCells,
    )
except ModuleNotFoundError:
    sys.exit("This needs nbgrader: run `make setup`, or `pip install -e '.[teach]'`")

HERE = Path(__file__).resolve().parent
COURSE = HERE.parents[1] / "build" / "exercises"
SECONDS = 30  # for a cell
KIT = (
    *("[A-Z]*", "*.toml", "*.txt", "*.yml", ".ci/**/*", "derm_hash/**/*", "data_setup/**/*"),
    *("docs/*", "notebooks/[0-9]*.ipynb", "notebooks/figures/*"),
    *("benchmarks/results/**/*", "benchmarks/configs/*"),
)
LECTURERS = re.compile(r"# For lecturers and authors.*?# For everybody again\.\n", re.DOTALL)
NO_SANDBOX = (
    "there is no sandbox here, and grading runs the students' code: install bubblewrap "
    "(`apt-get install bubblewrap`), or add ARGS=--trust on a machine that holds nothing of value"
)


@dataclass(frozen=True)
class Course:
    """Where the grader works, and how."""

    root: Path
    seconds: int = SECONDS
    jobs: int = 1
    trust: bool = False
    exam: int | None = None

    def sources(self) -> dict[str, nbformat.NotebookNode]:
        """Name of each assignment -> its notebook with solutions."""
        found = {path.stem: nbformat.read(path, as_version=4) for path in exercises().values()}
        if self.exam is None:
            return found
        return {name: examination(name, notebook, self.exam) for name, notebook in found.items()}


def main(argv=None):
    """Do what the command line asks for; 0 when it worked, 2 with one sentence if it did not."""
    stopped = "stopped: run the same command again to continue"
    return exit_code("grading", lambda: run(argv), stopped)


def run(argv) -> None:
    """Release, collect or grade."""
    options = parse(argv)
    root = options.course.resolve()
    if options.command == "collect":
        for line in collect(options.download, options.to, exercises()):
            print(line)
        return
    if options.command == "student-kit":
        print(student_kit(Course(root, exam=options.exam)))
        return
    if options.command == "release":
        for path in release(Course(root, exam=options.exam)):
            print(path)
        return
    course = Course(root, options.timeout, options.jobs, options.trust, options.exam)
    grades = grade(course, options.submissions, options.due)
    tables.show(grades)
    for path in tables.save(grades, course.sources(), options.submissions, root):
        print(path)


def parse(argv):
    """The command line, checked."""
    parser = argparse.ArgumentParser(description="Hand out, collect and grade the exercises.")
    parser.add_argument("--course", type=Path, default=COURSE, help="folder to work in")
    commands = parser.add_subparsers(dest="command", required=True)
    releasing = commands.add_parser("release", help="write the students' versions")
    collecting = commands.add_parser("collect", help="sort a download into folders of students")
    collecting.add_argument("download", type=Path, help="a ZIP from Moodle or Canvas, or a folder")
    collecting.add_argument("--to", type=Path, default=Path("submissions"), help="where to")
    grading = commands.add_parser("grade", help="grade a folder of submissions; runs their code")
    grading.add_argument("submissions", type=Path, help="STUDENT/ASSIGNMENT/ASSIGNMENT.ipynb")
    grading.add_argument("--due", nargs="*", help="such as 02 03; default: what anybody handed in")
    grading.add_argument("--timeout", type=int, default=SECONDS, help="seconds a cell may take")
    grading.add_argument("--jobs", type=int, default=1, help="notebooks to run at the same time")
    grading.add_argument("--trust", action="store_true", help="without a sandbox, with your rights")
    kit = commands.add_parser("student-kit", help="pack the course for students")
    for command in (releasing, grading, kit):
        command.add_argument("--exam", type=int, help="the seed of an examination")
    options = parser.parse_args(argv)
    if options.command == "grade" and min(options.timeout, options.jobs) < 1:
        parser.error("--timeout takes a second or more, and --jobs one or more")
    return options


def exercises() -> dict[str, Path]:
    """Name of each assignment -> its notebook with solutions."""
    return {path.stem: path for path in sorted(HERE.glob("[0-9]*.ipynb"))}


def data_of(name: str) -> tuple[Path, ...]:
    """The files that an assignment reads: those beside it with its name."""
    return tuple(sorted(path for path in HERE.glob(f"{name}.*") if path.suffix != ".ipynb"))


def release(course: Course) -> list[Path]:
    """Write the students' version of every assignment; returns the notebooks' paths."""
    written = []
    for name, notebook in course.sources().items():
        for step in (ClearSolutions, ClearHiddenTests, ClearMarkScheme, LockCells, ClearOutput):
            notebook, _ = step().preprocess(notebook, {})
        path = course.root / "release" / name / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, nbformat.writes(notebook))
        for file in data_of(name):
            shutil.copy(file, path.parent)
        written.append(path)
    return written


def student_kit(course: Course) -> Path:
    """Pack what a student needs, with the students' versions in place of the solutions."""
    root, target = HERE.parents[1], course.root / "student-kit.zip"
    released = [file for path in release(course) for file in sorted(path.parent.iterdir())]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for pattern in KIT for path in root.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts and path.name != "Makefile":
                archive.write(path, Path("derm-hash") / path.relative_to(root))
        commands = (root / "Makefile").read_text("utf-8")
        archive.writestr("derm-hash/Makefile", re.sub(LECTURERS, "", commands))
        archive.writestr("derm-hash/.student-kit", "")  # the Makefile then installs less
        for path in released:
            archive.write(path, Path("derm-hash/notebooks/exercises") / path.name)
    return target


def grade(
    course: Course, submissions: Path, due: Sequence[str] | None = None
) -> list[tables.Grade]:
    """Grade every submission that has not been graded as it is; `InputError` if there are none."""
    students, names = survey(submissions, due)
    if not course.trust and not running.has_sandbox():
        raise InputError(NO_SANDBOX)
    sources = course.sources()
    jobs = [(student, name) for student in students for name in names]

    def one(job) -> tables.Grade:
        student, name = job
        try:
            return grade_one(course, submissions / student, name, sources[name])
        except InputError as error:
            return tables.Grade(student, name, None, notes=[str(error)])

    with ThreadPoolExecutor(course.jobs) as pool:
        return list(tqdm(pool.map(one, jobs), "grading", len(jobs), unit="notebook"))


def survey(submissions: Path, due: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The students, and the assignments that are due."""
    if not submissions.is_dir():
        raise InputError(f"There is no folder {submissions}: name the folder of submissions")
    folders = (path for path in submissions.iterdir() if path.is_dir())
    students = sorted(path.name for path in folders if not path.name.startswith("."))
    if due is not None:
        return students, [chosen(name) for name in due]
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


def chosen(start: str) -> str:
    """The assignment whose name begins like this."""
    found = [name for name in exercises() if name.startswith(start)]
    if len(found) != 1:
        raise InputError(f"{start} is due: name one of {', '.join(exercises())}")
    return found[0]


def grade_one(course: Course, folder: Path, name: str, source) -> tables.Grade:
    """One student's submission, graded; InputError where it cannot be."""
    path, student = file_of(folder, name), student_id(folder.name)
    if not path.is_file() and not any(folder.rglob(f"*{name[:2]}*.ipynb")):
        return tables.Grade(folder.name, name, None, missing=True)
    notebook, notes = assemble(checked(folder, exercises(), name), copy.deepcopy(source))
    if looks := peeks(notebook):
        raise InputError(f"Its code may look at the tests ({', '.join(sorted(looks))}): read it")
    files = [path, *data_of(name)]
    key = hashlib.sha256(f"{course.seconds} {nbformat.writes(source)}".encode())
    for file in files:
        key.update(file.read_bytes())
    graded = course.root / "graded" / student / f"{name}.ipynb"
    record = graded.with_suffix(".json")
    kept = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    if kept.get("key") == key.hexdigest() and graded.is_file():
        return tables.Grade(**kept["grade"])
    outcome = running.run(notebook, course.seconds, course.trust, data_of(name))
    grade = tables.Grade(folder.name, name, outcome.tests, notes=notes + outcome.notes)
    graded.parent.mkdir(parents=True, exist_ok=True)
    write_text(graded, nbformat.writes(outcome.notebook))
    write_text(record, json.dumps({"key": key.hexdigest(), "grade": asdict(grade)}, indent=1))
    return grade


if __name__ == "__main__":
    sys.exit(main())
