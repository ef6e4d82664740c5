"""`make lab`: JupyterLab on a copy of the course.

Running a notebook changes its file. So that the next `git pull` finds no changed files, readers
work on copies in course/, which git ignores and `make clean` leaves alone. It lies beside
notebooks/, so that the paths in the notebooks, such as ../data, are the same there.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from derm_hash import doctor
from derm_hash.app import own_folders
from derm_hash.errors import InputError, exit_code
from derm_hash.files import write_atomically, write_json

ROOT = Path(__file__).resolve().parents[1]
RECORD = ".copies.json"  # in course/: name of a copy -> checksum of what it was copied from


def main(argv: list[str] | None = None) -> int:
    """Bring the copies up to date, then run JupyterLab on them until it is stopped."""
    options = sys.argv[1:] if argv is None else argv
    return exit_code("make lab", lambda: run(options), "stopped")


def run(options: list[str]) -> None:
    """Bring the copies up to date, and open JupyterLab with the options."""
    course = ROOT / "course"
    for note in refresh(ROOT / "notebooks", course):
        print(note)
    if not doctor.check_home().ok:
        os.environ.update(own_folders(ROOT / "build" / "jupyter"))
    if getattr(os, "geteuid", lambda: 1)() == 0 and "--allow-root" not in options:
        print("You are root: the notebooks run with all rights on this computer")
        options = [*options, "--allow-root"]
    try:
        from jupyterlab.labapp import LabApp
    except ModuleNotFoundError as error:
        raise InputError(f"JupyterLab is not installed: {doctor.INSTALL}") from error
    LabApp.launch_instance([str(min(course.glob("0*.ipynb"))), *options])


def refresh(originals: Path, course: Path) -> list[str]:
    """Copy the notebooks and their figures, but never overwrite a changed copy.

    Returns a sentence for each copy that is outdated.
    """
    record, notes = read_record(course / RECORD), []
    patterns = ("[0-9]*.ipynb", "figures/*.svg", "exercises/[0-9]*.ipynb", "exercises/[0-9]*.csv")
    names = [
        path.relative_to(originals).as_posix()
        for pattern in patterns
        for path in sorted(originals.glob(pattern))
    ]
    for name in names:
        content, copy = (originals / name).read_bytes(), course / name
        new, there = checksum(content), checksum(copy.read_bytes()) if copy.exists() else None
        if there in (None, new, record.get(name)):
            if there != new:
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(copy, lambda part, it=content: part.write_bytes(it))
            record[name] = new
        elif new != record.get(name):
            notes.append(
                f"course/{name} stays as you have changed it, and the course has a newer one: "
                "rename yours to get it"
            )
    for name in record.keys() - set(names):  # no longer part of the course
        copy = course / name
        if copy.exists() and checksum(copy.read_bytes()) == record[name]:
            copy.unlink()
        del record[name]
    write_json(course / RECORD, record)
    return notes


def read_record(path: Path) -> dict[str, str]:
    """Read what :func:`refresh` wrote; {} if unreadable, so that every copy counts as changed."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def checksum(content: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
