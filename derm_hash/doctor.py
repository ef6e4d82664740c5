"""What this machine has for the course, and what to do about each thing that is missing.

`derm-hash doctor` and `python -m derm_hash.doctor` print it. Every package is imported inside the
check that looks at it, so that the report appears however broken the installation is.
"""

import importlib
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

INSTALL = "run `make setup`, or `pip install -c constraints.txt -e '.[lab,test]'`"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC_CHROME = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
# What a broken binary package raises when it is imported: a missing module or library, an operator
# that another build of torch does not have, a name that it no longer has.
BROKEN = (ImportError, OSError, RuntimeError, AttributeError)
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the report. `remedy` is a sentence, empty where `ok`; nothing in the course
    works without what is `essential`."""

    name: str
    value: str
    ok: bool = True
    remedy: str = ""
    essential: bool = False


def report() -> list[Check]:
    """All checks, in the order in which they are best read."""
    checks = (
        check_python,
        check_package,
        check_torch,
        check_torchvision,
        check_device,
        check_faiss,
        check_requirements,
        check_memory,
        check_disk,
        check_cache,
        check_lab,
        check_widgets,
        check_browser,
    )
    return [check() for check in checks]


def print_report() -> int:
    """Print the report; the exit status is 1 where something essential is broken, else 0."""
    checks = report()
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = "ok" if check.ok else "BROKEN" if check.essential else "note"
        print(f"{mark:>6}  {check.name:{width}}  {check.value}")
        if check.remedy:
            print(f"{'':>6}  {'':{width}}  -> {check.remedy}")
    broken = [check.name for check in checks if check.essential and not check.ok]
    print(f"\nNot working: {', '.join(broken)}." if broken else "\nThe course can run here.")
    return int(bool(broken))


def check_python() -> Check:
    """Python 3.11 or newer."""
    value = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    ok = sys.version_info >= (3, 11)
    remedy = "" if ok else "Install Python 3.11 or newer and make a new environment with it."
    return Check("Python", value, ok, remedy, essential=True)


def check_package() -> Check:
    """derm-hash itself, as an installed package."""
    version = version_of("derm-hash")
    remedy = "" if version else f"To install it, {INSTALL}."
    return Check("derm-hash", version or "not installed", bool(version), remedy, essential=True)


def check_torch() -> Check:
    """A torch that imports and is new enough."""
    torch, problem = load("torch")
    if problem:
        remedy = f"To install torch, {INSTALL}."
        return Check("torch", problem, False, remedy, essential=True)
    ok = numbers(torch.__version__) >= (2, 6)
    remedy = "" if ok else "Upgrade torch and torchvision together: derm-hash needs torch 2.6."
    return Check("torch", torch.__version__, ok, remedy, essential=True)


def check_torchvision() -> Check:
    """A torchvision that imports, which it does only beside the torch that it was built for."""
    _, problem = load("torchvision")
    version = version_of("torchvision")
    if not problem:
        return Check("torchvision", version or "unknown version", essential=True)
    if version is None:
        remedy = f"To install torchvision, {INSTALL}."
    else:
        remedy = (
            "torchvision and torch must come from the same place and release: install both again "
            "with one command, `pip install --force-reinstall torch torchvision`."
        )
        problem = f"{version} beside torch {version_of('torch') or '(none)'}: {problem}"
    return Check("torchvision", problem, False, remedy, essential=True)


def check_device() -> Check:
    """Where training will run: a CUDA GPU, Apple's GPU, or the CPU with its threads."""
    torch, problem = load("torch")
    if problem:
        return Check("device", "unknown without torch", False, "Repair torch first.")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        more = f", the first of {n}" if (n := torch.cuda.device_count()) > 1 else ""
        return Check("device", f"GPU {torch.cuda.get_device_name(0)}, {memory:.0f} GiB{more}")
    if torch.backends.mps.is_available():
        return Check("device", f"GPU of this Mac (MPS), {platform.machine()}")
    value = f"CPU, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if shutil.which("nvidia-smi") is None:
        return Check("device", value)
    remedy = (
        "There is an NVIDIA driver, yet this torch does not use the GPU: install a CUDA build of "
        "torch, or a newer driver."
    )
    return Check("device", value, False, remedy)


def check_faiss() -> Check:
    """The search library."""
    faiss, problem = load("faiss")
    value = problem or getattr(faiss, "__version__", "unknown version")
    remedy = f"To install faiss-cpu, {INSTALL}." if problem else ""
    return Check("faiss", value, not problem, remedy, essential=True)


