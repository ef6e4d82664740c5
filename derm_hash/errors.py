"""The error that means: what the user gave cannot be used; and what a command says of errors."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """A value, file or folder from outside cannot be used.

    ``str(error)`` is one sentence that names the value and the remedy. The
    command line prints it without a traceback; the widgets show it in place.
    """


def exit_code(program: str, command: Callable[[], int | None], stopped: str) -> int:
    """Run a command; 0 when it worked, 2 with one sentence for bad input or a disk that refuses,
    130 when it was stopped, and otherwise what the command returns.

    Parameters
    ----------
    program : str
        Name to begin the sentence with.
    command : callable without arguments
    stopped : str
        What to say after Ctrl-C.
    """
    try:
        return command() or 0
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"{program}: the system refuses: {error}: nothing was left half-written; make room "
            "or correct the file's rights, and run the same command again",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"\n{program}: {stopped}", file=sys.stderr)
        return 130
