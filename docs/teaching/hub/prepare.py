"""`make hub`: write the folder that a JupyterHub shares, with all that a class needs.

    python docs/teaching/hub/prepare.py /srv/derm-hash

It is the students' kit, which holds no solutions, with Python, JupyterHub and its proxy, a cache of
the trained networks, and letter boxes. Students may read it; only its owner may write.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PROXY = "configurable-http-proxy@5.3.0"


def main() -> None:
    """Write everything into the folder that is named."""
    shared = Path(sys.argv[1]).resolve()
    os.umask(0o022)
    unpack_kit(shared)
    install_proxy(shared)
    call("make", "-C", shared, "setup", "EXTRAS=lab,hub")
    (shared / "cache").mkdir(exist_ok=True)
    call(sys.executable, ROOT / "notebooks" / "build.py", DERM_HASH_HOME=shared / "cache")
    print(f"{shared / '.venv/bin/jupyterhub'} --config {shared / 'hub/jupyterhub_config.py'}")


def unpack_kit(shared: Path) -> None:
    """The students' kit, this folder's files beside it, and the folder of the letter boxes."""
    with tempfile.TemporaryDirectory() as folder:
        grader = ROOT / "notebooks" / "exercises" / "grading.py"
        call(sys.executable, grader, "--course", folder, "student-kit")
        with zipfile.ZipFile(Path(folder) / "student-kit.zip") as archive:
            archive.extractall(folder)
        shutil.copytree(Path(folder) / "derm-hash", shared, dirs_exist_ok=True)
    shutil.copytree(HERE, shared / "hub", dirs_exist_ok=True)
    (shared / "hand-in").mkdir(mode=0o711, exist_ok=True)


def install_proxy(shared: Path) -> None:
    """JupyterHub's proxy, from the registry of npm."""
    call("npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", shared / "hub", PROXY)


def call(*command, **environment) -> None:
    """Run a command; an error ends this one."""
    env = os.environ | {name: str(value) for name, value in environment.items()}
    subprocess.run([str(word) for word in command], check=True, env=env)


if __name__ == "__main__":
    main()
