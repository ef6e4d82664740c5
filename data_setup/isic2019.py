"""ISIC 2019: 25,331 dermoscopic images in eight classes, the training set of the challenge.

The paper's protocol uses four of the classes. With --dry-run nothing is prepared: the two
tables alone tell how many images each class and split would get, and how many queries show
a lesion that is in the database too.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import pandas as pd

from data_setup.audit import leakage, split_table
from data_setup.build import build
from data_setup.download import publisher_files
from data_setup.info import INFO, PAPER_CLASSES, print_terms
from data_setup.options import (
    SPLITTERS,
    add_class_arguments,
    add_common_arguments,
    add_publisher_arguments,
)
from data_setup.sources import Source, files_in, images_by_id, size_of
from data_setup.tables import (
    manifest_rows,
    refuse_missing,
    refuse_repeated,
    refuse_several_labels,
    report_unlabelled,
)
from derm_hash.data.manifest import read_table
from derm_hash.errors import InputError

HELP = "ISIC 2019: 25,331 images, 4 or 8 classes; a download of 9.8 GB"
NAME = "isic2019"
HOME = INFO[NAME].home
LABELS = tuple(INFO[NAME].labels)
CLASSES = {4: PAPER_CLASSES, 8: LABELS}

TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
IMAGES = "ISIC_2019_Training_Input"
PATIENT_COLUMNS = ("age_approx", "anatom_site_general", "sex")
REMEDY = f"download it from {HOME}"
SMALLER = "_downsampled"
"""ISIC marks images so that it has reduced for the challenge; ISIC's own tool does not."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser, need_root=False)
    add_publisher_arguments(parser)
    add_class_arguments(
        parser, CLASSES, "4: MEL NV BCC BKL, the paper's, 23,344 images; 8: all, 25,331 images"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="prepare nothing: print the numbers of images and how far the splits leak; "
        "needs the two CSV files alone",
    )


def run(args: argparse.Namespace) -> None:
    """Build the data folder ``args.root``, or report what it would hold."""
    classes = CLASSES[args.classes]
    if args.dry_run:
        folder = publisher_files(args, NAME, [TRUTH, METADATA])
        dry_run(read_labels(folder), classes, args.seed)
        return
    if args.root is None:
        raise InputError("isic2019 needs a data folder to fill: name it with --root FOLDER")
    folder = publisher_files(args, NAME)
    table = read_labels(folder)
    with ExitStack() as stack:
        images = find_images(folder, stack)
        build(
            args,
            NAME,
            options={"classes": args.classes},
            sources=stamps(folder),
            rows=lambda: rows(table, classes, images, folder),
            about=INFO[NAME].record,
        )
    print_terms(NAME)


# --- the two tables ------------------------------------------------------------------


def read_labels(folder: Path) -> pd.DataFrame:
    """Ground truth and metadata together.

    Returns
    -------
    DataFrame
        One row per image, sorted: image_id, label, lesion_id ("" if not known), age_approx,
        anatom_site_general, sex.

    Raises
    ------
    InputError
        If a table is missing or lacks a column, lists an image twice or in one table alone, an
        image does not have exactly one class, or a lesion has two.
    """
    truth = read_truth(folder / TRUTH)
    metadata = read_indexed(folder / METADATA, ("lesion_id",)).rename(columns={"gender": "sex"})
    metadata = metadata[["lesion_id", *(name for name in PATIENT_COLUMNS if name in metadata)]]
    for one, other, name in ((truth, metadata, METADATA), (metadata, truth, TRUTH)):
        if len(alone := one.index.difference(other.index)):
            raise InputError(
                f"{folder / name} lacks {len(alone)} images of the other table, such as "
                f"{alone[0]}: download both from {HOME}"
            )
    table = pd.concat([truth, metadata], axis=1).sort_index().rename_axis("image_id")
    refuse_several_labels(table, folder / TRUTH)
    return table.reset_index()


