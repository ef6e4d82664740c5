"""One's own images: class folders, or a table with image and label columns."""

import argparse
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

import pandas as pd

from data_setup.build import build
from data_setup.labels import SPLIT_OF, refuse_doubtful, refuse_other_levels
from data_setup.matching import Finder, check_name, masks_of
from data_setup.options import add_common_arguments
from data_setup.sources import SUFFIXES, Source, files_in, is_hidden, listing, stamp, suffix_of
from data_setup.tables import (
    lesions_with_several_labels,
    one_hot_columns,
    one_hot_labels,
    refuse_missing,
    refuse_repeated,
    report_unlabelled,
)
from derm_hash.data.tables import read_table
from derm_hash.errors import LONGEST_NAME, InputError, cannot_be_shown, counted, shown

COLUMNS = {
    "image": "image",
    "label": "label",
    "lesion": "lesion_id",
    "split": "split",
    "mask": "mask",
}
"""What a table holds, and what its column is called; all but the image may be missing."""

OWN_SPLITS = {
    "table": "as the column split of --csv says",
    "query": "all images are queries, for another data set",
}
HELP = "your own images: one folder per class, or a CSV file with image and label columns"


def names(text: str) -> tuple[str, ...]:
    """ "MEL,NV" -> ("MEL", "NV")."""
    return tuple(text.split(","))


