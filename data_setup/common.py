"""What every command shares: options, the life of a data folder, the report."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from data_setup.audit import leakage, split_table
from derm_hash.data import (
    MANIFEST,
    class_order,
    read_manifest,
    split_by_image,
    split_by_lesion,
    write_atomically,
    write_manifest,
)
from derm_hash.errors import InputError

RECORD = "dataset.json"
LOCK = ".lock"
SPLITTERS = {"lesion": split_by_lesion, "paper": split_by_image}


# --- options --------------------------------------------------------------------


def positive(text: str) -> int:
    """argparse type of a whole number from 1 up."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not possible: use 1 or more")
    return number


def natural(text: str) -> int:
    """argparse type of a whole number from 0 up."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not possible: use 0 or more")
    return number


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command."""
    parser.add_argument("--root", type=Path, required=True, help="data folder to fill")
    parser.add_argument(
        "--split",
        choices=sorted(SPLITTERS),
        default="lesion",
        help="lesion: no lesion is in two parts; paper: by image, 10 %% of each class as queries, "
        "so that images of one lesion may be on both sides (default: %(default)s)",
    )
    parser.add_argument("--seed", type=natural, default=0, help="of everything random (default: 0)")
    parser.add_argument("--workers", type=positive, help="threads (default: a few more than cores)")
    parser.add_argument(
        "--force", action="store_true", help="make a finished data folder anew, with these options"
    )


# --- the life of a data folder -----------------------------------------------------


def build(
    root: Path,
    command: str,
    options: dict,
    sources: dict,
    make: Callable[[Path], pd.DataFrame],
    force: bool = False,
    about: dict | None = None,
) -> None:
    """Fill a data folder, or complete one that the same command left unfinished.

    The manifest is written last, so an interrupted folder has none and nothing takes
    it for a data set; `make` skips the files that are there already.

    Args:
        root: the folder.
        command: name of the data_setup command.
        options: what decides the contents: numbers and strings.
        sources: names of the files read and something that changes with them.
        make: writes images and masks below the folder, each whole or not at all, and
            returns the manifest's rows with the split filled.
        force: make a finished folder anew.
        about: further entries of ``dataset.json``: citation, licence.

    Raises:
        InputError: the folder holds other files or, without `force`, a data set made
            with other options, or somebody else is writing it; and whatever `make` raises.
    """
    root = root.expanduser()
    request = {"command": command, "options": options, "sources": sources}
    with one_writer(root):
        if is_finished(root, request) and not force:
            print(f"{root} is complete already; --force makes it anew.")
        else:
            record = {"tool": f"derm-hash {tool_version()}", **request, **(about or {})}
            clear_unless_same(root, request, force)
            write_record(root, record)
            frame = make(root)
            write_record(root, record | {"counts": counts(frame)})
            write_manifest(frame, root)
        report(read_manifest(root), root)


@contextmanager
def one_writer(root: Path) -> Iterator[None]:
    """Hold the folder's lock; leave no folder behind if nothing was put into it."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file: choose another --root")
    if root.is_dir() and any(root.iterdir()) and not (root / RECORD).exists():
        others = [path.name for path in root.iterdir() if path.name != LOCK]
        if others:
            raise InputError(
                f"{root} holds other files (such as {min(others)}): choose an empty --root"
            )
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another data_setup is writing {root}: wait for it or choose another --root"
        ) from None
    try:
        yield
    finally:
        if all(path.is_dir() or path.name in (LOCK, RECORD) for path in root.rglob("*")):
            shutil.rmtree(root)
        lock.release()


def is_finished(root: Path, request: dict) -> bool:
    """Whether the folder is complete and answers the same request."""
    return (root / MANIFEST).exists() and differences(root, request) == []


def differences(root: Path, request: dict) -> list[str]:
    """What was asked for otherwise when the folder was made, in words."""
    record = read_record(root)
    if record.get("command") != request["command"]:
        return [f"by the command {record.get('command')!r}"]
    before, now = record.get("options", {}), json.loads(json.dumps(request["options"]))
    changed = [
        f"with {name} {before.get(name)} instead of {value}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    same_sources = record.get("sources") == json.loads(json.dumps(request["sources"]))
    return changed + ([] if same_sources else ["from other source files"])


def clear_unless_same(root: Path, request: dict, force: bool) -> None:
    """Remove what an earlier run made, unless it is an unfinished one of the same request."""
    if not (root / RECORD).exists():
        return
    finished, changes = (root / MANIFEST).exists(), differences(root, request)
    if finished and not force:
        raise InputError(
            f"{root} is a data set made {' and '.join(changes)}: choose another --root, "
            "or make it anew with --force"
        )
    if finished or changes:
        # The manifest first: without it the folder is no data set. The record last:
        # without it nobody would know that the images came from here.
        (root / MANIFEST).unlink(missing_ok=True)
        for name in ("images", "masks"):
            shutil.rmtree(root / name, ignore_errors=True)
        (root / RECORD).unlink()
    for part in root.rglob(".*.part"):
        part.unlink()


def read_record(root: Path) -> dict:
    """``dataset.json`` of a folder, {} where there is none.

    Raises:
        InputError: it is no JSON object.
    """
    path = root / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise InputError(f"{path} is damaged: delete the folder {root} and prepare it again")
    return record


def write_record(root: Path, record: dict) -> None:
    """Write ``dataset.json``."""
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_atomically(root / RECORD, lambda part: part.write_text(text, encoding="utf-8"))


def tool_version() -> str:
    """Installed version of this project."""
    try:
        return version("derm-hash")
    except PackageNotFoundError:
        return "(not installed)"


def put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    write_atomically(path, lambda part: part.write_bytes(data))


def check_space(root: Path, need: int) -> None:
    """Refuse to start what cannot end.

    Raises:
        InputError: the disk of `root` has less than `need` bytes free.
    """
    free = shutil.disk_usage(root).free
    if need > free:
        raise InputError(
            f"{root} needs {need / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB free: "
            "make room or choose another --root"
        )


# --- the report -----------------------------------------------------------------------


def counts(frame: pd.DataFrame) -> dict:
    """Numbers of images, masks and lesions, and of images per class and split."""
    table = split_table(frame)
    return {
        "images": len(frame),
        "masks": int((frame["mask"] != "").sum()) if "mask" in frame else 0,
        "lesions": int(frame.loc[frame["lesion_id"] != "", "lesion_id"].nunique()),
        "classes": {label: table.loc[label].to_dict() for label in class_order(frame["label"])},
    }


def report(frame: pd.DataFrame, root: Path) -> None:
    """Print what the folder holds and what to type next."""
    numbers = counts(frame)
    print(f"\n{split_table(frame).to_string()}\n")
    lesions = f"of {numbers['lesions']} lesions, " if numbers["lesions"] else ""
    print(f"{root}: {numbers['images']} images {lesions}{numbers['masks']} masks")
    if not numbers["lesions"]:
        print("Which images show the same lesion is not known, so a lesion may be in two parts.")
    elif (share := leakage(frame).at["all", "share"]) > 0:
        print(f"{share:.0%} of the query images show a lesion that is in the database or val too.")
    print(f"\nNext: derm-hash train --data {shlex.quote(str(root))}")
