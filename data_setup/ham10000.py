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

from data_setup.archives import Archive, Member
from data_setup.common import add_common_arguments, add_publisher_arguments, build, summary
from data_setup.download import publisher_files
from data_setup.info import INFO, PAPER_CLASSES, print_terms
from derm_hash.data.manifest import read_table
from derm_hash.errors import InputError

HELP = "HAM10000 from its archives: 10,015 images with lesion masks, 4 or 7 classes"
NAME = "ham10000"
HOME = INFO[NAME].home
LABELS = INFO[NAME].labels
CLASSES = {4: PAPER_CLASSES, 7: tuple(LABELS.values())}

# Of several kinds of archive in a folder the first kind is used: full size before reduced.
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
    parser.add_argument(
        "--classes",
        type=int,
        choices=sorted(CLASSES),
        default=4,
        help="4: MEL NV BCC BKL, 9,431 images; 7: all, 10,015 images (default: %(default)s)",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="leave out images that are in no archive, instead of stopping",
    )


def run(args: argparse.Namespace) -> None:
    """Build the data folder ``args.root`` from the archives in ``args.archives``."""
    images, masks, metadata = find_files(publisher_files(args, NAME))
    with ExitStack() as stack:
        image_of = members([stack.enter_context(Archive(path)) for path in images])
        mask_of = members([stack.enter_context(Archive(path)) for path in masks])
        build(
            args,
            "ham10000",
            {"classes": args.classes, "partial": args.partial},
            sources={path.name: path.stat().st_size for path in (*images, *masks, metadata)},
            rows=lambda: rows(metadata, CLASSES[args.classes], image_of, mask_of, args.partial),
            about=INFO[NAME].record,
        )
    print_terms(NAME)


def find_files(folder: Path) -> tuple[list[Path], list[Path], Path]:
    """Image archives, mask archives (maybe none) and the metadata table in a folder."""
    folder = folder.expanduser()
    if not folder.is_dir():
        raise InputError(f"the folder --archives {folder} does not exist: check the path")
    images = first_kind(folder, IMAGE_ARCHIVES)
    metadata = first_kind(folder, METADATA)
    for found, wanted in ((images, "image archive"), (metadata, "metadata table")):
        if not found:
            names = " or ".join(IMAGE_ARCHIVES if found is images else METADATA)
            raise InputError(f"{folder} has no {wanted} ({names}): download it from {HOME}")
    masks = first_kind(folder, MASK_ARCHIVES)
    if not masks:
        print(f"{folder} has no mask archive ({' or '.join(MASK_ARCHIVES)}): going on without.")
    return images, masks, metadata[0]


def first_kind(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The files that match the first pattern to match any."""
    return next((found for pattern in patterns if (found := sorted(folder.glob(pattern)))), [])


def members(archives: list[Archive]) -> dict[str, Member]:
    """Image id -> its file, for images (ID.jpg) and masks (ID_segmentation.png)."""
    found: dict[str, Member] = {}
    for archive in archives:
        for name in archive.members:
            path = PurePosixPath(name)
            if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
                continue
            image_id = path.stem.removesuffix("_segmentation")
            if image_id in found:
                other = found[image_id].archive.path
                raise InputError(
                    f"{image_id} is both in {other} and in {archive.path}: remove one of them"
                )
            found[image_id] = Member(archive, name)
    return found


def rows(
    metadata: Path,
    classes: tuple[str, ...],
    image_of: dict[str, Member],
    mask_of: dict[str, Member],
    partial: bool,
) -> pd.DataFrame:
    """The manifest's rows, sorted by image, not split."""
    table = read_metadata(metadata)
    if unlabelled := sorted(image_of.keys() - set(table["image_id"])):
        print(f"Left out, since {metadata} has no label for them: {summary(unlabelled)}")
    table = table[table["label"].isin(classes)].sort_values("image_id", ignore_index=True)
    present = table["image_id"].isin(image_of.keys())
    if not present.all() and not partial:
        missing = table.loc[~present, "image_id"]
        raise InputError(
            f"{len(missing)} of {len(table)} images, such as {missing.iloc[0]}, are in no archive: "
            "download the missing archive, or go without them by --partial"
        )
    if not present.any():
        raise InputError(f"none of the images of {metadata} is in an archive: check the files")
    table = table[present].reset_index(drop=True)
    ids = table["image_id"]
    return pd.DataFrame(
        {
            "image": [f"images/{i}{PurePosixPath(image_of[i].name).suffix.lower()}" for i in ids],
            "label": table["label"],
            "lesion_id": table["lesion_id"],
            "mask": [f"masks/{i}.png" if i in mask_of else "" for i in ids],
            "source": "HAM10000",
            **{name: table[name] for name in PATIENT_COLUMNS if name in table},
            "image_from": [image_of[i] for i in ids],
            "mask_from": [mask_of.get(i) for i in ids],
        }
    )


def read_metadata(path: Path) -> pd.DataFrame:
    """The metadata with a column ``label`` in ISIC's names.

    Raises:
        InputError: a column is missing, a diagnosis is unknown, an image is listed twice,
            or one lesion has two diagnoses.
    """
    with path.open("rb") as file:
        separator = "\t" if b"\t" in file.readline() else ","
    table = read_table(path, separator)
    for column in ("lesion_id", "image_id", "dx"):
        if column not in table:
            raise InputError(f"{path} has no column {column!r}: download it from {HOME}")
    table["label"] = table["dx"].map(LABELS)
    if (bad := table["label"].isna()).any():
        row = table[bad].iloc[0]
        raise InputError(
            f"{path} gives {row['image_id']} the diagnosis {row['dx']!r}, which is none of "
            f"{', '.join(LABELS)}: download it from {HOME}"
        )
    if (bad := table["image_id"].duplicated()).any():
        image = table.loc[bad, "image_id"].iloc[0]
        raise InputError(f"{path} lists {image} twice: download it from {HOME}")
    diagnoses = table[table["lesion_id"] != ""].groupby("lesion_id")["label"].nunique()
    if (diagnoses > 1).any():
        lesion = diagnoses.idxmax()
        raise InputError(f"{path} gives lesion {lesion} two diagnoses: correct one of them")
    return table