def renaming(text: str) -> tuple[str, str]:
    """ "Common Nevus=NV" -> ("Common Nevus", "NV")."""
    before, equals, after = (part.strip() for part in text.rpartition("="))
    if not (before and equals and after):
        raise argparse.ArgumentTypeError(f"{text!r} is not a renaming: write OLD=NEW")
    return before, after


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser, own_splits=OWN_SPLITS, default_split=None)
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
        help="table (CSV, TSV or Excel) with one line per image; images are named by path relative "
        "to --source or by file name, with or without suffix; the labels are one column, or one "
        "column of 0 and 1 for each class",
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
    parser.add_argument(
        "--map",
        type=renaming,
        nargs="+",
        action="extend",
        default=[],
        metavar="OLD=NEW",
        help="rename labels, such as 'Common Nevus=NV'; several may get one name",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="folder of lesion masks named as their images, also with _segmentation or _mask",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="leave out images of --csv that are missing, instead of stopping",
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
    masks = mask_files(args)
    files = {
        name: file
        for name, file in files_in(source, ExitStack()).items()
        if file not in masks.values()
    }
    images = {name: file for name, file in files.items() if suffix_of(file) in SUFFIXES}
    if args.csv is None:
        table, sources = class_folders(source, images), {}
        if left_out := len(files) - len(table):
            print(f"Files left out, outside the class folders or not images: {left_out}")
    else:
        csv = args.csv.expanduser().resolve()
        table = listed(args, csv, source, images)
        sources = {str(csv): stamp(csv.parent, [csv.name])}
    table = chosen_classes(args, with_split(args, table), source)
    table = table.sort_values("file", ignore_index=True)
    if masks:
        mask_of = masks_of(table["file"], masks)
        table["mask"] = [
            str(masks[mask_of[name]]) if name in mask_of else "" for name in table["file"]
        ]
        sources[str(args.masks)] = stamp(args.masks.expanduser().resolve(), masks)
        print(f"Masks found in {args.masks}: {len(mask_of):,} of {len(table):,} images")
    own = ("image_column", "label_column", "lesion_column", "split_column", "mask_column")
    own += ("classes", "map", "partial")
    used = sorted({*table["file"], *(m for m in table["mask"] if m and m in images)})
    build(
        args,
        "folder",
        {name: getattr(args, name) for name in own if getattr(args, name)},
        {str(source): stamp(source, used)} | sources,
        lambda: rows(source, table),
        {"title": source.name},
    )


def mask_files(args: argparse.Namespace) -> dict[str, Path]:
    """The mask files of ``--masks``, by their paths in it."""
    if args.masks is None:
        return {}
    folder = args.masks.expanduser().resolve()
    if not folder.is_dir():
        raise InputError(f"the folder --masks {folder} does not exist: check the path")
    files = files_in(folder, ExitStack())
    return {name: file for name, file in files.items() if suffix_of(file) in SUFFIXES}


def rows(source: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The manifest's rows of images with the columns file, label, lesion_id, split and mask.

    The column mask has paths, relative to `source` or absolute; "" for none.
    """
    files = [source / name for name in table["file"]]
    masks = [source / name if name else None for name in table["mask"]]
    stored = [
        f"masks/{Path(name).with_suffix(Path(mask).suffix).as_posix()}" if mask else ""
        for name, mask in table[["file", "mask"]].itertuples(index=False)
    ]
    named = table.assign(image="images/" + table["file"], mask=stored, source=source.name)
    return named.assign(image_from=files, mask_from=masks).drop(columns="file")


def chosen_classes(args: argparse.Namespace, table: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The rows of the classes to use, renamed; `InputError` if the labels are doubtful."""
    new_name = dict(args.map)
    for what, names in (("--map", new_name), ("--classes", args.classes or ())):
        labels = sorted(table["label"].unique())
        if absent := sorted(set(names) - set(labels)):
            raise InputError(
                f"no image has the label {absent[0]!r} of {what}: use some of "
                f"{shown(', '.join(labels))}"
            )
        if what == "--map":
            table = table.assign(label=table["label"].replace(new_name))
    if args.csv is None and not args.classes:
        refuse_other_levels(source, table["file"])
    refuse_doubtful(labels, args.csv or source, bool(args.classes), args.split == "query")
    return table[table["label"].isin(args.classes or labels)]


def with_split(args: argparse.Namespace, table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the split that was asked for; ``args.split`` says which it is.

    By default it is that of the table, if it has one.
    """
    given = table["split"] != ""
    if args.split is None:
        args.split = "table" if given.any() else "lesion"
    if args.split == "query":
        return table.assign(split="query")
    if args.split != "table":
        return table.assign(split="")
    if not given.all():
        problem = "no split" if given.any() else "no column with the split"
        raise InputError(
            f"the table --csv gives {table.loc[~given, 'file'].iloc[0]} {problem}: fill it in, or "
            "let the images be split with --split lesion"
        )
    split = table["split"].str.casefold().map(SPLIT_OF)
    if (unknown := split.isna()).any():
        raise InputError(
            f"the split {shown(table.loc[unknown, 'split'].iloc[0])!r} of "
            f"{table.loc[unknown, 'file'].iloc[0]} is none of train, database, val, test and "
            "query: correct it, or let the images be split with --split lesion"
        )
    counts = ", ".join(f"{name} {n:,}" for name, n in split.value_counts().items())
    print(f"Split as the table says: {counts}")
    return table.assign(split=split)


def class_folders(source: Path, images: dict[str, Source]) -> pd.DataFrame:
    """Files and labels of the images below the class folders; the other columns are empty."""
    below = {name.split("/")[0] for name in images if "/" in name}
    folders = {p.name for p in source.iterdir() if p.is_dir() and not is_hidden(p.name)}
    if not folders:
        raise InputError(
            f"{source} has no folders: put the images of each class into a folder, or name a "
            "table of their labels with --csv"
        )
    names = [name for name in images if name.split("/")[0] in folders]
    labels = [name.split("/")[0] for name in names]
    if empty := sorted(folders - below):
        raise InputError(
            f"the class folder {source / empty[0]} has no images: add some or remove it"
        )
    for name, label in zip(names, labels, strict=True):
        check_name(name)
        if label.strip() != label:
            raise InputError(f"the class folder of {name!r} has blanks at its ends: rename it")
    return pd.DataFrame({"file": names, "label": labels, "lesion_id": "", "split": "", "mask": ""})


def listed(
    args: argparse.Namespace, csv: Path, source: Path, images: Collection[str]
) -> pd.DataFrame:
    """Files, labels, lesion ids, splits and masks from a table."""
    named = {name: getattr(args, f"{name}_column") for name in COLUMNS}
    column = {name: named[name] or default for name, default in COLUMNS.items()}
    remedy = (
        "name the right ones with --image-column, --label-column and --lesion-column, and give "
        "each image a line"
    )
    needed = [column["image"], *filter(None, named.values())]
    table = read_table(csv, columns=dict.fromkeys(needed), remedy=remedy)
    found = pd.DataFrame({"file": table[column["image"]]})
    found["label"] = labels_in(table, column, csv, remedy)
    for name, key in (("lesion_id", "lesion"), ("split", "split"), ("mask", "mask")):
        found[name] = table.get(column[key], "")
    for name in ("file", "label"):
        if (bad := found[name] == "").any():
            raise InputError(f"line {bad.idxmax() + 2} of {csv} has no {name}: fill it in")
    for name in ("label", "lesion_id"):
        if (bad := found[name].map(cannot_be_shown)).any():
            raise InputError(
                f"line {bad.idxmax() + 2} of {csv} has the {name} "
                f"'{shown(found.at[bad.idxmax(), name])}' with a control character or more than "
                f"{LONGEST_NAME} characters: rename it"
            )
    finder = Finder(images)
    found["file"] = [finder.find(name, csv) or name for name in found["file"]]
    missing = ~found["file"].isin(images)
    if args.partial and not missing.all():
        print(f"Left out, since the file is missing: {counted(missing.sum(), 'image')}")
    else:
        remedy = f"copy them to {source}, remove their lines, or go on without by --partial"
        refuse_missing(found["file"], images, csv, remedy)
    print(f"Images found by: {finder.summary()}")
    refuse_repeated(found["file"], csv, "keep one of the lines")
    masks = Finder(images)
    found["mask"] = [name and (masks.find(name, csv) or name) for name in found["mask"]]
    refuse_missing([name for name in found["mask"] if name], images, csv, "copy the masks there")
    found = found[~missing].reset_index(drop=True)
    report_unlabelled(images, {*found["file"], *found["mask"]}, csv)
    if lesions := lesions_with_several_labels(found):
        print(f"Lesions whose images have different labels in {csv}: {listing(lesions)}")
    return found


def labels_in(table: pd.DataFrame, column: dict[str, str], csv: Path, remedy: str) -> pd.Series:
    """The labels of a table: one column, or a column of 0 and 1 for each class."""
    others = {column[name] for name in COLUMNS if name != "label"}
    classes = one_hot_columns(table.drop(columns=[name for name in others if name in table]))
    name = column["label"]
    if name in table and (name == COLUMNS["label"] or name not in classes):
        return table[name]
    if name in classes:
        raise InputError(
            f"the column {name!r} of {csv} is one of {', '.join(classes)}, which have 1 for yes: "
            "leave out --label-column, and each image gets the class with 1"
        )
    if not classes:
        found = shown(", ".join(table.columns))
        raise InputError(f"{csv} has no column {name!r} (its columns: {found}): {remedy}")
    print(f"Labels: the column with 1 among {', '.join(classes)}")
    by_image = table.set_index(column["image"])
    return one_hot_labels(by_image, classes, csv, "correct these lines").to_numpy()
