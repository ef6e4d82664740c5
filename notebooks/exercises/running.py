"""Run a student's notebook where it can do no harm, and say which of its tests it passes.

Only the kernel holds the student's code. It runs in a sandbox (bubblewrap): without a network, with
a small folder of its own, and with nothing else to see but Python and the libraries. The tests
reach it one at a time over sockets in that folder, and the points come from its replies.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat.v4 import new_code_cell, new_output
from submissions import mark

from derm_hash.errors import InputError, one_line

STARTUP = 300  # seconds for a kernel
FIRST = 300  # seconds for each cell before the first answer, such as imports
MEMORY = 4 * 2**30  # bytes, of all processes together
FILES = 64 * 2**20  # bytes that a notebook may write
PROCESSES = 100
SHARED = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
)
TIMEOUT = {"ename": "CellTimeoutError", "evalue": "", "traceback": []}
# What tests lean on: whoever replaces one of these functions has written no answer. (PyTorch
# itself replaces some of its own, by others of its own, when parts of it are loaded.)
FINGERPRINT = """
import builtins, json, sys
for _name in vars(builtins): globals().pop(_name, None)
_places = {name: sys.modules[name] for name in ("builtins", "math", "numpy", "numpy.linalg",
    "torch", "torch.nn", "torch.nn.functional", "torch.linalg") if name in sys.modules}
if "torch" in _places: _places["torch.Tensor"] = _places["torch"].Tensor
print(json.dumps({f"{_place}.{_name}": [id(_value), str(getattr(_value, "__module__", ""))]
    for _place, _module in _places.items() for _name, _value in vars(_module).items()
    if callable(_value) and (_name[0] != "_" or _place == "torch.Tensor") and _name != "input"}))
""".strip()


@dataclass
class Outcome:
    """The notebook as it ran; what each test said ('' = passed); what a lecturer should know."""

    notebook: nbformat.NotebookNode
    tests: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Kernel(AsyncKernelManager):
    """A kernel that another command, the sandbox, starts."""

    sandbox: tuple[str, ...] = ()

    def format_kernel_cmd(self, extra_arguments=None):
        """The command of the sandbox, before that of the kernel."""
        return [*self.sandbox, *super().format_kernel_cmd(extra_arguments)]


def bubblewrap(box: Path, hidden: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The command that shows a program ``box`` and Python, without the packages ``hidden``."""
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    shown = [*SHARED, *dict.fromkeys((sys.base_prefix, sys.prefix, *libraries))]
    mounts = [word for path in shown for word in ("--ro-bind-try", path, path)]
    for folder in (Path(base) / name for base in libraries for name in hidden):
        mounts += ["--tmpfs", str(folder)] if folder.is_dir() else []
    command = ("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL")
    own = ("--proc", "/proc", "--dev", "/dev", "--size", str(FILES), "--tmpfs", "/tmp")
    return (*command, *own, *mounts, "--bind", str(box), str(box), "--chdir", str(box / "work"))


def has_sandbox() -> bool:
    """Whether bubblewrap is here and works."""
    with tempfile.TemporaryDirectory() as box:
        (Path(box) / "work").mkdir()
        command = " ".join([*bubblewrap(Path(box)), "true", "2>/dev/null"])
        return shutil.which("bwrap") is not None and os.system(command) == 0


