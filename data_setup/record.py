"""What every command checks in a data folder: the record ``dataset.json``, and the disk space."""

import shutil
from pathlib import Path

from derm_hash import __version__
from derm_hash.errors import InputError
from derm_hash.files import LOCK, read_json

RECORD = "dataset.json"
SUMS = "SHA256SUMS"
TOOL = f"derm-hash {__version__}"


def check_space(folder: Path, need: int) -> None:
    """Raise `InputError` if fewer than `need` bytes are free on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(
            f"{folder} needs {need / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free: "
            "make room or choose another --root"
        )


def read_record(root: Path) -> dict:
    """``dataset.json`` of a folder, {} where there is none; `InputError` if it is damaged."""
    path = root / RECORD
    return read_json(path, "prepare the data again in an empty folder") if path.exists() else {}


def is_own_record(path: Path) -> bool:
    """Whether a file is a record that data_setup wrote.

    Other tools write a ``dataset.json`` too, and we must not remove the files beside theirs.
    """
    try:
        return str(read_record(path.parent).get("tool")).startswith("derm-hash ")
    except (OSError, InputError):
        return False


def is_scaffold(path: Path) -> bool:
    """Whether a file is a lock, a part or a record of data_setup, which hold no data."""
    part = path.name.startswith(".") and path.suffix == ".part"
    return path.name == LOCK or part or (path.name == RECORD and is_own_record(path))
