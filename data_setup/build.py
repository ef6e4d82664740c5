"""Fills a data folder with the images of a command; an interrupted folder has no manifest."""

import argparse
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from pooch import file_hash

from data_setup.audit import duplicates, duplicates_sentence, leakage, leakage_sentence, split_table
from data_setup.duplicates import duplicate_groups
from data_setup.labels import UNLABELLED
from data_setup.options import SPLITTERS
from data_setup.prepare import put, store_all
from data_setup.record import (
    RECORD,
    SUMS,
    TOOL,
    check_space,
    is_own_record,
    is_scaffold,
    read_record,
)
from data_setup.sources import LISTED, Drawn, size_of, state_of
from derm_hash.data.classes import class_order
from derm_hash.data.manifest import (
    MANIFEST,
    SPLITS,
    manifest_bytes,
    read_manifest,
    store_pixels,
    write_manifest,
)
from derm_hash.data.splits import split_as_given
from derm_hash.errors import InputError, counted
from derm_hash.files import locked, thread_map, write_json


def build(
    args: argparse.Namespace,
    command: str,
    options: dict,
    sources: dict,
    rows: Callable[[], pd.DataFrame],
    about: dict,
) -> None:
    """Fill a data folder, or complete one that the same command left unfinished.

    The manifest is written last: a folder without one is not a data set. Files that are there
    already are not made again. `InputError` if the folder holds other files or, without
    ``--force``, a data set made with other options; if another process is writing it; or if images
    cannot be used.

    `options` are the command's own options that decide the contents; `sources` maps the files read
    to a value that changes when they change. `rows` returns the manifest's rows, sorted by image,
    with the further columns ``image_from`` and ``mask_from`` (a `Source`; None where there is no
    mask); not split, unless ``args.split`` is a split of the command's own. `about` goes into
    ``dataset.json``.
    """
    root = args.root.expanduser()
    if args.split_csv:
        args.split, tables, every = "given", dict(args.split_csv), rows
        sources = sources | {str(path): state_of(path.parent, [path]) for path in tables.values()}

        def rows():
            return split_as_given(every(), tables)

    shared = {name: getattr(args, name) for name in ("size", "fit", "split", "seed")}
    options = options | shared | {"size": args.size or "original"}
    if args.unseen and args.split not in SPLITTERS:
        raise InputError(f"--unseen splits anew: leave out --unseen, or the split {args.split}")
    if args.unseen:
        options["unseen"] = args.unseen
    request = {"command": command, "options": options, "sources": sources}
    request = json.loads(json.dumps(request))  # as the record will be read: JSON has no tuples
    with one_writer(root):
        changes = differences(root, request)
        if (root / MANIFEST).exists() and not changes and not args.force:
            print(f"{root} is complete already; --force makes it anew.")
        else:
            clear_unless_same(root, changes, args.force)
            record = {"tool": TOOL, **request, **about}
            write_json(root / RECORD, record)
            fill(root, args, rows(), record)
        report(read_manifest(root), root)


def fill(root: Path, args: argparse.Namespace, frame: pd.DataFrame, record: dict) -> None:
    """Store the images, their pixels, the checksums, the record and, last, the manifest."""
    check_space(root, space_needed(frame, args.size))
    count = len(frame)
    frame, bad = store_all(root, frame, args.size, args.fit, args.workers)
    if bad and not args.skip_bad:
        raise InputError(bad_images(bad, count))
    if frame.empty:
        raise InputError(f"none of the {count} images can be used: {next(iter(bad.values()))}")
    images = frame["image"].tolist()
    pixels = store_pixels(root, images, args.workers) if args.size else None
    frame["duplicate_group"] = duplicate_groups(root, images, args.workers)
    if args.split in SPLITTERS:
        frame = SPLITTERS[args.split](frame, seed=args.seed, unseen=args.unseen or 0.0)
    files = [*images, *filter(None, frame["mask"]), *([pixels.name] if pixels else [])]
    paths = [root / name for name in files]
    digests = thread_map(file_hash, paths, "checksums", True, args.workers)
    sums = dict(zip(files, digests, strict=True))
    sums[MANIFEST] = hashlib.sha256(manifest_bytes(frame)).hexdigest()
    text = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
    put(root / SUMS, text)
    result = {"counts": counts(frame), "bad": bad, SUMS: hashlib.sha256(text).hexdigest()}
    write_json(root / RECORD, record | result)
    write_manifest(frame, root)


def bad_images(bad: dict[str, str], count: int) -> str:
    """The message about images that cannot be used: image -> why, of `count` images."""
    reasons = list(bad.values())
    if len(bad) == 1:
        return f"{reasons[0]}; use --skip-bad to leave it out"
    more = [f"and {len(bad) - LISTED} more"] if len(bad) > LISTED else []
    lines = "".join(f"\n  {line}" for line in reasons[:LISTED] + more)
    return f"{len(bad)} of {count} images cannot be used; use --skip-bad to leave them out:{lines}"


