"""PH2: 200 dermoscopic images with lesion masks, from the folder or zip file that you obtained.

T. Mendonca, P. M. Ferreira, J. S. Marques, A. R. S. Marcal, J. Rozeira: PH2 - A dermoscopic image
database for research and benchmarking. 35th International Conference of the IEEE Engineering in
Medicine and Biology Society, 5437-5440 (2013).

PH2 has no open download. Its publisher hands out a folder ``PH2Dataset`` with the table
``PH2_dataset.txt`` and, for each image, ``PH2 Dataset images/IMD003/IMD003_Dermoscopic_Image/
IMD003.bmp`` and ``.../IMD003_lesion/IMD003_lesion.bmp``.
"""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import pandas as pd

from data_setup.archives import Archive, Member
from data_setup.common import add_common_arguments, build, fingerprint, summary
from data_setup.info import INFO, print_terms
from data_setup.prepare import SUFFIXES, read
from derm_hash.errors import InputError

HELP = "PH2 from its folder or zip file: 200 images with lesion masks, 2 classes"
NAME = "ph2"
HOME = INFO[NAME].home

TABLE = "PH2_dataset.txt"
DIAGNOSES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}
LABELS = INFO[NAME].labels
File = Path | Member
COLUMNS = ("Name", "Clinical Diagnosis")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser)
    parser.add_argument(
        "--archives",
        type=Path,
        required=True,
        metavar="PATH",
        help="the folder PH2Dataset, or a zip file of it; ask its publisher for it at "
        + HOME.replace("%", "%%"),
    )


def run(args: argparse.Namespace) -> None:
    """Build the data folder ``args.root`` from the folder or zip file ``args.archives``."""
    with ExitStack() as stack:
        files, changes = find_files(args.archives.expanduser(), stack)
        build(
            args,
            NAME,
            {},
            sources={args.archives.name: changes},
            rows=lambda: rows(files, args.archives),
            about=INFO[NAME].record,
        )
    print_terms(NAME)


def find_files(source: Path, stack: ExitStack) -> tuple[dict[str, File], int | str]:
    """The files of a folder or zip by their paths in it, and something that changes with them.

    Raises:
        InputError: there is no such folder or zip file.
    """
    if source.is_dir():
        names = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file())
        return {name: source / name for name in names}, fingerprint(source, names)
    if source.suffix.lower() == ".rar":
        raise InputError(f"{source} is a RAR archive: unpack it and name the folder instead")
    archive = stack.enter_context(Archive(source))
    return {name: Member(archive, name) for name in archive.members}, source.stat().st_size


def rows(files: dict[str, File], place: Path) -> pd.DataFrame:
    """The manifest's rows, sorted by image, not split."""
    tables = [source for name, source in files.items() if PurePosixPath(name).name == TABLE]
    if len(tables) != 1:
        raise InputError(
            f"{place} holds {len(tables)} files {TABLE}: name the folder PH2Dataset with --archives"
        )
    diagnosis_of = read_diagnoses(tables[0])
    image_of = by_id(files, r"(IMD\d+)_Dermoscopic_Image/\1\.\w+")
    mask_of = by_id(files, r"(IMD\d+)_lesion/\1_lesion\.\w+")
    if missing := sorted(diagnosis_of.keys() - image_of.keys()):
        raise InputError(
            f"{len(missing)} images of {tables[0]} are not in {place} ({summary(missing)}): "
            "get the data set again"
        )
    if unlabelled := sorted(image_of.keys() - diagnosis_of.keys()):
        print(f"Left out, since {tables[0]} has no diagnosis for them: {summary(unlabelled)}")
    ids = sorted(diagnosis_of)
    if unmasked := [i for i in ids if i not in mask_of]:
        print(f"Without a lesion mask: {summary(unmasked)}")
    return pd.DataFrame(
        {
            "image": [f"images/{i}{_suffix(image_of[i])}" for i in ids],
            "label": [LABELS[diagnosis_of[i]] for i in ids],
            "lesion_id": "",
            "mask": [f"masks/{i}{_suffix(mask_of[i])}" if i in mask_of else "" for i in ids],
            "source": INFO[NAME].title,
            "diagnosis": [diagnosis_of[i] for i in ids],
            "image_from": [image_of[i] for i in ids],
            "mask_from": [mask_of.get(i) for i in ids],
        }
    )


def by_id(files: dict[str, File], pattern: str) -> dict[str, File]:
    """Image id -> the image file whose path ends as the pattern says.

    Raises:
        InputError: an id has two of them.
    """
    found: dict[str, File] = {}
    for name, source in files.items():
        match = re.search(f"(?:^|/){pattern}$", name)
        if match and PurePosixPath(name).suffix.lower() in SUFFIXES:
            if match[1] in found:
                raise InputError(f"{source} and {found[match[1]]} are one image: remove one")
            found[match[1]] = source
    return found


def read_diagnoses(source: File) -> dict[str, str]:
    """Image id -> diagnosis from PH2's table, whose cells stand between ``|`` or ``||``.

    Raises:
        InputError: the columns are missing, an image is listed twice, or a diagnosis is unknown.
    """
    lines = read(source).decode("utf-8", errors="replace").splitlines()
    # The legend below the table has no bars at the start of its lines.
    table = [[cell.strip() for cell in re.split(r"\|+", s)] for s in lines if s.startswith("|")]
    header = table[0] if table else []
    if not set(COLUMNS) <= set(header):
        raise InputError(
            f"{source} does not start with a table with the columns {' and '.join(COLUMNS)}: "
            "get the data set again"
        )
    name_at, code_at = (header.index(column) for column in COLUMNS)
    found: dict[str, str] = {}
    for row in table[1:]:
        if len(row) != len(header) or row[code_at] not in DIAGNOSES:
            raise InputError(
                f"{source} has a line without one of the clinical diagnoses "
                f"{', '.join(DIAGNOSES)} ({' '.join(filter(None, row))}): get the data set again"
            )
        if row[name_at] in found:
            raise InputError(f"{source} lists {row[name_at]} twice: get the data set again")
        found[row[name_at]] = DIAGNOSES[row[code_at]]
    if not found:
        raise InputError(f"the table in {source} has no rows: get the data set again")
    return found


def _suffix(source: File) -> str:
    return PurePosixPath(source.name).suffix.lower()
