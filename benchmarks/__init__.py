"""Benchmarks: the kit and a named alternative, timed in the same run."""

import datetime
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import faiss
import numpy as np
import psutil
import torch

from derm_hash import __version__
from derm_hash.precision import computes_in_bf16

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
"""The recorded results, which are committed."""
LATEST = HERE.parent / "build" / "bench"
"""Where a run that is not recorded writes."""


@dataclass
class Row:
    """A row of the table: a target, and what was measured.

    Attributes
    ----------
    what : the work, with its size
    against : the alternative, or "" if the target is in seconds or MB
    target : at least this much, in ``unit`` (``at_most``: at most); None if the benchmark failed
    measured : the number that was found; None if it could not be measured
    note : how it was measured, or why it was not
    details : what else is written to the JSON file
    """

    what: str
    against: str
    target: float | None
    measured: float | None
    unit: str = "x"
    at_most: bool = False
    note: str = ""
    details: dict = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if nothing was measured."""
        if self.measured is None:
            return None
        kept = self.measured <= self.target if self.at_most else self.measured >= self.target
        return bool(kept)


def side_by_side(
    functions: dict[str, Callable[[], object]],
    repeats: int = 5,
    summary: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Seconds of each function: the median of ``repeats`` calls, after one call to warm up.

    The functions take turns, so that other work on the machine disturbs all of them alike. To
    compare one function with a limit of the machine, take the fastest call (``summary=min``).
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(1 + repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: summary(taken) for name, taken in times.items()}


def has_bf16() -> bool:
    """Whether the CPU multiplies in bfloat16 (AMX or AVX-512 BF16)."""
    return computes_in_bf16("cpu")


def machine() -> dict:
    """Where, when and with what a number was measured."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpuinfo("model name") or platform.processor() or "unknown",
        "cores": psutil.cpu_count(),
        "bf16": has_bf16(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu,
        "threads": {"torch": torch.get_num_threads(), "faiss": faiss.omp_get_max_threads()},
        "load": round(psutil.getloadavg()[0], 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "derm_hash": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "faiss": faiss.__version__,
        "numpy": np.__version__,
    }


def _cpuinfo(key: str) -> str:
    file = Path("/proc/cpuinfo")
    for line in file.read_text().splitlines() if file.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


@cache  # asked once, before a recorded result changes the checkout
def _commit() -> str:
    call = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def child(*arguments: str) -> str:
    """Return what ``python -m ARGUMENTS`` prints in a process of its own.

    Raises
    ------
    RuntimeError
        With the last line of its error output, if it fails.
    """
    call = [sys.executable, "-m", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"{' '.join(arguments)}: {last}")
    return done.stdout