def space_needed(frame: pd.DataFrame, size: int | None) -> int:
    """Estimate, on the high side, how many bytes a data set takes when stored."""
    images = frame["image_from"].tolist()
    if size is None:
        return sum(map(size_of, [*images, *frame["mask_from"].dropna()]))
    # Three bytes per pixel decoded, and about 0.3 as a JPEG of quality 95. Masks are negligible.
    files = sum(one.size if isinstance(one, Drawn) else size**2 // 2 for one in images)
    return 3 * size**2 * len(images) + files


@contextmanager
def one_writer(root: Path) -> Iterator[None]:
    """Hold the folder's lock; leave no folder behind if nothing was put into it."""
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file: choose another --root")
    inside = root.iterdir() if root.is_dir() and not is_own_record(root / RECORD) else ()
    if others := [path.name for path in inside if not is_scaffold(path)]:
        raise InputError(
            f"{root} holds other files (such as {min(others)}): choose an empty --root"
        )
    busy = f"another data_setup is writing {root}: wait for it or choose another --root"
    folder = root.resolve()  # a link stays; its target is what is made and removed
    with locked(folder, busy, wait=False):
        try:
            yield
        finally:
            if all(path.is_dir() or is_scaffold(path) for path in folder.rglob("*")):
                # A mount point cannot be removed, which must not hide why the command failed.
                shutil.rmtree(folder, ignore_errors=True)


def differences(root: Path, request: dict) -> list[str]:
    """How the folder was made, where that differs from the request; [] without a record."""
    if not (root / RECORD).exists():
        return []
    record = read_record(root)
    if record.get("command") != request["command"]:
        return [f"by the command {record.get('command')!r}"]
    before, wanted = record["options"], request["options"]
    changed = [
        f"with {name} {before.get(name)} instead of {wanted.get(name)}"
        for name in before | wanted
        if before.get(name) != wanted.get(name)
    ]
    other = record["sources"] != request["sources"]
    return changed + other * ["from other source files"]


def clear_unless_same(root: Path, changes: list[str], force: bool) -> None:
    """Remove what an earlier run made, unless it is an unfinished one of the same request."""
    finished = (root / MANIFEST).exists()
    if finished and not force:
        raise InputError(
            f"{root} is a data set made {' and '.join(changes)}: choose another --root, "
            "or make it anew with --force"
        )
    if finished or changes:
        # The manifest goes first: without it the folder is not a data set. The record goes last: it
        # says that data_setup made the files that are left, and that they are no longer of use.
        (root / MANIFEST).unlink(missing_ok=True)
        write_json(root / RECORD, {"tool": TOOL, "command": "clearing"})
        for path in (root / SUMS, *root.glob("pixels-*.npy")):
            path.unlink(missing_ok=True)
        for name in ("images", "masks"):
            shutil.rmtree(root / name, ignore_errors=True)
        (root / RECORD).unlink()
    for part in root.rglob(".*.part"):
        part.unlink()


def counts(frame: pd.DataFrame) -> dict:
    """Numbers of images, masks and lesions, and of images per class and split."""
    table = split_table(frame)
    return {
        "images": len(frame),
        "masks": int((frame["mask"] != "").sum()),
        "lesions": int(frame.loc[frame["lesion_id"] != "", "lesion_id"].nunique()),
        "classes": {label: table.loc[label].to_dict() for label in class_order(frame["label"])},
    }


def report(frame: pd.DataFrame, root: Path) -> None:
    """Print what the folder holds and what to type next."""
    numbers = counts(frame)
    print(f"\n{split_table(frame).to_string()}\n")
    lesions = f"of {counted(numbers['lesions'], 'lesion')}, " if numbers["lesions"] else ""
    images, masks = (counted(numbers[f"{noun}s"], noun) for noun in ("image", "mask"))
    print(f"{root}: {images} {lesions}{masks}")
    if bad := read_record(root)["bad"]:
        print(f"Left out: {counted(len(bad), 'image')} that cannot be used; see {root / RECORD}.")
    parts = sorted(set(frame["split"]))
    if "query" in parts and len(parts) > 1:
        print(leakage_sentence(leakage(frame)))
    if len(groups := duplicates(frame)):
        print(f"{duplicates_sentence(groups)} `python -m data_setup audit` lists them.")
    empty = [part for part in SPLITS if part not in (*parts, "train")]
    if "database" in parts and empty:
        print(
            f"No image is in {' or '.join(empty)}: add images of other lesions, or check "
            "the lesion ids and splits."
        )
    folder = shlex.quote(str(root))
    if set(frame["label"]) == {UNLABELLED}:
        print(f"\nNext: derm-hash heatmaps --run RUN --data {folder}")
    elif parts == ["query"]:
        print(f"\nNext: derm-hash evaluate --run RUN --data DATABASE --queries {folder}")
    else:
        print(f"\nNext: derm-hash train --data {folder}")
