"""ISIC 2019: 25,331 dermoscopic images in eight classes, the training set of the challenge.

The paper's protocol uses four of the classes. With --dry-run nothing is prepared: the two
tables are enough to print how many images each class and split would get, and how many
queries show a lesion that is in the database or val too.
"""

import argparse

import pandas as pd

from data_setup import publisher
from data_setup.audit import leakage, split_table
from data_setup.info import INFO
from data_setup.options import SPLITTERS, add_common_arguments
from data_setup.sources import Source, files_in, images_by_id, path_of, states_of
from data_setup.tables import (
    UNKNOWN,
    one_hot_labels,
    published_rows,
    refuse_repeated,
    refuse_several_labels,
)
from derm_hash.data.tables import read_table
from derm_hash.errors import InputError, counted

HELP = "ISIC 2019: 25,331 images, 4 or 8 classes; a download of 9.8 GB"
NAME = "isic2019"
LABELS = tuple(INFO[NAME].labels)

TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
IMAGES = "ISIC_2019_Training_Input"
PATIENT_COLUMNS = ("age_approx", "anatom_site_general", "sex")
REMEDY = f"download it from {INFO[NAME].home}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser, need_root=False)
    publisher.add_arguments(parser)
    publisher.add_classes(parser, NAME)
    text = "only print numbers of images and how much the splits leak; needs only the two CSV files"
    parser.add_argument("--dry-run", action="store_true", help=text)


def run(args: argparse.Namespace) -> None:
    if args.root is None and not args.dry_run:
        raise InputError("isic2019 needs a data folder to fill: name it with --root FOLDER")
    place = publisher.files(args, NAME, [TRUTH, METADATA] if args.dry_run else None)
    files = files_in(place, lambda name: f"{IMAGES}.zip" in name and not args.dry_run)
    paths = [path_of(files, [name]) for name in (TRUTH, METADATA)]
    if None in paths:
        raise InputError(f"{place} has no {(TRUTH, METADATA)[paths.index(None)]}: {REMEDY}")
    tables = {path: files[path] for path in paths}
    truth, metadata = tables.values()
    table = read_labels(truth, metadata)
    if args.dry_run:
        return dry_run(args, table)
    images = {name: file for name, file in files.items() if IMAGES in name}
    by_hand = INFO[NAME].elsewhere
    if not images:
        raise InputError(f"{place} has neither {IMAGES}.zip nor a folder {IMAGES}: {by_hand}")

    def rows() -> pd.DataFrame:
        image_of = images_by_id(images, r"(.+?)(_downsampled)?")
        name_of = {image_key(name): name for name in table["image_id"]}
        image_of = {name_of.get(key, key): file for key, file in image_of.items()}
        classes = publisher.classes(args, NAME)
        return published_rows(NAME, table, classes, (image_of, {}), truth, by_hand)

    publisher.run(args, NAME, {"classes": args.classes}, states_of(place, images | tables), rows)


def read_labels(truth_file: Source, metadata_file: Source) -> pd.DataFrame:
    """Ground truth and metadata together, checked: a row per image, sorted by image_id."""
    truth = read_truth(truth_file)
    metadata = read_indexed(metadata_file, ("lesion_id",)).rename(columns={"gender": "sex"})
    metadata = metadata[["lesion_id", *(name for name in PATIENT_COLUMNS if name in metadata)]]
    for one, other, file in ((truth, metadata, metadata_file), (metadata, truth, truth_file)):
        if len(alone := one.index.difference(other.index)):
            raise InputError(
                f"{file} lacks {counted(len(alone), 'image')} of the other table, such as "
                f"{alone[0]}: download both from {INFO[NAME].home}"
            )
    table = pd.concat([truth, metadata], axis=1).sort_index().rename_axis("image_id")
    refuse_several_labels(table, truth_file)  # also before a dry run
    return table.reset_index()


def read_truth(path: Source) -> pd.Series:
    """Read the label of each image from a table with a column of 0 and 1 for each class."""
    table = read_indexed(path, LABELS)
    classes = [name for name in table if name in (*LABELS, UNKNOWN)]
    return one_hot_labels(table, classes, path, REMEDY)


def read_indexed(path: Source, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a table with one row per image, indexed by image."""
    table = read_table(path, columns=("image", *columns), remedy=REMEDY)
    refuse_repeated(table["image"].map(image_key), path, REMEDY)
    return table.set_index("image")


def image_key(name: str) -> str:
    """An image's name without the ending that only ISIC's tables give to reduced images."""
    return name.removesuffix("_downsampled")


def dry_run(args: argparse.Namespace, table: pd.DataFrame) -> None:
    """Print what each split would hold, and how many queries show a lesion of another part."""
    classes = publisher.classes(args, NAME)
    table = table[table["label"].isin(classes)]
    # The names that the images would have, so that the split is the same.
    frame = table.assign(image="images/" + table["image_id"] + ".jpg", mask="")
    known = frame.loc[frame["lesion_id"] != "", "lesion_id"]
    print(
        f"{INFO[NAME].title}, {len(classes)} classes: {len(frame):,} images; the lesion is known "
        f"for {len(known):,}, which show {known.nunique():,} lesions"
    )
    for name, split in SPLITTERS.items():
        parts = split(frame, seed=args.seed, unseen=args.unseen or 0.0)
        print(f"\nSplit {name!r} (seed {args.seed}), images:\n\n{split_table(parts).to_string()}")
        shares = leakage(parts).to_string(formatters={"share": "{:.1%}".format})
        print(f"\nQueries whose lesion is in the database or val too:\n\n{shares}")
    print("\nThe images may hold near-duplicates, which can change the split 'lesion' a little.")
