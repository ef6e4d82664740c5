"""How much memory a call takes at its worst. Linux tells; elsewhere there is no answer."""

import re
from collections.abc import Callable
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
UNKNOWN = "the peak of a process cannot be read here"


def peak_added(function: Callable[[], object]) -> float | None:
    """MB by which the process grows, at most, during a call; None where nobody tells.

    Memory that was used and given back before counts as there, so call it in a young process.
    """
    try:
        RESET.write_text("5")  # the peak is from now on
        before, _ = _mb("VmRSS"), _mb("VmHWM")
    except OSError:
        return None
    result = function()  # kept, so that it counts
    added = _mb("VmHWM") - before
    del result
    return added


def _mb(key: str) -> float:
    if found := re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text()):
        return int(found[1]) / 1024
    raise OSError(f"{STATUS} has no {key}")  # some containers leave it out
