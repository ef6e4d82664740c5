"""HAM10000: 10,015 dermoscopic images of 7,470 lesions in seven classes, with lesion masks."""

import argparse
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd

from data_setup import publisher
from data_setup.info import INFO
from data_setup.options import add_common_arguments
from data_setup.sources import Source, files_in, images_by_id, named, path_of, states_of
from data_setup.tables import labels_from, published_rows, refuse_repeated
from derm_hash.data.tables import read_table
from derm_hash.errors import InputError

HELP = "HAM10000 from its archives: 10,015 images with lesion masks, 4 or 7 classes"
NAME = "ham10000"
REMEDY = f"download it from {INFO[NAME].home}"

FOLDERS = {
    "images": (
        "HAM10000_images_part*",
        "ISIC2018_Task3_Training_Input",
        "HAM10000_images*",
        "HAM10000_fullres*",
        "*",
    ),
    "masks": ("HAM10000_segmentations_lesion_tschandl", "HAM10000_masks*", "*"),
}
"""Names of archives and folders. The first that is found is used: full size before reduced."""
PATTERNS = {"images": r"(ISIC_\d+)", "masks": r"(ISIC_\d+)_segmentation"}
"""Patterns of the files' names without suffix; the group is the image's id."""
TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")

PATIENT_COLUMNS = ("dx_type", "age", "sex", "localization")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    publisher.add_arguments(parser)
    publisher.add_classes(parser, NAME)
    text = "leave out images that are in no archive, instead of stopping"
    parser.add_argument("--partial", action="store_true", help=text)


def run(args: argparse.Namespace) -> None:
    images, masks, metadata = find_files(place := publisher.files(args, NAME))
    (table,) = metadata.values()

    def rows() -> pd.DataFrame:
        files = images_by_id(images, PATTERNS["images"]), images_by_id(masks, PATTERNS["masks"])
        remedy = "download the missing archive, or leave them out with --partial"
        classes = publisher.classes(args, NAME)
        every = read_metadata(table)
        return published_rows(NAME, every, classes, files, table, remedy, args.partial)

    options = {"classes": args.classes, "partial": args.partial}
    publisher.run(args, NAME, options, states_of(place, images | masks | metadata), rows)


def find_files(place: Path) -> tuple[dict[str, Source], ...]:
    """Images, masks (maybe none) and the metadata table, by path in a folder or archive."""
    likely = [pattern for group in FOLDERS.values() for pattern in group if pattern != "*"]
    for patterns in (likely, ["*"]):  # other archives are opened only if these lack something
        files = files_in(place, lambda name, wanted=patterns: is_in(name, wanted))
        images, masks = (chosen(files, what) for what in FOLDERS)
        table = path_of(files, TABLES)
        if images and table:
            break
    if not images:
        expected = " or ".join(FOLDERS["images"][:-1])
        raise InputError(f"{place} has no image archive or folder ({expected}): {REMEDY}")
    if not table:
        raise InputError(f"{place} has no metadata table ({' or '.join(TABLES)}): {REMEDY}")
    if not masks:
        expected = " or ".join(FOLDERS["masks"][:-1])
        print(f"{place} has no mask archive ({expected}): going on without masks")
    return images, masks, {table: files[table]}


def chosen(files: dict[str, Source], what: str) -> dict[str, Source]:
    """The images, or the masks, of the first pattern of `FOLDERS` that has some."""
    fitting = named(files, PATTERNS[what])
    found = ({path: files[path] for path in fitting if is_in(path, [one])} for one in FOLDERS[what])
    return next(filter(None, found), {})


def is_in(path: str, patterns: Sequence[str]) -> bool:
    """Whether a part of a path, without .zip, matches one of the patterns."""
    parts = [part.lower().removesuffix(".zip") for part in path.split("/")]
    return any(fnmatch(part, pattern.lower()) for part in parts for pattern in patterns)


def read_metadata(path: Source) -> pd.DataFrame:
    """Read image_id, label in ISIC's names, lesion_id and patient data; `InputError` if invalid."""
    table = read_table(path, ("lesion_id", "image_id", "dx"), REMEDY)
    refuse_repeated(table["image_id"], path, REMEDY)
    codes = table.set_index("image_id")["dx"]
    table["label"] = labels_from(codes, INFO[NAME].labels, path, REMEDY).to_numpy()
    columns = ("image_id", "label", "lesion_id", *PATIENT_COLUMNS)
    return table[[column for column in columns if column in table]]