def read_truth(path: Path) -> pd.Series:
    """Image -> label, from a table with one column for each class and ones for yes."""
    table = read_indexed(path, LABELS)
    classes = [name for name in table if name in (*LABELS, "UNK")]
    values = table[classes].apply(pd.to_numeric, errors="coerce")
    unclear = ~(values.isin([0, 1]).all(axis=1) & (values.sum(axis=1) == 1))
    label = values.where(~unclear, 0).idxmax(axis=1).rename("label")
    for bad, problem, remedy in (
        (unclear, "does not give exactly one class", REMEDY),
        (label == "UNK", "gives the class UNK, unknown,", "remove their lines"),
    ):
        if bad.any():
            raise InputError(
                f"{path} {problem} to {bad.sum()} images, such as {bad.idxmax()}: {remedy}"
            )
    return label


def read_indexed(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table with one row per image, by image."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: {REMEDY}")
    table = read_table(path, columns=("image", *columns), remedy=REMEDY)
    refuse_repeated(table["image"].map(image_key), path, REMEDY)
    return table.set_index("image")


def image_key(name: str) -> str:
    """An image's ISIC number, which is the same for the image and its reduced copy."""
    return name.removesuffix(SMALLER)


# --- the images ------------------------------------------------------------------------


def images_in(folder: Path) -> Path:
    """The archive of images, or else the folder of images beside the tables."""
    for place in (folder / f"{IMAGES}.zip", folder / IMAGES):
        if place.exists():
            return place
    by_hand = INFO[NAME].elsewhere
    raise InputError(f"{folder} has neither {IMAGES}.zip nor a folder {IMAGES}: {by_hand}")


def find_images(folder: Path, stack: ExitStack) -> dict[str, Source]:
    """`image_key` -> file, from the archive or the folder beside the tables."""
    return images_by_id(
        files_in(images_in(folder), stack), lambda name: image_key(PurePosixPath(name).stem)
    )


def rows(
    table: pd.DataFrame, classes: tuple[str, ...], images: dict[str, Source], folder: Path
) -> pd.DataFrame:
    """The manifest's rows, sorted by image, not split; see `read_labels` and `find_images`."""
    report_unlabelled(images, table["image_id"].map(image_key), TRUTH)
    table = table[table["label"].isin(classes)].reset_index(drop=True)
    keys = table["image_id"].map(image_key)
    refuse_missing(keys, images, TRUTH, images_in(folder), INFO[NAME].elsewhere)
    return manifest_rows(table, [images[k] for k in keys], [None] * len(keys), INFO[NAME].title)


def stamps(folder: Path) -> dict[str, int | str]:
    """What changes with the files read: their sizes; of a folder the number of files too."""
    found = {name: (folder / name).stat().st_size for name in (TRUTH, METADATA)}
    place = images_in(folder)
    if place.is_file():
        return found | {place.name: place.stat().st_size}
    sizes = [size_of(path) for path in place.rglob("*") if path.is_file()]
    return found | {IMAGES: f"{len(sizes)} files, {sum(sizes)} bytes"}


# --- the dry run ------------------------------------------------------------------------


def dry_run(table: pd.DataFrame, classes: tuple[str, ...], seed: int) -> None:
    """Print what each split would hold, and how many queries have a lesion-mate."""
    table = table[table["label"].isin(classes)]
    # The names that the images would have, so that the split is the same.
    frame = table.assign(image="images/" + table["image_id"] + ".jpg", mask="")
    known = frame.loc[frame["lesion_id"] != "", "lesion_id"]
    print(
        f"{INFO[NAME].title}, {len(classes)} classes: {len(frame):,} images; of {len(known):,} the "
        f"lesion is known, {known.nunique():,} lesions"
    )
    for name, split in SPLITTERS.items():
        parts = split(frame, seed=seed)
        print(f"\nSplit {name!r} (seed {seed}), images:\n\n{split_table(parts).to_string()}")
        shares = leakage(parts).to_string(formatters={"share": "{:.1%}".format})
        print(f"\nQueries whose lesion is in the database or val too:\n\n{shares}")
    print("\nNear-duplicates, which only the images tell, can change the split 'lesion' a little.")
