"""The error that means: what the user gave cannot be used; and what a command says of errors."""

import re
import sys
from collections.abc import Callable

LONGEST_NAME = 1000  # characters of a class, an image or a lesion
LONGEST_QUOTE = 300  # characters of a value in a message
# Control characters, which a terminal obeys, ends of lines, and halves of characters.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


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


def shown(text: object) -> str:
    """What a message says of a value from outside: short, in one line, in printable characters."""
    text = str(text)
    text = text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."
    return UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)


def cannot_be_shown(name: str) -> bool:
    """Whether a name is too long for tables and figures, or not of printable characters."""
    return len(name) > LONGEST_NAME or UNPRINTABLE.search(name) is not None


def one_line(error: Exception) -> str:
    """What an error says, short and in one line."""
    return shown(" ".join(str(error).split()))[:200] or type(error).__name__
