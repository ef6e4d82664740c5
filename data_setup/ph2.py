"""PH2: 200 dermoscopic images with lesion masks, from the folder or zip file that you obtained.

T. Mendonca, P. M. Ferreira, J. S. Marques, A. R. S. Marcal, J. Rozeira: PH2 - A dermoscopic image
database for research and benchmarking. 35th International Conference of the IEEE Engineering in
Medicine and Biology Society, 5437-5440 (2013).

PH2 has no open download. Its publisher hands out a folder ``PH2Dataset`` with the table
``PH2_dataset.txt`` and, for each image, ``PH2 Dataset images/IMD003/IMD003_Dermoscopic_Image/
IMD003.bmp`` and ``.../IMD003_lesion/IMD003_lesion.bmp``.
"""

import argparse
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import pandas as pd

from data_setup import publisher
from data_setup.info import INFO
from data_setup.options import add_common_arguments
from data_setup.sources import Source, files_in, images_by_id, listing, read, stamp
from data_setup.tables import labels_from, published_rows, refuse_repeated
from derm_hash.errors import InputError

HELP = "PH2 from its folder or zip file: 200 images with lesion masks, 2 classes"
NAME = "ph2"

TABLE = "PH2_dataset.txt"
COLUMNS = ("Name", "Clinical Diagnosis")
DIAGNOSES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}
REMEDY = "get the data set again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser)
    parser.add_argument(
        "--archives",
        type=Path,
        required=True,
        metavar="PATH",
        help="the folder PH2Dataset, or a zip file of it; ask its publisher for it at "
        + INFO[NAME].home.replace("%", "%%"),
    )


def run(args: argparse.Namespace) -> None:
    """Build the data folder ``args.root`` from the folder or zip file ``args.archives``."""
    place = args.archives.expanduser()
    if place.suffix.lower() == ".rar":
        raise InputError(f"{place} is a RAR archive: unpack it and name the folder instead")
    publisher.run(args, NAME, {}, lambda stack: contents(place, stack))


def contents(place: Path, stack: ExitStack) -> publisher.Contents:
    """The files read, and the function that gives the manifest's rows."""
    files = files_in(place, stack)
    changes = stamp(place, files) if place.is_dir() else place.stat().st_size
    return {place.name: changes}, lambda: rows(files, place)


def rows(files: dict[str, Source], place: Path) -> pd.DataFrame:
    """The manifest's rows, sorted by image, not split."""
    tables = [source for name, source in files.items() if PurePosixPath(name).name == TABLE]
    if len(tables) != 1:
        raise InputError(
            f"{place} holds {len(tables)} files {TABLE}: name the folder PH2Dataset with --archives"
        )
    diagnoses = read_diagnoses(tables[0])
    table = pd.DataFrame({"image_id": diagnoses.index, "diagnosis": diagnoses.to_numpy()})
    table = table.assign(label=table["diagnosis"].map(INFO[NAME].labels), lesion_id="")
    image_of = images_by_id(files, id_in(r"(IMD\d+)_Dermoscopic_Image/\1\.\w+"))
    mask_of = images_by_id(files, id_in(r"(IMD\d+)_lesion/\1_lesion\.\w+"))
    if unmasked := sorted(set(table["image_id"]) - mask_of.keys()):
        print(f"Without a lesion mask: {listing(unmasked)}")
    files = image_of, mask_of
    return published_rows(NAME, table, table["label"].unique(), files, tables[0], REMEDY)


def id_in(pattern: str) -> Callable[[str], str | None]:
    """A function from a path that ends as the pattern says to the image's id."""
    return lambda name: (found := re.search(f"(?:^|/){pattern}$", name)) and found[1]


def read_diagnoses(source: Source) -> pd.Series:
    """Image id -> diagnosis from PH2's table, whose cells stand between ``|`` or ``||``."""
    lines = read(source).decode("utf-8", errors="replace").splitlines()
    # The legend below the table has no bars at the start of its lines.
    cells = [[cell.strip() for cell in re.split(r"\|+", s)] for s in lines if s.startswith("|")]
    header = cells[0] if cells else []
    if not set(COLUMNS) <= set(header):
        raise InputError(
            f"{source} does not start with a table with the columns {' and '.join(COLUMNS)}: "
            f"{REMEDY}"
        )
    places = [header.index(column) for column in COLUMNS]
    rows = [[row[i] if i < len(row) else "" for i in places] for row in cells[1:]]
    table = pd.DataFrame(rows, columns=COLUMNS)
    if table.empty:
        raise InputError(f"the table in {source} has no rows: {REMEDY}")
    refuse_repeated(table["Name"], source, REMEDY)
    return labels_from(table.set_index("Name")["Clinical Diagnosis"], DIAGNOSES, source, REMEDY)
