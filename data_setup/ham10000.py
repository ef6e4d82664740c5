"""HAM10000: 10,015 dermoscopic images of 7,470 lesions in seven classes, with lesion masks.

P. Tschandl, C. Rosendahl, H. Kittler: The HAM10000 dataset, a large collection of
multi-source dermatoscopic images of common pigmented skin lesions. Scientific Data 5,
180161 (2018).
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import pandas as pd

from data_setup.build import build
from data_setup.download import publisher_files
from data_setup.info import INFO, PAPER_CLASSES, print_terms
from data_setup.options import add_class_arguments, add_common_arguments, add_publisher_arguments
from data_setup.sources import Source, files_in, images_by_id
from data_setup.tables import (
    labels_from,
    manifest_rows,
    refuse_missing,
    refuse_repeated,
    refuse_several_labels,
    report_unlabelled,
)
from derm_hash.data.manifest import read_table
from derm_hash.errors import InputError

HELP = "HAM10000 from its archives: 10,015 images with lesion masks, 4 or 7 classes"
NAME = "ham10000"
HOME = INFO[NAME].home
LABELS = INFO[NAME].labels
CLASSES = {4: PAPER_CLASSES, 7: tuple(LABELS.values())}

# Where a folder holds several kinds of archive the first kind is used: full size before reduced.
IMAGE_ARCHIVES = (
    "HAM10000_images_part*.zip",
    "ISIC2018_Task3_Training_Input.zip",
    "HAM10000_images*.zip",
    "HAM10000_fullres*.zip",
)
MASK_ARCHIVES = ("HAM10000_segmentations_lesion_tschandl.zip", "HAM10000_masks*.zip")
METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")
PATIENT_COLUMNS = ("dx_type", "age", "sex", "localization")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser)
    add_publisher_arguments(parser)
    add_class_arguments(parser, CLASSES, "4: MEL NV BCC BKL, 9,431 images; 7: all, 10,015 images")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="leave out images that are in no archive, instead of stopping",
    )


def run(args: argparse.Namespace) -> None:
    """Build the data folder ``args.root`` from the archives in ``args.archives``."""
    folder = publisher_files(args, NAME)
    images, masks, metadata = find_files(folder)
    with ExitStack() as stack:
        image_of, mask_of = members(images, stack), members(masks, stack)
        build(
            args,
            NAME,
            {"classes": args.classes, "partial": args.partial},
            sources={path.name: path.stat().st_size for path in (*images, *masks, metadata)},
            rows=lambda: rows(metadata, CLASSES[args.classes], image_of, mask_of, args.partial),
            about=INFO[NAME].record,
        )
    print_terms(NAME)


def find_files(folder: Path) -> tuple[list[Path], list[Path], Path]:
    """Image archives, mask archives (maybe none) and the metadata table in a folder."""
    if not folder.is_dir():
        raise InputError(f"the folder --archives {folder} does not exist: check the path")
    found = []
    for what, patterns in (
        ("image archive", IMAGE_ARCHIVES),
        ("metadata table", METADATA),
        ("mask archive", MASK_ARCHIVES),
    ):
        kinds = (sorted(folder.glob(pattern)) for pattern in patterns)
        found.append(next(filter(None, kinds), []))
        missing = f"{folder} has no {what} ({' or '.join(patterns)})"
        if not found[-1] and patterns is MASK_ARCHIVES:
            print(f"{missing}: going on without.")
        elif not found[-1]:
            raise InputError(f"{missing}: download it from {HOME}")
    images, metadata, masks = found
    return images, masks, metadata[0]


def members(archives: list[Path], stack: ExitStack) -> dict[str, Source]:
    """Image id -> its file, for images (ID.jpg) and masks (ID_segmentation.png)."""
    files = {f"{p}/{name}": source for p in archives for name, source in files_in(p, stack).items()}
    return images_by_id(files, lambda name: PurePosixPath(name).stem.removesuffix("_segmentation"))


def rows(
    metadata: Path,
    classes: tuple[str, ...],
    image_of: dict[str, Source],
    mask_of: dict[str, Source],
    partial: bool,
) -> pd.DataFrame:
    """The manifest's rows, sorted by image, not split."""
    table = read_metadata(metadata)
    report_unlabelled(image_of, table["image_id"], metadata)
    table = table[table["label"].isin(classes)].sort_values("image_id", ignore_index=True)
    if not partial:
        remedy = "download the missing archive, or go without them by --partial"
        refuse_missing(table["image_id"], image_of, metadata, metadata.parent, remedy)
    table = table[table["image_id"].isin(image_of.keys())].reset_index(drop=True)
    if table.empty:
        raise InputError(f"none of the images of {metadata} is in an archive: check the files")
    columns = ["image_id", "label", "lesion_id", *(c for c in PATIENT_COLUMNS if c in table)]
    images, masks = ([of.get(key) for key in table["image_id"]] for of in (image_of, mask_of))
    return manifest_rows(table[columns], images, masks, INFO[NAME].title)


def read_metadata(path: Path) -> pd.DataFrame:
    """The metadata with a column ``label`` in ISIC's names; `InputError` if it is not sound."""
    with path.open("rb") as file:
        separator = "\t" if b"\t" in file.readline() else ","
    remedy = f"download it from {HOME}"
    table = read_table(path, separator, ("lesion_id", "image_id", "dx"), remedy)
    refuse_repeated(table["image_id"], path, remedy)
    codes = table.set_index("image_id")["dx"]
    table["label"] = labels_from(codes, LABELS, path, remedy).to_numpy()
    refuse_several_labels(table, path)
    return table