def run(
    notebook: nbformat.NotebookNode, seconds: int, trust: bool = False, data: tuple[Path, ...] = ()
) -> Outcome:
    """Execute a notebook whose tests are the lecturer's.

    Parameters
    ----------
    notebook
        Its metadata ``hidden`` lists packages that it must not import. It gets the outputs.
    seconds
        What a cell may take from the first answer on.
    trust
        Without a sandbox, with the rights of the user.
    data
        Files that the notebook finds in its working folder.

    Raises
    ------
    InputError
        Its sentence says why there are no points.
    """
    outcome, box = Outcome(notebook), Path(tempfile.mkdtemp(prefix="grading-", dir="/tmp"))
    hidden = tuple(notebook.metadata.get("hidden", ()))
    (box / "work").mkdir()
    for path in data:
        shutil.copy(path, box / "work")
    client = NotebookClient(
        notebook, allow_errors=True, interrupt_on_timeout=True, error_on_timeout=TIMEOUT,
        startup_timeout=STARTUP, kernel_manager_class=Kernel, shutdown_kernel="immediate",
        resources={"metadata": {"path": str(box / "work")}}, on_cell_executed=note_timeout,
    )  # fmt: skip
    manager = client.create_kernel_manager()
    manager.transport, manager.connection_file = "ipc", str(box / "kernel.json")
    manager._kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        interrupt_mode="message",
    )
    limits = ("sh", "-c", f'unset JPY_PARENT_PID; ulimit -f {FILES // 512}; exec "$@"', "sh")
    manager.sandbox = (*limits, *(() if trust else bubblewrap(box, hidden)))
    reasons = []
    try:
        with watched(client, box, seconds, outcome, reasons):
            execute(client, outcome, seconds)
    except (DeadKernelError, CellControlSignal, RuntimeError) as error:
        raise InputError(reasons[0] if reasons else cause(error)) from error
    finally:
        shutil.rmtree(box, ignore_errors=True)
    return outcome


