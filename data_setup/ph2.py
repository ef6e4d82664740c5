"""PH2: 200 dermoscopic images with lesion masks, from the folder or zip file that you obtained.

PH2 has no open download. Its publisher hands out a folder ``PH2Dataset`` with the table
``PH2_dataset.txt`` and, for each image, ``PH2 Dataset images/IMD003/IMD003_Dermoscopic_Image/
IMD003.bmp`` and ``.../IMD003_lesion/IMD003_lesion.bmp``. Copies come in other layouts, so files are
recognised by their names: ``IMD003.*`` is an image; ``IMD003_lesion.*``, or an ``IMD003.*`` in a
folder of masks, is its mask; and ``PH2_dataset`` is a text, CSV or Excel file.
"""

import argparse
import re
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from data_setup import publisher
from data_setup.info import INFO
from data_setup.options import add_common_arguments
from data_setup.sources import Source, files_in, images_by_id, listing, path_of, states_of
from data_setup.tables import labels_from, published_rows, refuse_repeated
from derm_hash.data.tables import read_table
from derm_hash.errors import InputError

HELP = "PH2 from its folder or zip file: 200 images with lesion masks, 2 classes"
NAME = "ph2"

TABLES = ("PH2_dataset.txt", "PH2_dataset.csv", "PH2_dataset.xlsx")
COLUMNS = ("Name", "Clinical Diagnosis")
DIAGNOSES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}
CODE_OF = {name: code for code, name in DIAGNOSES.items()}
WORKBOOK_NAME = "Image Name"
MASK_NAME = re.compile("_lesion$|_mask$|_segmentation$", re.IGNORECASE)
MASK_FOLDER = re.compile("mask|_lesion$|segm|trimap|truth", re.IGNORECASE)
REMEDY = "get the data set again"
LAYOUT = (
    "save a table PH2_dataset.csv with the columns Name (IMD003) and Clinical Diagnosis (0, 1, "
    "or 2) in its place"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    home = INFO[NAME].home.replace("%", "%%")
    text = f"the folder PH2Dataset, or a zip file of it; ask its publisher for it at {home}"
    parser.add_argument("--archives", type=Path, required=True, metavar="PATH", help=text)


def run(args: argparse.Namespace) -> None:
    place = args.archives.expanduser()
    files = files_in(place)
    publisher.run(args, NAME, {}, states_of(place, files), lambda: rows(files, place))


def rows(files: dict[str, Source], place: Path) -> pd.DataFrame:
    """The manifest's rows, sorted by image, not split."""
    if not (path := path_of(files, TABLES)):
        raise InputError(
            f"{place} holds none of {', '.join(TABLES)}: name the folder PH2Dataset with "
            f"--archives, or {LAYOUT}"
        )
    diagnoses = read_diagnoses(files[path])
    table = diagnoses.rename_axis("image_id").rename("diagnosis").reset_index()
    table = table.assign(label=table["diagnosis"].map(INFO[NAME].labels), lesion_id="")
    masks = {path: file for path, file in files.items() if is_mask(path)}
    images = {path: file for path, file in files.items() if path not in masks}
    found = (
        images_by_id(images, r"(IMD\d+)"),
        images_by_id(masks, rf"(IMD\d+)({MASK_NAME.pattern})?"),
    )
    if unmasked := sorted(set(table["image_id"]) - found[1].keys()):
        print(f"Without a lesion mask: {listing(unmasked)}")
    return published_rows(NAME, table, table["label"].unique(), found, files[path], REMEDY)


def is_mask(path: str) -> bool:
    """Whether a file has the name of a mask, or lies in a folder of masks."""
    name = PurePosixPath(path)
    return bool(MASK_NAME.search(name.stem) or MASK_FOLDER.search(name.parent.name))


def read_diagnoses(source: Source) -> pd.Series:
    """Image id -> diagnosis from PH2's table, in one of its two forms."""
    try:
        table = read_table(source, COLUMNS, LAYOUT)
    except InputError as error:
        try:
            table = marks_as_codes(read_table(source, (WORKBOOK_NAME, *DIAGNOSES.values())))
        except InputError:
            raise error from None  # the message about the usual form helps more
    table = table[table["Name"] != ""]  # without the legend
    if table.empty:
        raise InputError(f"the table in {source} has no rows: {REMEDY}")
    names = table["Name"].str.upper()
    refuse_repeated(names, source, REMEDY)
    codes = table["Clinical Diagnosis"].str.removesuffix(".0").str.lower().set_axis(names)
    return labels_from(codes.replace(CODE_OF), DIAGNOSES, source, REMEDY)


def marks_as_codes(table: pd.DataFrame) -> pd.DataFrame:
    """Turn the publisher's workbook, which marks one of three columns, into the usual form."""
    marked = (table[list(CODE_OF)] != "").to_numpy()
    codes = [" and ".join(np.array(list(DIAGNOSES))[row]) for row in marked]
    return pd.DataFrame({"Name": table[WORKBOOK_NAME], "Clinical Diagnosis": codes})
