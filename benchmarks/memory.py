"""How much memory a call takes at its worst. Linux tells; elsewhere there is no answer."""

import re
from collections.abc import Callable
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_added(function: Callable[[], object]) -> float:
    """MB by which the process grows, at most, during a call.

    Memory that was used and given back before counts as there, so call it in a young process.
    """
    RESET.write_text("5")  # the peak is from now on
    before = _mb("VmRSS")
    result = function()  # kept, so that it counts
    added = _mb("VmHWM") - before
    del result
    return added


def _mb(key: str) -> float:
    return int(re.search(rf"{key}:\s+(\d+) kB", STATUS.read_text())[1]) / 1024
