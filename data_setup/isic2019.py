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

from data_setup.archives import Archive, Member
from data_setup.audit import leakage, split_table
from data_setup.common import SPLITTERS, add_common_arguments, add_publisher_arguments, build
from data_setup.download import publisher_files
from data_setup.info import INFO, PAPER_CLASSES, print_terms
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
BY_HAND = INFO[NAME].elsewhere
SMALLER = "_downsampled"
"""ISIC marks images so that it has reduced for the challenge; ISIC's own tool does not."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser, need_root=False)
    add_publisher_arguments(parser)
    parser.add_argument(
        "--classes",
        type=int,
        choices=sorted(CLASSES),
        default=4,
        help="4: MEL NV BCC BKL, the paper's, 23,344 images; 8: all, 25,331 images "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="prepare nothing: print the numbers of images and how far the splits leak; "
        "needs the two CSV files alone",
    )


def run(args: argparse.Namespace) -> None:
    """Build the data folder ``args.root``, or report what it would hold."""
    if args.dry_run:
        folder = publisher_files(args, NAME, [TRUTH, METADATA])
        dry_run(read_labels(folder), CLASSES[args.classes], args.seed)
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
            sources=fingerprints(folder),
            rows=lambda: rows(table, CLASSES[args.classes], images),
            about=INFO[NAME].record,
        )
    print_terms(NAME)


# --- the two tables ------------------------------------------------------------------


def read_labels(folder: Path) -> pd.DataFrame:
    """Ground truth and metadata together.

    Returns:
        One row per image, sorted: image_id, label, lesion_id ("" if not known), age_approx,
        anatom_site_general, sex.

    Raises:
        InputError: a table is missing or lacks a column, lists an image twice or in one
            table alone, an image has not exactly one class, or a lesion has two.
    """
    truth = read_truth(folder / TRUTH)
    metadata = read_metadata(folder / METADATA)
    for one, other, name in ((truth, metadata, METADATA), (metadata, truth, TRUTH)):
        if len(alone := one.index.difference(other.index)):
            raise InputError(
                f"{folder / name} lacks {len(alone)} images of the other table, such as "
                f"{alone[0]}: download both from {HOME}"
            )
    table = pd.concat([truth, metadata], axis=1).sort_index().rename_axis("image_id")
    classes = table[table["lesion_id"] != ""].groupby("lesion_id")["label"].nunique()
    if (classes > 1).any():
        raise InputError(
            f"the images of lesion {classes.idxmax()} have {classes.max()} different classes in "
            f"{folder / TRUTH}: correct the wrong ones"
        )
    return table.reset_index()


def read_truth(path: Path) -> pd.Series:
    """Image -> label, from a table with one column for each class and ones for yes."""
    table = read_indexed(path, LABELS)
    classes = [name for name in table if name in (*LABELS, "UNK")]
    values = table[classes].apply(pd.to_numeric, errors="coerce")
    unclear = ~(values.isin([0, 1]).all(axis=1) & (values.sum(axis=1) == 1))
    if unclear.any():
        raise InputError(
            f"{path} does not give exactly one class to {unclear.sum()} images, such as "
            f"{unclear.idxmax()}: download it from {HOME}"
        )
    label = values.idxmax(axis=1).rename("label")
    if (unknown := label == "UNK").any():
        raise InputError(
            f"{path} gives the class UNK, unknown, to {unknown.sum()} images, such as "
            f"{unknown.idxmax()}: remove their lines"
        )
    return label


def read_metadata(path: Path) -> pd.DataFrame:
    """Image -> lesion and patient."""
    table = read_indexed(path, ("lesion_id",)).rename(columns={"gender": "sex"})
    return table[["lesion_id", *(name for name in PATIENT_COLUMNS if name in table)]]


def read_indexed(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A table with one row per image, by image."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: download it from {HOME}")
    table = read_table(path)
    for column in ("image", *columns):
        if column not in table:
            raise InputError(f"{path} has no column {column!r}: download it from {HOME}")
    key = table["image"].map(image_key)
    if (twice := key.duplicated()).any():
        raise InputError(
            f"{path} lists {table['image'][twice].iloc[0]} twice: download it from {HOME}"
        )
    return table.set_index("image")


def image_key(name: str) -> str:
    """What identifies an image: its ISIC number, whatever the size."""
    return name.removesuffix(SMALLER)


# --- the images ------------------------------------------------------------------------


def find_images(folder: Path, stack: ExitStack) -> dict[str, Member | Path]:
    """`image_key` -> where the image is: in the archive, or in a folder beside the tables.

    Raises:
        InputError: there is neither, the archive is not safe, or an image is there twice.
    """
    path = folder / f"{IMAGES}.zip"
    if path.exists():
        archive = stack.enter_context(Archive(path))
        found = [(PurePosixPath(name), Member(archive, name)) for name in archive.members]
    elif (folder / IMAGES).is_dir():
        found = [(file, file) for file in sorted((folder / IMAGES).rglob("*")) if file.is_file()]
    else:
        raise InputError(f"{folder} has neither {IMAGES}.zip nor a folder {IMAGES}: {BY_HAND}")
    images: dict[str, Member | Path] = {}
    for name, place in found:
        if name.suffix.lower() not in (".jpg", ".jpeg"):
            continue
        if (key := image_key(name.stem)) in images:
            raise InputError(f"{key} is there twice, {images[key]} and {place}: remove one of them")
        images[key] = place
    return images


def rows(
    table: pd.DataFrame, classes: tuple[str, ...], images: dict[str, Member | Path]
) -> pd.DataFrame:
    """The manifest's rows, sorted by image, not split.

    Args:
        table: see `read_labels`.
        classes: the labels to keep.
        images: see `find_images`.

    Raises:
        InputError: the image of a row is not there.
    """
    if unlabelled := sorted(images.keys() - set(table["image_id"].map(image_key))):
        print(f"Left out, since {TRUTH} has no label for them: {some(unlabelled)}.")
    table = table[table["label"].isin(classes)].reset_index(drop=True)
    keys = table["image_id"].map(image_key)
    if missing := [key for key in keys if key not in images]:
        raise InputError(f"{TRUTH} lists images that are not there: {some(missing)}; {BY_HAND}")
    return pd.DataFrame(
        {
            "image": "images/" + table["image_id"] + ".jpg",
            "label": table["label"],
            "lesion_id": table["lesion_id"],
            "mask": "",
            "source": INFO[NAME].title,
            **{name: table[name] for name in PATIENT_COLUMNS if name in table},
            "image_from": [images[key] for key in keys],
            "mask_from": None,
        }
    )


def fingerprints(folder: Path) -> dict[str, int | str]:
    """What changes with the files read: their sizes; of a folder the number of files too."""
    archive, directory = folder / f"{IMAGES}.zip", folder / IMAGES
    files = [folder / TRUTH, folder / METADATA]
    if archive.exists():
        files.append(archive)
        return {path.name: path.stat().st_size for path in files}
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    found = {path.name: path.stat().st_size for path in files}
    return found | {IMAGES: f"{len(sizes)} files, {sum(sizes)} bytes"}


def some(names: list[str]) -> str:
    """A number of images and one of them."""
    return f"{len(names)}, such as {names[0]}"


# --- the dry run ------------------------------------------------------------------------


def dry_run(table: pd.DataFrame, classes: tuple[str, ...], seed: int) -> None:
    """Print what each split would hold, and how many queries have a lesion-mate."""
    table = table[table["label"].isin(classes)]
    # The names that the images would have, so that the split is the same.
    frame = table.assign(image="images/" + table["image_id"] + ".jpg", mask="")
    known = (frame["lesion_id"] != "").sum()
    print(
        f"{INFO[NAME].title}, {len(classes)} classes: {len(frame):,} images; of {known:,} the "
        f"lesion is known, {frame.loc[frame['lesion_id'] != '', 'lesion_id'].nunique():,} lesions"
    )
    for name, split in SPLITTERS.items():
        parts = split(frame, seed=seed)
        print(f"\nSplit {name!r} (seed {seed}), images:\n\n{split_table(parts).to_string()}")
        table = leakage(parts).to_string(formatters={"share": "{:.1%}".format})
        print(f"\nQueries whose lesion is in the database or val too:\n\n{table}")
    print("\nNear-duplicates, which only the images tell, can change the split 'lesion' a little.")
