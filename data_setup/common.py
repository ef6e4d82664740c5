"""What every command shares: options, the life of a data folder, the report."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from data_setup.audit import leakage, split_table
from data_setup.duplicates import duplicate_groups
from data_setup.prepare import FITS, Drawn, Source, put, store_all
from derm_hash.data.manifest import (
    MANIFEST,
    class_order,
    manifest_bytes,
    read_manifest,
    store_pixels,
    write_manifest,
)
from derm_hash.data.splits import split_by_image, split_by_lesion
from derm_hash.errors import InputError
from derm_hash.files import parse_json, thread_map

RECORD = "dataset.json"
SUMS = "SHA256SUMS"
LOCK = ".lock"
SPLITTERS = {"lesion": split_by_lesion, "paper": split_by_image}
TOOL = "derm-hash"
LISTED = 10


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


def pixels(text: str) -> int | None:
    """argparse type of ``--size``: a number of pixels, or None for the word ``original``."""
    return None if text == "original" else positive(text)


def add_common_arguments(
    parser: argparse.ArgumentParser, need_root: bool = True, own_split: str | None = None
) -> None:
    """The options of every command.

    Args:
        parser: of the command.
        need_root: whether the command cannot do anything without a data folder.
        own_split: name of a split that the command's rows come with; then the default.
    """
    parser.add_argument("--root", type=Path, required=need_root, help="data folder to fill")
    parser.add_argument(
        "--size",
        type=pixels,
        default=256,
        help="side in pixels of the squares to store; smaller images are not enlarged, and "
        "'original' keeps the files as they are (default: %(default)s)",
    )
    parser.add_argument(
        "--fit",
        choices=FITS,
        default="crop",
        help="crop: the centre square; pad: the whole image, its edge colour around it "
        "(default: %(default)s)",
    )
    own = f"{own_split}: the publisher's; " if own_split else ""
    parser.add_argument(
        "--split",
        choices=sorted([*SPLITTERS, *filter(None, [own_split])]),
        default=own_split or "lesion",
        help=f"{own}lesion: no lesion and no near-duplicate is in two parts; paper: by image, "
        "10 %% of each class as queries, so that images of one lesion may be on both sides "
        "(default: %(default)s)",
    )
    parser.add_argument("--seed", type=natural, default=0, help="of everything random (default: 0)")
    parser.add_argument("--workers", type=positive, help="threads (default: a few more than cores)")
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out images that cannot be read and list them in dataset.json, "
        "instead of stopping",
    )
    parser.add_argument(
        "--force", action="store_true", help="make a finished data folder anew, with these options"
    )


def add_publisher_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the commands whose files a publisher offers."""
    parser.add_argument(
        "--archives",
        type=Path,
        metavar="DIR",
        help="folder with the publisher's files, already downloaded; nothing is fetched then",
    )
    parser.add_argument(
        "--accept-licence",
        action="store_true",
        help="accept the licence that `python -m data_setup list` shows; needed for a download, "
        "which goes to downloads/NAME beside --root",
    )


# --- the life of a data folder -----------------------------------------------------


def build(
    args: argparse.Namespace,
    command: str,
    options: dict,
    sources: dict,
    rows: Callable[[], pd.DataFrame],
    about: dict | None = None,
) -> None:
    """Fill a data folder, or complete one that the same command left unfinished.

    The manifest is written last, so an interrupted folder has none and nothing takes
    it for a data set; files that are there already are not made again.

    Args:
        args: the options of `add_common_arguments`.
        command: name of the data_setup command.
        options: the command's own options that decide the contents: numbers and strings.
        sources: names of the files read and something that changes with them.
        rows: gives the manifest's rows, sorted by image, not split unless ``args.split`` is
            a split of the command's own, with the further columns ``image_from`` and
            ``mask_from`` (`prepare.Source`; None where there is no mask).
        about: further entries of ``dataset.json``: citation, licence.

    Raises:
        InputError: the folder holds other files or, without ``--force``, a data set made
            with other options, or somebody else is writing it; images cannot be used;
            and whatever `rows` raises.
    """
    root = args.root.expanduser()
    shared = {"size": args.size or "original", "fit": args.fit}
    shared |= {"split": args.split, "seed": args.seed}
    request = {"command": command, "options": options | shared, "sources": sources}
    with one_writer(root):
        if is_finished(root, request) and not args.force:
            print(f"{root} is complete already; --force makes it anew.")
        else:
            record = {"tool": f"{TOOL} {tool_version()}", **request, **(about or {})}
            clear_unless_same(root, request, args.force)
            write_record(root, record)
            frame, bad = fill(root, args, rows())
            names = {*frame["image"], *filter(None, frame["mask"])}
            if args.size and (decoded := store_pixels(root, frame["image"].tolist(), args.workers)):
                names.add(decoded.name)
            finish(root, frame, bad, names, record, args.workers)
        report(read_manifest(root), root)


