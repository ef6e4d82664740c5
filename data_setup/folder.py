"""One's own images: class folders, or a table with image and label columns."""

import argparse
from collections import defaultdict
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import pandas as pd

from data_setup.build import build
from data_setup.options import add_common_arguments
from data_setup.sources import SUFFIXES, Source, files_in, listing, stamp, suffix_of
from data_setup.tables import (
    lesions_with_several_labels,
    refuse_missing,
    refuse_repeated,
    report_unlabelled,
)
from derm_hash.data.manifest import read_table
from derm_hash.errors import LONGEST_NAME, InputError, cannot_be_shown, shown
from derm_hash.files import leaves_folder

COLUMNS = {"image": "image", "label": "label", "lesion": "lesion_id"}
"""What a table holds, and what its column is called; lesion_id may be missing."""

HELP = "your own images: one folder per class, or a CSV file with image and label columns"


def names(text: str) -> tuple[str, ...]:
    """ "MEL,NV" -> ("MEL", "NV")."""
    return tuple(text.split(","))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser)
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the images; without --csv it has one folder per class, named by the label",
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="table with one line per image; image paths are relative to --source and may lack "
        "their suffix",
    )
    for name, default in COLUMNS.items():
        parser.add_argument(
            f"--{name}-column", metavar="NAME", help=f"column of --csv (default: {default})"
        )
    parser.add_argument(
        "--classes",
        type=names,
        metavar="A,B,C",
        help="labels to use (default: all)",
    )


def run(args: argparse.Namespace) -> None:
    """Build the data folder ``args.root`` from the images in ``args.source``."""
    source, root = args.source.expanduser().resolve(), args.root.expanduser().resolve()
    if source == root or source in root.parents or root in source.parents:
        raise InputError(
            f"--root {args.root} and --source {args.source} lie in each other: "
            "choose a --root beside the source"
        )
    if not source.is_dir():
        raise InputError(f"the folder --source {source} does not exist: check the path")
    files = files_in(source, ExitStack())
    images = {name: file for name, file in files.items() if suffix_of(file) in SUFFIXES}
    if args.csv is None:
        table, sources = class_folders(source, images), {}
        if left_out := len(files) - len(table):
            print(f"Files left out, outside the class folders or not images: {left_out}")
    else:
        csv = args.csv.expanduser().resolve()
        columns = {name: getattr(args, f"{name}_column") for name in COLUMNS}
        table = labelled(csv, source, images, columns)
        sources = {str(csv): stamp(csv.parent, [csv.name])}
    labels = sorted(table["label"].unique())
    if absent := sorted(set(args.classes or ()) - set(labels)):
        raise InputError(f"no image has the label {absent[0]!r}: use some of {', '.join(labels)}")
    table = table[table["label"].isin(args.classes or labels)]
    table = table.sort_values("file", ignore_index=True)
    own = ("image_column", "label_column", "lesion_column", "classes")
    build(
        args,
        "folder",
        {name: getattr(args, name) for name in own if getattr(args, name) is not None},
        {str(source): stamp(source, table["file"])} | sources,
        lambda: rows(source, table),
        {"title": source.name},
    )


def rows(source: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The manifest's rows of images with the columns file, label and lesion_id; not split."""
    files = [source / name for name in table["file"]]
    named = table.assign(image="images/" + table["file"], mask="", source=source.name)
    return named.assign(image_from=files, mask_from=None).drop(columns="file")


def check_name(name: str) -> None:
    """Refuse a file name that cannot stand in a manifest."""
    odd = cannot_be_shown(name) or not name.isprintable() or name != name.strip()
    if odd or leaves_folder(name):
        raise InputError(f"the file name {name!r} cannot stand in a manifest: rename the file")


def class_folders(source: Path, images: dict[str, Source]) -> pd.DataFrame:
    """Files, labels and (empty) lesion ids of the images below the class folders."""
    folders = {p.name for p in source.iterdir() if p.is_dir() and not p.name.startswith(".")}
    if not folders:
        raise InputError(
            f"{source} has no folders: put the images of each class into a folder, or name a "
            "table of their labels with --csv"
        )
    names = [name for name in images if name.split("/")[0] in folders]
    labels = [name.split("/")[0] for name in names]
    if empty := sorted(folders - set(labels)):
        raise InputError(
            f"the class folder {source / empty[0]} has no images: add some or remove it"
        )
    for name, label in zip(names, labels, strict=True):
        check_name(name)
        if label.strip() != label:
            raise InputError(f"the class folder of {name!r} has blanks at its ends: rename it")
    return pd.DataFrame({"file": names, "label": labels, "lesion_id": ""})


def labelled(
    csv: Path, source: Path, images: Collection[str], columns: dict[str, str | None]
) -> pd.DataFrame:
    """Files, labels and lesion ids from a table; `columns` are the names given for `COLUMNS`."""
    remedy = (
        "name the right ones with --image-column, --label-column and --lesion-column, and give "
        "each image a line"
    )
    image, label, lesion = (columns[name] or default for name, default in COLUMNS.items())
    needed = [image, label, *filter(None, [columns["lesion"]])]
    table = read_table(csv, columns=needed, remedy=remedy)
    found = pd.DataFrame({"file": table[image], "label": table[label]})
    found["lesion_id"] = table.get(lesion, "")
    for column in ("file", "label"):
        if (bad := found[column] == "").any():
            raise InputError(f"line {bad.idxmax() + 2} of {csv} has no {column}: fill it in")
    for column in ("label", "lesion_id"):
        if (bad := found[column].map(cannot_be_shown)).any():
            raise InputError(
                f"line {bad.idxmax() + 2} of {csv} has the {column} "
                f"'{shown(found.at[bad.idxmax(), column])}' with a control character or more than "
                f"{LONGEST_NAME} characters: rename it"
            )
    without_suffix = defaultdict(list)
    for file in images:
        without_suffix[str(PurePosixPath(file).with_suffix(""))].append(file)
    for i, name in enumerate(found["file"]):
        check_name(name)
        name = str(PurePosixPath(name))
        matches = [name] if name in images else without_suffix.get(name, [name])
        if len(matches) > 1:
            raise InputError(
                f"the image {name} in {csv} could be {' or '.join(sorted(matches))}: "
                "write the suffix"
            )
        found.at[i, "file"] = matches[0]
    refuse_missing(found["file"], images, csv, f"copy them to {source}, or remove their lines")
    refuse_repeated(found["file"], csv, "keep one of the lines")
    report_unlabelled(images, found["file"], csv)
    if lesions := lesions_with_several_labels(found):
        print(f"Lesions whose images have different labels in {csv}: {listing(lesions)}")
    return found