def check_requirements() -> Check:
    """Every package that derm-hash always needs, in a version that it accepts."""
    requirement, problem = load("packaging.requirements")
    needs = metadata.requires("derm-hash") if version_of("derm-hash") else None
    if problem or needs is None:
        return Check("packages", "cannot be compared", False, f"To repair them, {INSTALL}.", True)
    needs = [requirement.Requirement(need) for need in needs]
    needs = [need for need in needs if need.marker is None or need.marker.evaluate()]
    found = {need: version_of(need.name) for need in needs}
    wrong = [
        f"{need} (found {version or 'none'})"
        for need, version in found.items()
        if version is None or not need.specifier.contains(version, prereleases=True)
    ]
    value = f"{len(needs) - len(wrong)} of {len(needs)} as required"
    remedy = f"Missing or unfit: {'; '.join(wrong)}. To repair them, {INSTALL}." if wrong else ""
    return Check("packages", value, not wrong, remedy, essential=True)


def check_memory() -> Check:
    """Free memory: the course needs about 2 GiB."""
    psutil, problem = load("psutil")
    if problem:
        return Check("memory", f"unknown: {problem}", False, f"To install psutil, {INSTALL}.")
    memory = psutil.virtual_memory()
    ok = memory.available >= 2 * GIB
    remedy = "" if ok else "Close other programs, or train with a smaller batch."
    value = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    return Check("memory", value, ok, remedy)


def check_disk() -> Check:
    """Free space where the user stands, for data and runs."""
    free = shutil.disk_usage(Path.cwd()).free / GIB
    remedy = "" if free >= 2 else "Free some space: data sets and runs need a few GiB."
    return Check("disk here", f"{free:.1f} GiB free in {Path.cwd()}", free >= 2, remedy)


def check_cache() -> Check:
    """The folder for trained models and drawn images, DERM_HASH_HOME."""
    folder = Path(os.environ.get("DERM_HASH_HOME") or "~/.cache/derm-hash").expanduser().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / GIB
    if not (there.is_dir() and os.access(there, os.W_OK)):
        remedy = "Set the environment variable DERM_HASH_HOME to a folder that you may write to."
        return Check("cache", f"{folder} cannot be written", False, remedy, essential=True)
    remedy = "" if free >= 1 else "Free some space, or set DERM_HASH_HOME to a larger disk."
    return Check("cache", f"{free:.1f} GiB free in {folder}", free >= 1, remedy)


def check_lab() -> Check:
    """JupyterLab 4."""
    version = version_of("jupyterlab")
    ok = version is not None and numbers(version) >= (4, 2)
    remedy = "" if ok else f"For the notebooks in JupyterLab 4.2 or newer, {INSTALL}."
    return Check("JupyterLab", version or "not installed", ok, remedy)


def check_widgets() -> Check:
    """ipywidgets with the JupyterLab extension of the same generation (8 goes with 3), where
    JupyterLab finds it."""
    kernel, browser = version_of("ipywidgets"), version_of("jupyterlab-widgets")
    value = f"ipywidgets {kernel or '(none)'}, jupyterlab-widgets {browser or '(none)'}"
    fit = kernel and browser and (numbers(kernel)[0], numbers(browser)[0]) == (8, 3)
    if not fit:
        remedy = "Install a pair that fits: `pip install 'ipywidgets>=8.1'`, then restart Jupyter."
        return Check("widgets", value, False, remedy)
    paths, problem = load("jupyter_core.paths")
    folders = [] if problem else paths.jupyter_path("labextensions")
    extension = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    if any(Path(folder, extension).exists() for folder in folders):
        return Check("widgets", value)
    remedy = "Install it again: `pip install --force-reinstall --no-deps jupyterlab-widgets`."
    return Check("widgets", f"{value}, whose files JupyterLab does not find", False, remedy)


def check_browser() -> Check:
    """A Chromium or Chrome that programs can drive; a person may use any browser."""
    path = find_browser()
    remedy = (
        ""
        if path
        else "Only the browser tests need one: install Chromium or Chrome (Debian: `apt-get "
        "install chromium`)."
    )
    return Check("browser", path or "no Chromium or Chrome found", bool(path), remedy)


def find_browser() -> str | None:
    """Path of a Chromium or Chrome on this machine, or None."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or (str(MAC_CHROME) if MAC_CHROME.exists() else None)


def load(name):
    """(module, "") where it imports, else (None, first line of what went wrong)."""
    try:
        return importlib.import_module(name), ""
    except BROKEN as error:
        first = (str(error).splitlines() or [""])[0]
        return None, f"does not import ({type(error).__name__}: {first})"


def version_of(distribution: str) -> str | None:
    """Version of an installed package, without importing it; None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """'2.14.1+cu130' -> (2, 14)."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


if __name__ == "__main__":
    sys.exit(print_report())
