"""One's own images: class folders, or a table with image and label columns."""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path, PurePosixPath

import pandas as pd

from data_setup.common import add_common_arguments, build, fingerprint, summary
from data_setup.prepare import SUFFIXES
from derm_hash.data.manifest import read_table
from derm_hash.errors import LONGEST_NAME, InputError, cannot_be_shown, shown
from derm_hash.files import leaves_folder

HELP = "your own images: one folder per class, or a CSV file with image and label columns"


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
    for name, default in (("image", "image"), ("label", "label"), ("lesion", "lesion_id")):
        parser.add_argument(
            f"--{name}-column",
            metavar="NAME",
            help=f"column of --csv (default: {default}{', if there' if name == 'lesion' else ''})",
        )
    parser.add_argument(
        "--classes",
        type=lambda text: tuple(text.split(",")),
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
    table = class_folders(source) if args.csv is None else labelled(source, args)
    if args.classes:
        if absent := [label for label in args.classes if label not in set(table["label"])]:
            raise InputError(
                f"no image has the label {absent[0]!r}: use some of "
                f"{', '.join(sorted(set(table['label'])))}"
            )
        table = table[table["label"].isin(args.classes)]
    table = table.sort_values("file", ignore_index=True)
    options = {name: getattr(args, name) for name in ("image_column", "label_column")}
    options |= {"lesion_column": args.lesion_column, "classes": args.classes}
    sources = {str(source): fingerprint(source, table["file"])}
    if args.csv is not None:
        csv = args.csv.expanduser().resolve()
        sources[str(csv)] = fingerprint(csv.parent, [csv.name])
    build(
        args,
        "folder",
        {name: value for name, value in options.items() if value is not None},
        sources,
        lambda: rows(source, table),
        {"title": source.name},
    )


def rows(source: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The manifest's rows of images with the columns file, label and lesion_id; not split."""
    return pd.DataFrame(
        {
            "image": "images/" + table["file"],
            "label": table["label"],
            "lesion_id": table["lesion_id"],
            "mask": "",
            "source": source.name,
            "image_from": [source / name for name in table["file"]],
            "mask_from": None,
        }
    )


# --- class folders --------------------------------------------------------------------


def class_folders(source: Path) -> pd.DataFrame:
    """Files, labels and (empty) lesion ids of the images below the class folders.

    Raises:
        InputError: there are no class folders, a class folder has no image, or a name
            cannot stand in a manifest.
    """
    folders = sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(
            f"{source} has no folders: put the images of each class into a folder, or name a "
            "table of their labels with --csv"
        )
    names: list[str] = []
    others = sum(p.is_file() and not p.name.startswith(".") for p in source.iterdir())
    for folder in folders:
        files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
        images = sorted(p.relative_to(source).as_posix() for p in files if is_image_name(p))
        if not images:
            raise InputError(f"the class folder {folder} has no images: add some or remove it")
        others += len(files) - len(images)
        names += images
    for name in names:
        check_name(name)
        if name.split("/")[0].strip() != name.split("/")[0]:
            raise InputError(f"the class folder of {name!r} has blanks at its ends: rename it")
    if others:
        print(f"Files left out, outside the class folders or not images: {others}")
    labels = [name.split("/")[0] for name in names]
    return pd.DataFrame({"file": names, "label": labels, "lesion_id": ""})


def is_image_name(path: Path) -> bool:
    """Whether a file is an image by its suffix."""
    return path.suffix.lower() in SUFFIXES


def check_name(name: str) -> None:
    """Refuse a file name that cannot stand in a manifest; raises `InputError`."""
    odd = cannot_be_shown(name) or not name.isprintable() or name != name.strip()
    if odd or leaves_folder(name):
        raise InputError(f"the file name {name!r} cannot stand in a manifest: rename the file")


# --- a table ----------------------------------------------------------------------------


def labelled(source: Path, args: argparse.Namespace) -> pd.DataFrame:
    """Files, labels and lesion ids as the table ``args.csv`` gives them.

    Raises:
        InputError: a column is missing, a label is empty, an image is listed twice, or
            is not in the folder, or could be several files.
    """
    csv = args.csv.expanduser()
    table = read_table(csv)
    wanted = {"image": args.image_column or "image", "label": args.label_column or "label"}
    if args.lesion_column or "lesion_id" in table:
        wanted["lesion"] = args.lesion_column or "lesion_id"
    for name, column in wanted.items():
        if column not in table:
            raise InputError(
                f"{csv} has no column {column!r} (its columns: {shown(', '.join(table.columns))}): "
                f"name the right one with --{name}-column"
            )
    if table.empty:
        raise InputError(f"{csv} has no rows: add one line for each image")
    found = pd.DataFrame(
        {
            "file": find_images(source, csv, table[wanted["image"]]),
            "label": table[wanted["label"]],
            "lesion_id": table[wanted["lesion"]] if "lesion" in wanted else "",
        }
    )
    if (bad := found["label"] == "").any():
        raise InputError(f"{csv} gives {found.loc[bad, 'file'].iloc[0]} no label: fill it in")
    for column in ("label", "lesion_id"):
        if (bad := found[column].map(cannot_be_shown)).any():
            raise InputError(
                f"{csv} gives {found.loc[bad, 'file'].iloc[0]} the {column} "
                f"'{shown(found.loc[bad, column].iloc[0])}' with a control character or more than "
                f"{LONGEST_NAME} characters: rename it"
            )
    if (bad := found["file"].duplicated()).any():
        name = found.loc[bad, "file"].iloc[0]
        labels = found.loc[found["file"] == name, "label"]
        raise InputError(f"{csv} lists {name} twice, as {' and '.join(labels)}: keep one line")
    per_lesion = found[found["lesion_id"] != ""].groupby("lesion_id")["label"].nunique()
    if lesions := sorted(per_lesion.index[per_lesion > 1]):
        print(f"Lesions whose images have different labels in {csv}: {summary(lesions)}")
    return found


def find_images(source: Path, csv: Path, names: pd.Series) -> list[str]:
    """The files below `source` that a table's image column means, relative to it."""
    if (names == "").any():
        raise InputError(f"{csv} has a line without an image: fill it in or remove it")
    paths = [p for p in source.rglob("*") if is_image_name(p) and p.is_file()]
    files = [path.relative_to(source).as_posix() for path in paths]
    exact, without_suffix = set(files), defaultdict(list)
    for file in files:
        without_suffix[str(PurePosixPath(file).with_suffix(""))].append(file)
    found, missing = [], []
    for name in names:
        check_name(name)
        name = PurePosixPath(name).as_posix()
        matches = [name] if name in exact else without_suffix[name]
        if len(matches) > 1:
            raise InputError(
                f"the image {name} in {csv} could be {' or '.join(sorted(matches))}: "
                "write the suffix"
            )
        (found if matches else missing).append(matches[0] if matches else name)
    if missing:
        raise InputError(
            f"{len(missing)} images of {csv} are not in {source} ({summary(missing)}): "
            "copy them there, or remove their lines"
        )
    if unlabelled := sorted(exact - set(found)):
        print(f"Left out, since {csv} has no label for them: {summary(unlabelled)}")
    return found
