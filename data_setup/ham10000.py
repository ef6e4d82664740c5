"""HAM10000: 10,015 dermoscopic images of 7,470 lesions in seven classes, with lesion masks.

P. Tschandl, C. Rosendahl, H. Kittler: The HAM10000 dataset, a large collection of
multi-source dermatoscopic images of common pigmented skin lesions. Scientific Data 5,
180161 (2018).
"""

import argparse
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import pandas as pd

from data_setup import publisher
from data_setup.info import INFO
from data_setup.options import add_common_arguments
from data_setup.sources import Source, files_in, images_by_id
from data_setup.tables import labels_from, published_rows, refuse_repeated, refuse_several_labels
from derm_hash.data.manifest import read_table
from derm_hash.errors import InputError

HELP = "HAM10000 from its archives: 10,015 images with lesion masks, 4 or 7 classes"
NAME = "ham10000"
REMEDY = f"download it from {INFO[NAME].home}"

FILES = {
    "image archive": (
        "HAM10000_images_part*.zip",
        "ISIC2018_Task3_Training_Input.zip",
        "HAM10000_images*.zip",
        "HAM10000_fullres*.zip",
    ),
    "mask archive": ("HAM10000_segmentations_lesion_tschandl.zip", "HAM10000_masks*.zip"),
    "metadata table": ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata"),
}
"""What is needed, and its names. The first that is found is used: full size before reduced."""

PATIENT_COLUMNS = ("dx_type", "age", "sex", "localization")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser)
    publisher.add_arguments(parser)
    publisher.add_classes(parser, NAME)
    parser.add_argument(
        "--partial",
        action="store_true",
        help="leave out images that are in no archive, instead of stopping",
    )


def run(args: argparse.Namespace) -> None:
    """Build the data folder ``args.root`` from the archives in ``args.archives``."""
    folder = publisher.files(args, NAME)
    options = {"classes": args.classes, "partial": args.partial}
    publisher.run(args, NAME, options, lambda stack: contents(args, folder, stack))


def contents(args: argparse.Namespace, folder: Path, stack: ExitStack) -> publisher.Contents:
    """The files read, and the function that gives the manifest's rows."""
    images, masks, (metadata,) = find_files(folder)
    files = members(images, stack), members(masks, stack)
    remedy = "" if args.partial else "download the missing archive, or go without by --partial"

    def rows() -> pd.DataFrame:
        table, classes = read_metadata(metadata), publisher.classes(args, NAME)
        return published_rows(NAME, table, classes, files, metadata, remedy)

    return {path.name: path.stat().st_size for path in (*images, *masks, metadata)}, rows


def find_files(folder: Path) -> list[list[Path]]:
    """Image archives, mask archives (maybe none) and the metadata table in a folder."""
    if not folder.is_dir():
        raise InputError(f"the folder --archives {folder} does not exist: check the path")
    found = []
    for what, patterns in FILES.items():
        found.append(next(filter(None, (sorted(folder.glob(one)) for one in patterns)), []))
        missing = f"{folder} has no {what} ({' or '.join(patterns)})"
        if not found[-1] and what == "mask archive":
            print(f"{missing}: going on without.")
        elif not found[-1]:
            raise InputError(f"{missing}: {REMEDY}")
    return found


def members(archives: list[Path], stack: ExitStack) -> dict[str, Source]:
    """Image id -> its file, for images (ID.jpg) and masks (ID_segmentation.png)."""
    files = {f"{p}/{name}": source for p in archives for name, source in files_in(p, stack).items()}
    return images_by_id(files, lambda name: PurePosixPath(name).stem.removesuffix("_segmentation"))


def read_metadata(path: Path) -> pd.DataFrame:
    """Columns image_id, label in ISIC's names, lesion_id, patient; `InputError` if not sound."""
    with path.open("rb") as file:
        separator = "\t" if b"\t" in file.readline() else ","
    table = read_table(path, separator, ("lesion_id", "image_id", "dx"), REMEDY)
    refuse_repeated(table["image_id"], path, REMEDY)
    codes = table.set_index("image_id")["dx"]
    table["label"] = labels_from(codes, INFO[NAME].labels, path, REMEDY).to_numpy()
    refuse_several_labels(table, path)
    columns = ("image_id", "label", "lesion_id", *PATIENT_COLUMNS)
    return table[[column for column in columns if column in table]]
