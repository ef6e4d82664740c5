"""InputError, which means that what the user gave cannot be used; and how a command reports it."""

import re
import sys
from collections.abc import Callable

LONGEST_NAME = 1000  # characters of a class, an image or a lesion
LONGEST_QUOTE = 300  # characters of a value that a message quotes
# Control characters, which a terminal obeys, line ends, and halves of surrogate pairs.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class InputError(ValueError):
    """A value, file or folder that the user gave cannot be used.

    ``str(error)`` is one sentence: what is wrong, in which value or file, and what to do. The
    command line prints it without a traceback; the explorers show it in place.
    """


def exit_code(program: str, command: Callable[[], int | None], stopped: str) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    program : str
        Name that begins the sentence.
    command : callable without arguments
    stopped : str
        What to say after Ctrl-C, if the command itself does not say what it has kept.

    Returns
    -------
    What the command returned, or 0 for None; 2, after printing one sentence, for bad input or
    a disk that refuses; 130 after Ctrl-C.
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
    except KeyboardInterrupt as error:
        print(f"\n{program}: {str(error) or stopped}", file=sys.stderr)
        return 130


def shown(text: object) -> str:
    """A value as a message quotes it: short, in one line, in printable characters."""
    text = str(text)
    text = text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."
    return UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)


def cannot_be_shown(name: str) -> bool:
    """Whether a name is too long for tables and figures, or has unprintable characters."""
    return len(name) > LONGEST_NAME or UNPRINTABLE.search(name) is not None


def one_line(error: Exception) -> str:
    """The text of a library's error, shortened to one line."""
    return shown(" ".join(str(error).split()))[:200].rstrip(".") or type(error).__name__
