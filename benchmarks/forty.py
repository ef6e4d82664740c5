"""``python -m benchmarks.forty``: how long does it take to grade a class of forty?

Writes what forty students hand in for four assignments, as Moodle packs it: right answers, typical
wrong ones, empty notebooks, and code that would stop a grader. Then collects and grades all of it,
as docs/teaching/ says, and writes the time and what was found to ``build/bench/forty/``.
"""

import argparse
import contextlib
import copy
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import nbformat
import pandas as pd
import psutil

from benchmarks import LATEST, machine
from derm_hash.files import write_json
from tests.exercises.notebooks import EXERCISES, code_cells, mark, read
from tests.exercises.wrong import WRONG

GRADER = EXERCISES[0].parent / "grading.py"
ASSIGNMENTS = [path for path in EXERCISES if path.stem[:2] in ("02", "03", "04", "06")]
STUDENTS, RIGHT, EMPTY = 40, 10, 3
# What stands above the first answer of those who would stop a grader, in every assignment.
NASTY = {
    "endless": "while True:\n    pass",
    "slow": "import time\ntime.sleep(25)",
    "dead": "import os\nos._exit(1)",
    "disk": "for i in range(99):\n    open(str(i), 'wb').write(bytes(9_000_000))",
    "memory": "import time\nhog = [b'x' * 10**8 for _ in range(60)]\ntime.sleep(9)",
    "left": "import subprocess\nsubprocess.Popen(['sleep', '999'], start_new_session=True)",
    "forks": "import os, time\nfor _ in range(200):\n    os.fork() or time.sleep(99)",
    "replaces": "import numpy as np\nimport torch\nnp.mean = torch.mean = lambda *a, **k: 1",
    "broken": None,  # half a file
}


def hand_in(path: Path, student: int, nasty: list[str]) -> str:
    """The notebook of an assignment as this student hands it in."""
    notebook, chance = copy.deepcopy(read(path)), random.Random(f"{student} {path.stem}")
    answers = code_cells(notebook, "solution")
    if student < len(nasty):
        code = NASTY[nasty[student]]
        if code is None:
            return nbformat.writes(notebook)[:-999]
        answers[0].source = f"{code}\n{answers[0].source}"
    elif student < len(nasty) + EMPTY:
        for cell in answers:
            cell.source = cell.source.partition("\n")[0] + "\n    raise NotImplementedError()"
    elif student >= len(nasty) + EMPTY + RIGHT:
        for cell in chance.sample(answers, chance.randint(1, 3)):
            right, wrong = chance.choice(WRONG[path, mark(cell)["grade_id"]])
            cell.source = cell.source.replace(right, wrong)
    return nbformat.writes(notebook)


def pack(target: Path) -> None:
    """Write the download of a class, as Moodle makes it."""
    nasty = list(NASTY)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for student in range(STUDENTS):
            kind = nasty[student] if student < len(nasty) else "student"
            folder = f"{kind.title()} {student:02d}_{1000 + student}_assignsubmission_file_"
            for path in ASSIGNMENTS:
                archive.writestr(f"{folder}/{path.name}", hand_in(path, student, nasty))


def watch(done: threading.Event, used: dict) -> None:
    """Note the seconds of CPU time of each kernel that the grader starts; running.py marks them."""
    while not done.wait(1):
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "GRADING" in process.environ():
                    used[process.pid, process.create_time()] = sum(process.cpu_times()[:2])


def main() -> None:
    """Pack, collect, grade, and write what it took."""
    parser = argparse.ArgumentParser(description="Grade a class of forty, and measure the time.")
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--to", type=Path, default=LATEST / "forty", help="folder, made anew")
    options = parser.parse_args()
    shutil.rmtree(options.to, ignore_errors=True)
    options.to.mkdir(parents=True)
    pack(options.to / "moodle.zip")
    command = [sys.executable, GRADER, "--course", options.to / "course"]
    submissions = options.to / "submissions"
    subprocess.run(
        [*command, "collect", options.to / "moodle.zip", "--to", submissions], check=True
    )
    about, start = machine(), time.perf_counter()
    done, used = threading.Event(), {}
    watcher = threading.Thread(target=watch, args=(done, used))
    watcher.start()
    try:
        subprocess.run([*command, "grade", submissions, "--jobs", options.jobs], check=True)
    finally:
        done.set()
        watcher.join()
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = sum(used.values()) + own.ru_utime + own.ru_stime
    minutes = (time.perf_counter() - start) / 60
    table = pd.read_csv(options.to / "course" / "grades.csv")
    tests = pd.read_csv(options.to / "course" / "tests.csv")
    about |= {"students": len(table), "notebooks": STUDENTS * len(ASSIGNMENTS)}
    about |= {"jobs": int(options.jobs), "minutes": round(minutes, 1)}
    about["minutes of CPU time"] = round(busy / 60, 1)
    about |= {"mean total": round(table["total"].mean(), 1), "tests": len(tests)}
    write_json(options.to / "measured.json", about)
    print(f"{about['notebooks']} notebooks in {minutes:.1f} minutes on {about}")


if __name__ == "__main__":
    main()
