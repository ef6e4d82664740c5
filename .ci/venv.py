"""Create .venv, or bring it up to date; return at once when nothing has changed.

`make setup` runs this with any Python 3, so it uses the standard library alone. The work is
done by .venv's own Python, which this script starts when .venv exists.

A torch that is already in .venv and new enough for pyproject.toml is kept, for it may be a build
that the user chose (the small CPU one, say). Otherwise constraints.txt decides.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "derm-hash.stamp"
OLDEST = (3, 11)


def create(exact):
    """Make .venv where it is missing or broken; with `exact`, also where it has another Python."""
    works = BIN.exists() and version_of(BIN) is not None
    if works and (not exact or version_of(BIN) == version_of(sys.executable)):
        return
    if sys.version_info < OLDEST:
        sys.exit(
            "derm-hash needs Python 3.11 or newer, and {} is {}.{}: install a newer one and name "
            "it, as in `make setup PYTHON=python3.12`.".format(sys.executable, *sys.version_info)
        )
    print(f"creating .venv with Python {version_of(sys.executable)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    if done.returncode:
        sys.exit(f"{sys.executable} could not create .venv (its message is above).")


def version_of(python):
    """The version, such as '3.11', of a Python program; None where it does not start."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.check_output([str(python), "-c", code], text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def fingerprint():
    """What .venv was made from: two files, its Python, and the place of the checkout."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in ("pyproject.toml", "constraints.txt", ".venv/pyvenv.cfg"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def up_to_date():
    """Whether .venv starts from a Python that is still there, and nothing has changed since."""
    return BIN.exists() and STAMP.exists() and STAMP.read_text() == fingerprint()


def constraints():
    """The lines of constraints.txt, changed so that they let an installed torch stay."""
    import tomllib
    from importlib.metadata import PackageNotFoundError, distribution

    from pip._vendor.packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    wanted = {need.name: need.specifier for need in map(Requirement, wanted)}
    pinned = {line.partition("==")[0]: line for line in lines if "==" in line}
    kept, free = {}, set()
    for name in ("torch", "torchvision"):
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        same = f"{name}=={installed.version}"
        if installed.version not in wanted[name] or same == pinned[name]:
            continue
        print(f"keeping {name} {installed.version}, which is in .venv already", flush=True)
        kept[name] = same
        # Whatever this build insists on wins over the pins, and so does the other one of the pair.
        strict = [need for need in map(Requirement, installed.requires or ()) if "==" in str(need)]
        free |= {"torch", "torchvision", *(need.name for need in strict)}
    pinned = {name: line for name, line in pinned.items() if name not in free}
    return sorted({**pinned, **kept}.values())


def refresh():
    """Install the project and what it needs, unless the stamp says that this is done."""
    if up_to_date():
        return
    STAMP.unlink(missing_ok=True)  # if pip fails, the next run tries again
    subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    chosen = VENV / "constraints.txt"
    chosen.write_text("\n".join(constraints()) + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    print("installing derm-hash and what it needs: minutes the first time", flush=True)
    done = subprocess.run([*pip, "-c", str(chosen), "-e", ".[lab,test]"], cwd=ROOT)
    if done.returncode:
        sys.exit(
            "pip could not install everything (its message is above). Check the network and the "
            "free disk space, then run the same command again: it continues from here."
        )
    STAMP.write_text(fingerprint())


if __name__ == "__main__":
    exact = "--this-python" in sys.argv
    if Path(sys.prefix).resolve() == VENV.resolve():
        refresh()
    elif exact or not up_to_date():
        create(exact)
        sys.exit(subprocess.run([str(BIN), __file__]).returncode)
