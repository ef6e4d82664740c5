"""Options that the commands share."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from data_setup.labels import split_of
from data_setup.prepare import FITS
from derm_hash.data.splits import split_by_image, split_by_lesion

SPLITTERS = {"lesion": split_by_lesion, "paper": split_by_image}


def at_least(least: int) -> Callable[[str], int]:
    """argparse type of a whole number from `least` up."""

    def whole_number(text: str) -> int:
        if (number := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{text} is not possible: use {least} or more")
        return number

    return whole_number


def share(text: str) -> float:
    """argparse type of a share of the images, above 0 and below 1."""
    if not 0 < (number := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not possible: use a share such as 0.25")
    return number


def part_and_table(text: str) -> tuple[str, Path]:
    """argparse type of ``--split-csv``: "test=FILE" -> ("query", FILE)."""
    name, equals, path = text.partition("=")
    part = split_of(name)
    if not (part and equals and path):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a part and its table: write train=FILE, val=FILE, test=FILE"
        )
    return part, Path(path)


def pixels(text: str) -> int | None:
    """argparse type of ``--size``: a number of pixels, or None for the word ``original``."""
    return None if text == "original" else at_least(1)(text)


def add_common_arguments(
    parser: argparse.ArgumentParser,
    need_root: bool = True,
    size: int = 256,
    own_splits: Mapping[str, str] = MappingProxyType({}),
    default_split: str | None = "lesion",
) -> None:
    """Add the options of every command that fills a data folder.

    `size` is the default size. `own_splits` maps the names of splits that the command's rows may
    come with to descriptions. Where `default_split` is None, the command decides.
    """
    option = parser.add_argument
    option("--root", type=Path, required=need_root, help="data folder to fill")
    text = (
        "side in pixels of the squares to store; smaller images are not enlarged, and 'original' "
        "keeps the files as they are (default: %(default)s)"
    )
    option("--size", type=pixels, default=size, help=text)
    text = "crop: the centre square; pad: the whole image on its edge colour (default: crop)"
    option("--fit", choices=FITS, default="crop", help=text)
    text = (
        "lesion: no lesion and no near-duplicate is in two parts; paper: by image, 10 %% of each "
        "class as queries, so that images of one lesion may be in several parts"
        + "".join(f"; {name}: {meaning}" for name, meaning in own_splits.items())
        + f" (default: {default_split or 'the table, or else lesion'})"
    )
    option("--split", choices=sorted([*own_splits, *SPLITTERS]), default=default_split, help=text)
    text = (
        "use a published split instead, with a CSV for each part (train or database, val, query or "
        "test) whose column image names its images; all other images are left out"
    )
    several = {"nargs": "+", "action": "extend", "metavar": "PART=FILE"}
    option("--split-csv", type=part_and_table, help=text, **several)
    text = (
        "keep this share of the images that are neither queries nor val as a database that is not "
        "trained on, such as 0.25 (default: the network is trained on the database)"
    )
    option("--unseen", type=share, metavar="SHARE", help=text)
    option("--seed", type=at_least(0), default=0, help="seed of everything random (default: 0)")
    text = "number of threads (default: a few more than cores)"
    option("--workers", type=at_least(1), help=text)
    text = "leave out images that cannot be read and list them in dataset.json, instead of stopping"
    option("--skip-bad", action="store_true", help=text)
    text = "make a finished data folder anew, with these options"
    option("--force", action="store_true", help=text)
