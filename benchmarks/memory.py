"""The peak memory of a call, which only Linux reports."""

import re
from collections.abc import Callable
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
UNKNOWN = "the peak of a process cannot be read here"


def peak_added(function: Callable[[], object]) -> float | None:
    """MB by which the process grows, at most, during a call; None if it cannot be read.

    Call it in a new process: memory that was used and freed before is not counted again.
    """
    try:
        RESET.write_text("5")  # the peak counts from here
        before, _ = _mb("VmRSS"), _mb("VmHWM")
    except OSError:
        return None
    result = function()  # held until the peak is read
    added = _mb("VmHWM") - before
    del result
    return added


def _mb(key: str) -> float:
    if found := re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text()):
        return int(found[1]) / 1024
    raise OSError(f"{STATUS} has no {key}")  # some containers leave it out