def fill(
    root: Path, args: argparse.Namespace, frame: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Store the images; return the manifest, split, and why images were left out, by image."""
    check_space(root, space_needed(frame, args.size))
    count = len(frame)
    frame, bad = store_all(root, frame, args.size, args.fit, args.workers)
    if bad and not args.skip_bad:
        raise InputError(bad_images(bad, count))
    if frame.empty:
        raise InputError(f"none of the {count} images can be used: {next(iter(bad.values()))}")
    groups = duplicate_groups(root, frame["image"].tolist(), args.workers)
    frame = frame.assign(duplicate_group=groups)
    if args.split in SPLITTERS:
        frame = SPLITTERS[args.split](frame, seed=args.seed)
    return frame, bad


def finish(
    root: Path,
    frame: pd.DataFrame,
    bad: dict[str, str],
    names: set[str],
    record: dict,
    workers: int | None,
) -> None:
    """Write the checksums of the named files, the record and, last, the manifest."""
    files = sorted(names)
    digests = thread_map(lambda name: sha256(root / name), files, "checksums", True, workers)
    sums = dict(zip(files, digests, strict=True))
    sums[MANIFEST] = hashlib.sha256(manifest_bytes(frame)).hexdigest()
    text = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
    put(root / SUMS, text)
    result = {"counts": counts(frame), "bad": bad, SUMS: hashlib.sha256(text).hexdigest()}
    write_record(root, record | result)
    write_manifest(frame, root)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 over names, sizes and times of files: changes when any of them does."""
    digest = hashlib.sha256()
    for name in names:
        stat = (folder / name).stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def bad_images(bad: dict[str, str], count: int) -> str:
    """What to say when images cannot be used."""
    reasons = list(bad.values())
    if len(bad) == 1:
        return f"{reasons[0]}; --skip-bad goes on without it"
    more = len(bad) - LISTED
    lines = reasons[:LISTED] + ([f"and {more} more"] if more > 0 else [])
    return f"{len(bad)} of {count} images cannot be used; --skip-bad goes on without them:" + (
        "".join(f"\n  {line}" for line in lines)
    )


@contextmanager
def one_writer(root: Path) -> Iterator[None]:
    """Hold the folder's lock; leave no folder behind if nothing was put into it."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file: choose another --root")
    if root.is_dir() and not is_own_record(root / RECORD):
        others = [path.name for path in root.iterdir() if not is_scaffold(path)]
        if others:
            raise InputError(
                f"{root} holds other files (such as {min(others)}): choose an empty --root"
            )
    busy = f"another data_setup is writing {root}: wait for it or choose another --root"
    folder = root.resolve()  # a link stays; what is made and removed is where it leads
    with locked(folder, busy):
        try:
            yield
        finally:
            if all(path.is_dir() or is_scaffold(path) for path in folder.rglob("*")):
                # A mount point cannot be removed, which must not hide why the command failed.
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Hold the lock of a folder, made if need be; InputError: another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(busy) from None
    try:
        yield
    finally:
        lock.release()


def is_scaffold(path: Path) -> bool:
    """Whether a file is only there for the work on the folder: it holds nothing of the data."""
    part = path.name.startswith(".") and path.suffix == ".part"
    return path.name == LOCK or part or (path.name == RECORD and is_own_record(path))


def is_own_record(path: Path) -> bool:
    """Whether a file is a record that data_setup wrote.

    Other tools write a ``dataset.json`` too, and what lies beside theirs is not ours to remove.
    """
    try:
        record = read_record(path.parent)
    except (OSError, InputError):
        return False
    tables = (record.get(key) or {} for key in ("options", "sources", "bad"))
    return str(record.get("tool")).startswith(f"{TOOL} ") and all(
        isinstance(table, dict) for table in tables
    )


def is_finished(root: Path, request: dict) -> bool:
    """Whether the folder is complete and answers the same request."""
    return (root / MANIFEST).exists() and differences(root, request) == []


def differences(root: Path, request: dict) -> list[str]:
    """What was asked for otherwise when the folder was made, in words."""
    record = read_record(root)
    if record.get("command") != request["command"]:
        return [f"by the command {record.get('command')!r}"]
    before, now = record.get("options") or {}, json.loads(json.dumps(request["options"]))
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
        # without it nobody would know that the images came from here; until then one
        # that answers no request says that what is left is of no use.
        (root / MANIFEST).unlink(missing_ok=True)
        write_record(root, {"tool": f"{TOOL} {tool_version()}", "command": "clearing"})
        for path in (root / SUMS, *root.glob("pixels-*.npy")):
            path.unlink(missing_ok=True)
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
        record = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise InputError(
            f"{path} is damaged or not from data_setup: prepare the data again in an empty folder"
        )
    return record


def write_record(root: Path, record: dict) -> None:
    """Write ``dataset.json``."""
    put(root / RECORD, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def tool_version() -> str:
    """Installed version of this project."""
    try:
        return version("derm-hash")
    except PackageNotFoundError:
        return "(not installed)"


def space_needed(frame: pd.DataFrame, size: int | None) -> int:
    """Bytes that the images and masks of a data set take when stored, rather too many."""
    return sum(
        stored_bytes(source, size, column == "mask_from")
        for column in ("image_from", "mask_from")
        for source in frame[column]
        if source is not None
    )


def stored_bytes(source: Source, size: int | None, is_mask: bool) -> int:
    """Bytes that one file takes when stored."""
    if size is None:
        return source.stat().st_size if isinstance(source, Path) else source.size
    if is_mask:
        return 0
    # Three bytes per pixel decoded, and some 0.3 as a JPEG of quality 95.
    return 3 * size**2 + (source.size if isinstance(source, Drawn) else size**2 // 2)


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


def summary(names: Sequence[str]) -> str:
    """The first names and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


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
    if bad := read_record(root).get("bad"):
        print(f"Left out: {len(bad)} images that cannot be used; {root / RECORD} names them.")
    if not numbers["lesions"]:
        print("Which images show the same lesion is not known, so a lesion may be in two parts.")
    elif (share := leakage(frame).at["all", "share"]) > 0:
        print(f"{share:.0%} of the query images show a lesion that is in the database or val too.")
    print(f"\nNext: derm-hash train --data {shlex.quote(str(root))}")
