"""Start the server of the student as whom this runs: hand the course out, then start Jupyter.

JupyterHub calls it with Jupyter's options. In the student's home, ~/derm-hash/course/ holds copies
of the notebooks, which a new edition of the course never overwrites once they are changed, and
~/derm-hash/hand-in/ is the student's letter box.
"""

import getpass
import os
import resource
import sys
from pathlib import Path

from derm_hash.lab import refresh

SHARED = Path(__file__).resolve().parents[1]


def main() -> None:
    """Prepare the home, limit the memory of each process, and become Jupyter."""
    user = os.environ.get("JUPYTERHUB_USER") or getpass.getuser()
    for note in hand_out(SHARED, Path.home(), user):
        print(note)
    if limit := os.environ.get("MEM_LIMIT"):  # bytes: JupyterHub sets it
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    os.chdir(Path.home())
    os.execv(sys.executable, [sys.executable, "-m", "jupyterhub.singleuser", *sys.argv[1:]])


def hand_out(shared: Path, home: Path, user: str) -> list[str]:
    """Copy what is new of the course; link the results, the letter box and the cache.

    Returns a sentence for each notebook of which the student's changed copy is kept. The cache is
    linked file by file: what is there is read, and what a student trains is the student's own.
    """
    course = home / "derm-hash"
    notes = refresh(shared / "notebooks", course / "course")
    link(course / "benchmarks", shared / "benchmarks")
    link(course / "hand-in", shared / "hand-in" / user)
    cache = shared / "cache"
    for path in (path for path in cache.rglob("*") if path.is_file() and path.name != ".lock"):
        link(home / ".cache" / "derm-hash" / path.relative_to(cache), path)
    return notes


def link(path: Path, target: Path) -> None:
    """Make a link, in place of an old one; a file or folder of the student's own stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    if not path.exists():
        path.symlink_to(target)


if __name__ == "__main__":
    main()
