"""InputError, which means that what the user gave cannot be used; and how a command reports it."""

import errno
import io
import re
import sys
import warnings
from collections.abc import Callable

LONGEST_NAME = 1000  # characters of a class, an image or a lesion
LONGEST_QUOTE = 300  # characters of a value that a message quotes
# Control characters, which a terminal obeys, line ends, and halves of surrogate pairs.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# What to do about an error of the system, by names in errno, some of which a system may lack.
ROOM = "make room, or name a folder on another disk, and run the same command again"
RIGHTS = (
    "get permission to write there, or name another folder (for the cache: set the environment "
    "variable DERM_HASH_HOME)"
)
LOCKS = (
    "this disk has no file locks: name a folder on a disk that has them, such as one of this "
    "computer (for the cache: set the environment variable DERM_HASH_HOME)"
)
REMEDIES = {
    "ENOSPC EDQUOT EFBIG": ROOM,
    "EACCES EPERM EROFS": RIGHTS,
    "ENOLCK ENOTSUP EOPNOTSUPP ENOSYS": LOCKS,
    "EADDRINUSE": "another program uses this port: choose another with --port",
    "ENOENT ENOTDIR EISDIR EEXIST": "check the name",
    "ENAMETOOLONG": "choose a shorter name",
    "EMFILE ENFILE": "allow more open files, with `ulimit -n 4096`, and run the same command again",
    "ENOMEM": "close other programs, or use smaller batches",
    "EIO ESTALE ENODEV ENXIO": "check that the disk is connected, and run the same command again",
}


class InputError(ValueError):
    """A value, file or folder that the user gave cannot be used.

    ``str(error)`` is one sentence: what is wrong, in which value or file, and what to do. The
    command line prints it without a traceback; the explorers show it in place.
    """


def exit_code(program: str, command: Callable[[], int | None], stopped: str) -> int:
    """Run a command and return its exit status; its sentences begin with the name of the program.

    The status is what the command returned, or 0 for None; 2, after a sentence, for bad input or an
    error of the system, such as a full disk; 130 after Ctrl-C, with ``stopped`` as the sentence if
    the command itself does not say what it has kept.
    """
    print_on_any_console()
    try:
        return command() or 0
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        said = [f"{program}: the system refuses: {error}", remedy(error)]
        print(": ".join(filter(None, said)), file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"\n{program}: {str(error) or stopped}", file=sys.stderr)
        return 130


def print_on_any_console() -> None:
    """Print "?" for what the console's encoding lacks, instead of failing; warnings in one line."""
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def remedy(error: OSError) -> str:
    """What to do about an error of the system; "" if we have no advice."""
    for names, text in REMEDIES.items():
        if error.errno in [getattr(errno, name, -1) for name in names.split()]:
            return text
    return ""


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 image", "2,594 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
