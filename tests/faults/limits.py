"""What a file may cost its reader: seconds and memory, whatever errors the reader catches."""

import contextlib
import faulthandler
import re
import signal
import sys
from pathlib import Path

SECONDS = 20  # for one file, on a busy machine
MEMORY = 600_000_000  # bytes that reading may add


class TooSlow(BaseException):
    """A reader hangs. No Exception: readers take those for the errors of a damaged file."""


@contextlib.contextmanager
def time_limit(seconds: float = SECONDS, console=None):
    """End a reader that hangs, and after three times as long the whole process.

    Parameters
    ----------
    console : file that the process says on where it was when it had to end
    """

    def ring(*_):
        raise TooSlow(f"a file took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # Code in C that does not return to Python never hears the alarm.
    faulthandler.dump_traceback_later(3 * seconds, exit=True, file=console or sys.stderr)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, old)


class PeakMemory:
    """By how many bytes this process has grown since, at most. Only Linux tells; else 0."""

    def __init__(self):
        self.known = False
        with contextlib.suppress(OSError):  # some containers do not let it be reset
            Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
            self.before = self._status("VmRSS")
            self.known = True

    def added(self) -> int:
        return self._status("VmHWM") - self.before if self.known else 0

    def _status(self, key: str) -> int:
        text = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(rf"{key}:\s+(\d+) kB", text)[1])


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error came of a claim on more memory than there is."""
    while error is not None:
        # torch and pandas say it in words.
        if isinstance(error, MemoryError) or re.search("allocate memory|out of memory", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
