"""Reads the table of your own images: which files it names, and what it says about each."""

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from data_setup.labels import UNLABELLED, is_missing, split_of
from data_setup.matching import Finder
from data_setup.sources import FOREIGN, Source, images_in, listing
from data_setup.tables import (
    lesions_with_several_labels,
    one_hot_columns,
    one_hot_labels,
    refuse_missing,
    refuse_repeated,
    report_unlabelled,
)
from derm_hash.data.manifest import check_values
from derm_hash.data.tables import read_table
from derm_hash.errors import InputError, counted, shown

COLUMNS = {
    "image": "image",
    "label": "label",
    "lesion": "lesion_id",
    "split": "split",
    "mask": "mask",
}
"""What a table may hold -> the usual name of its column; only the image is always needed."""


def read_own_table(
    args: argparse.Namespace,
    path: Path,
    files: Mapping[str, Source],
    mask_files: Mapping[str, Source],
) -> pd.DataFrame:
    """Images, labels, lesion ids, splits and masks from the table ``--csv``, whose path is `path`.

    Images are looked for among `files`, and the masks that the table names among `mask_files`. The
    result has a row per image with file and mask (paths), label, lesion_id and split, "" where
    nothing is known. Prints how the table was read; `InputError` if it cannot be used.
    """
    named = {name: getattr(args, f"{name}_column") for name in COLUMNS}
    column = {name: named[name] or default for name, default in COLUMNS.items()}
    remedy = (
        "name the right ones with --image-column, --label-column and --lesion-column, and give "
        "each image a line"
    )
    needed = [column["image"], *filter(None, named.values())]
    table = read_table(path, list(dict.fromkeys(needed)), remedy, optional=column.values())
    rest = table.drop(
        columns=[name for key, name in column.items() if key != "label"], errors="ignore"
    )
    classes = [] if args.no_labels else one_hot_columns(rest)
    found = pd.DataFrame({"file": table[column["image"]]})
    found["label"] = UNLABELLED
    if not args.no_labels:
        found["label"] = labels_in(table, column, classes, path, remedy)
    used = {column["label"], *classes}
    if unused := [name for name in rest if name not in used and not name.startswith("Unnamed: ")]:
        print(f"Columns of {path} that are not used: {shown(listing(unused))}")
    for name, key in (("lesion_id", "lesion"), ("split", "split"), ("mask", "mask")):
        found[name] = table.get(column[key], "")
    if (again := found.duplicated()).any():
        print(f"Lines of {path} that repeat another one: {again.sum():,}")
    found = found[~again]
    check_values(found.rename(columns={"file": "image"}).assign(split=""), path)
    if (unknown := found["lesion_id"].map(is_missing) & (found["lesion_id"] != "")).any():
        values = ", ".join(sorted(set(found.loc[unknown, "lesion_id"])))
        print(f"Lesions not known, since their {column['lesion']} is {values}: {unknown.sum():,}")
        found.loc[unknown, "lesion_id"] = ""
    images = images_in(files)
    finder = Finder(images)
    there = found["file"].map(lambda name: finder.find(name, path))
    lost = found.loc[there.isna(), "file"].tolist()
    refuse_foreign(lost, files, path)
    remedy = f"copy them to {args.source}, remove their lines, or leave them out with --partial"
    refuse_missing(lost, path, remedy, args.partial and len(lost) < len(found))
    print(f"Images found by: {finder.summary()}")
    found = found.assign(file=there)[there.notna()]
    finder = Finder(images_in(mask_files))
    masks = found["mask"].map(lambda name: name and finder.find(name, path))
    remedy = "copy the masks to the folder of --masks (by default --source), or empty their cells"
    refuse_missing(found.loc[masks.isna(), "mask"].tolist(), path, remedy)
    found["mask"] = masks
    refuse_repeated(found["file"], path, "keep one of the lines")
    report_unlabelled(images, {*found["file"], *found["mask"]}, path)
    if lesions := lesions_with_several_labels(found):
        print(f"Lesions whose images have different labels in {path}: {listing(lesions)}")
    return found


def labels_in(
    table: pd.DataFrame, column: dict[str, str], classes: list[str], path: Path, remedy: str
) -> pd.Series:
    """The labels of a table: one column, or the columns of 0 and 1 of the `classes`."""
    name = column["label"]
    if name in table and (name == COLUMNS["label"] or name not in classes):
        return table[name]
    if name in classes:
        raise InputError(
            f"the column {name!r} of {path} is one of {', '.join(classes)}, which have 1 for yes: "
            "leave out --label-column, and each image gets the class with 1"
        )
    if not classes:
        found = shown(", ".join(table.columns))
        raise InputError(
            f"{path} has no column {name!r} (its columns: {found}): {remedy}, or use --no-labels "
            "if you only want to score heatmaps"
        )
    print(f"Labels: the column with 1 among {', '.join(classes)}")
    by_image = table.set_index(column["image"])
    return one_hot_labels(by_image, classes, path, "correct these lines").to_numpy()


def refuse_foreign(names: Iterable[str], files: Iterable[str], path: Path) -> None:
    """Raise `InputError` if the files hold one of the images in a format that is not read."""
    paths = [PurePosixPath(file) for file in files]
    foreign = {p.stem.casefold(): p for p in paths if p.suffix.lower() in FOREIGN}
    stems = (PurePosixPath(re.sub(r".*[/\\]", "", name.casefold())) for name in names)
    there = [foreign[p.stem] for p in stems if p.stem in foreign]
    if there:
        raise InputError(
            f"{path} lists {counted(len(there), 'image')} in a format that is not read "
            f"({shown(there[0])}): save them as PNG or JPEG files of the same names"
        )


def with_split(args: argparse.Namespace, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the split that was asked for, and set ``args.split`` to its name.

    By default it is the table's, or else "lesion". Rows that `build` will split have "".
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
    split = table["split"].map(split_of)
    if (unknown := split.isna()).any():
        raise InputError(
            f"the split {shown(table.loc[unknown, 'split'].iloc[0])!r} of "
            f"{table.loc[unknown, 'file'].iloc[0]} is none of train, database, val, test and "
            "query: correct it, or let the images be split with --split lesion"
        )
    counts = ", ".join(f"{name} {n:,}" for name, n in split.value_counts().items())
    print(f"Split as the table says: {counts}")
    return table.assign(split=split)
