"""Readers may stop a cell, run a cell again, or restart the kernel midway."""

import random
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(path.name[:2] for path in FOLDER.glob("[0-9]*.ipynb"))
SHORT = ["01"]  # these run once in `make test`
TIMES = 10  # runs of each in `make test-full`


def client_of(path, manager):
    """A client with its own copy of the notebook; the file does not change."""
    return NotebookClient(
        nbformat.read(path, as_version=4),
        kernel_name="python3",
        kernel_manager_class=manager,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
        timeout=600,
    )


# An alarm stands for the interrupt of a reader, because an interrupt between two cells is lost.
STOPPED = """
import signal as _signal
_signal.signal(_signal.SIGALRM, _signal.default_int_handler)
_signal.setitimer(_signal.ITIMER_REAL, {seconds})
{source}
_signal.setitimer(_signal.ITIMER_REAL, 0)
"""


def stop_midway(client, index, seconds):
    """Run a cell, and interrupt it if it takes longer than ``seconds``."""
    source = STOPPED.format(seconds=seconds, source=client.nb.cells[index].source)
    try:
        client.execute_cell(nbformat.v4.new_code_cell(source), index)
    except CellExecutionError as error:
        if error.ename != "KeyboardInterrupt":
            raise


def run_restlessly(path, rng, manager):
    """Run up to a random cell, then in a new kernel from the top to the end.

    One cell in ten is stopped and run again, and after one in ten an earlier cell is run once more.
    Cells that import are not stopped, because Python cannot go on with half-loaded modules.
    """
    for last in (rng.random(), 1):
        client = client_of(path, manager)
        code = [i for i, cell in enumerate(client.nb.cells) if cell.cell_type == "code"]
        with client.setup_kernel():
            for place, index in enumerate(code[: max(1, round(last * len(code)))]):
                cell = client.nb.cells[index]
                if rng.random() < 0.1 and "import " not in cell.source:
                    stop_midway(client, index, rng.expovariate(2))
                client.execute_cell(cell, index)
                if rng.random() < 0.1:
                    again = rng.choice(code[: place + 1])
                    client.execute_cell(client.nb.cells[again], again)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_works_for_restless_readers(name, build, full, monkeypatch):
    if not full and name not in SHORT:
        pytest.skip("runs with --full (make test-full)")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    (path,) = FOLDER.glob(f"{name}_*.ipynb")
    for turn in range(TIMES if full else 1):
        run_restlessly(path, random.Random(f"{name}, {turn}"), build.OwnKernel)