@contextlib.contextmanager
def watched(client, box: Path, seconds: int, outcome: Outcome, reasons: list) -> Iterator[None]:
    """A kernel that is ended, with all that it has started, when it takes too much or is done."""
    secret, over = secrets.token_hex(8), threading.Event()
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(box / "work")}
    env |= {
        "USER": "student",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "LANG": "C.UTF-8",
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with client.setup_kernel(env=env | {"GRADING": secret}, **quiet):
        started = {process.pid for process in marked(secret)}
        end = time.monotonic() + STARTUP + 20 * seconds
        guard = threading.Thread(target=watch, args=(secret, box, end, over, reasons), daemon=True)
        guard.start()
        try:
            yield
        finally:
            over.set()
            guard.join()
            left = [process for process in marked(secret) if process.pid not in started]
            if left:
                outcome.notes.append(f"Processes that were left running and ended: {len(left)}")
            for process in marked(secret):
                with contextlib.suppress(psutil.Error):
                    process.kill()


def marked(secret: str) -> list[psutil.Process]:
    """The processes that a kernel has started, and itself, whatever their parents are now."""
    found = psutil.process_iter(["environ"])
    return [
        process for process in found if (process.info["environ"] or {}).get("GRADING") == secret
    ]


def watch(secret: str, box: Path, end: float, over: threading.Event, reasons: list[str]) -> None:
    """End the processes that carry ``secret`` once they take too much, and give the reason."""
    while not over.wait(0.5):
        memory, processes, size = 0, marked(secret), 0
        with contextlib.suppress(psutil.Error, OSError):
            size = sum(path.lstat().st_blocks * 512 for path in box.rglob("*"))
            memory = sum(process.memory_info().rss for process in processes)
        for reason, broken in {
            "It takes more than 4 GB of memory": memory > MEMORY,
            "It writes more than 64 MB to disk": size > FILES,
            f"It starts more than {PROCESSES} processes": len(processes) > PROCESSES,
            "It takes too long on the whole, and the time limit of its cells could not stop it: "
            "look for an endless loop": time.monotonic() > end,
        }.items():
            if broken:
                reasons.append(reason)
                for process in processes:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                return


def cause(error: Exception) -> str:
    """Why there is no result, in one sentence."""
    if "respond" in str(error) or "before replying" in str(error):
        return (
            "No kernel started in time, for this computer is too busy: run the same command again"
        )
    if isinstance(error, DeadKernelError):
        return (
            "The kernel died while it ran the code, which ends Python itself or takes too much "
            "memory"
        )
    return f"The time limit could not stop a cell ({one_line(error)}): look for an endless loop"


def execute(client: NotebookClient, outcome: Outcome, seconds: int) -> None:
    """Run the cells one after the other, and each test with what shows that it has run."""
    before, prepared, answered, late = {}, [], False, 0
    for index, cell in enumerate(client.nb.cells):
        if cell.cell_type != "code":
            continue
        about = mark(cell)
        answered = answered or bool(about.get("solution"))
        client.timeout = seconds if answered else max(FIRST, seconds)
        if about.get("grade"):
            refuse_replaced(before, fingerprint(client, index, prepared))
            outcome.tests[about["grade_id"]] = tested(client, cell, index)
        else:
            before = before or fingerprint(client, index)
            client.execute_cell(cell, index)
            if about.get("solution") and (errors := errors_of(cell)):
                outcome.notes.append(f"The cell {about['grade_id']} fails: {said(errors[0])}")
            if about.get("locked"):
                refuse_late(cell)
                prepared.append(cell.source)  # before the tests, once more: names may be taken
                before = before if answered else fingerprint(client, index) | before
        late += any(out.get("ename") == "CellTimeoutError" for out in cell.outputs)
    if late:
        outcome.notes.append(f"Cells stopped after {seconds} s: {late}")


def fingerprint(client: NotebookClient, index: int, prepared=()) -> dict[str, list]:
    """Name of each function that tests lean on -> what it is, after what prepares a test."""
    cell = aside(client, "\n".join([*prepared, FINGERPRINT]), index)
    refuse_late(cell)
    text = "".join(output.get("text", "") for output in cell.outputs)
    try:
        return json.loads(text.splitlines()[-1])
    except (ValueError, IndexError):
        raise InputError("Its code changes how cells are run: read it") from None


def aside(client: NotebookClient, source: str, index: int) -> nbformat.NotebookNode:
    """Run a cell that is not in the notebook, and return it with its outputs."""
    kept = client.nb.cells[index]
    cell = client.execute_cell(new_code_cell(source), index, store_history=False)
    client.nb.cells[index] = kept
    return cell


def refuse_replaced(before: dict[str, list], now: dict[str, list]) -> None:
    """Raise InputError if a function is another one than at the beginning."""
    changed = [
        name
        for name in before.keys() & now.keys()
        if before[name][0] != now[name][0]
        and not (name.startswith("torch") and now[name][1].startswith("torch"))
    ]
    if changed:
        raise InputError(f"Its code replaces {', '.join(sorted(changed)[:3])}: read it")


def tested(client: NotebookClient, cell, index: int) -> str:
    """Run one test; what it says, or nothing if it passes."""
    source, seal = cell.source, secrets.token_hex(8)
    cell.source = f"{source}\n{seal!r}"
    client.execute_cell(cell, index, store_history=False)
    cell.source = source
    errors = errors_of(cell)
    sealed = [out for out in cell.outputs if out.get("data", {}).get("text/plain") == repr(seal)]
    cell.outputs = [out for out in cell.outputs if out not in sealed]
    failing = f"{source.splitlines()[0]}\nassert 1 == 2, {seal!r}"
    trial = aside(client, failing, index)
    if [out.get("evalue") for out in trial.outputs] != [seal] or bool(errors) == bool(sealed):
        raise InputError("Its code changes how tests are run: read it")
    return said(errors[0]) if errors else ""


def errors_of(cell) -> list:
    """What a cell has raised."""
    return [out for out in cell.get("outputs", ()) if out.output_type == "error"]


def said(error) -> str:
    """What an error says, in one line."""
    if error.ename == "CellTimeoutError":
        return "The time limit stopped it"
    text = re.sub(r"\x1b\[[\d;]*m", "", error.evalue).strip()
    return (
        text if error.ename == "AssertionError" and text else f"{error.ename}: {text}".rstrip(": ")
    )


def note_timeout(cell, cell_index, execute_reply) -> None:
    """Let a cell show that the time limit has stopped it, whatever it has made of that itself."""
    if execute_reply["content"].get("ename") == TIMEOUT["ename"]:
        cell.outputs.insert(0, new_output("error", **TIMEOUT))


def refuse_late(cell) -> None:
    """Raise InputError if the time limit stopped a cell of the lecturer's that only prepares."""
    if any(output.get("ename") == "CellTimeoutError" for output in cell.outputs):
        raise InputError(
            f"The cell {mark(cell).get('grade_id', 'setup')}, which no student has written, was "
            "stopped by the time limit: this computer is too busy; run the same command again"
        )
