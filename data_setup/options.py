"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_setup.prepare import FITS
from derm_hash.data.splits import split_by_image, split_by_lesion

SPLITTERS = {"lesion": split_by_lesion, "paper": split_by_image}


def positive(text: str) -> int:
    """argparse type of a whole number from 1 up."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """argparse type of a whole number from 0 up."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if (number := int(text)) < least:
        raise argparse.ArgumentTypeError(f"{text} is not possible: use {least} or more")
    return number


def pixels(text: str) -> int | None:
    """argparse type of ``--size``: a number of pixels, or None for the word ``original``."""
    return None if text == "original" else positive(text)


def add_common_arguments(
    parser: argparse.ArgumentParser, need_root: bool = True, own_split: str | None = None
) -> None:
    """Add the options of every command that fills a data folder.

    With `own_split`, the command's rows come with a split of that name, which is the default.
    """
    parser.add_argument("--root", type=Path, required=need_root, help="data folder to fill")
    parser.add_argument(
        "--size",
        type=pixels,
        default=256,
        help="side in pixels of the squares to store; smaller images are not enlarged, and "
        "'original' keeps the files as they are (default: %(default)s)",
    )
    parser.add_argument(
        "--fit",
        choices=FITS,
        default="crop",
        help="crop: the centre square; pad: the whole image, its edge colour around it "
        "(default: %(default)s)",
    )
    own = f"{own_split}: the publisher's; " if own_split else ""
    parser.add_argument(
        "--split",
        choices=sorted([*SPLITTERS, *filter(None, [own_split])]),
        default=own_split or "lesion",
        help=f"{own}lesion: no lesion and no near-duplicate is in two parts; paper: by image, "
        "10 %% of each class as queries, so that images of one lesion may be on both sides "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=natural, default=0, help="seed of everything random (default: 0)"
    )
    parser.add_argument("--workers", type=positive, help="threads (default: a few more than cores)")
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out images that cannot be read and list them in dataset.json, "
        "instead of stopping",
    )
    parser.add_argument(
        "--force", action="store_true", help="make a finished data folder anew, with these options"
    )


def add_publisher_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the commands whose files a publisher offers."""
    parser.add_argument(
        "--archives",
        type=Path,
        metavar="DIR",
        help="folder with the publisher's files, already downloaded; nothing is fetched then",
    )
    parser.add_argument(
        "--accept-licence",
        action="store_true",
        help="accept the licence that `python -m data_setup list` shows; needed for a download, "
        "which goes to downloads/NAME beside --root",
    )


def add_class_arguments(
    parser: argparse.ArgumentParser, classes: dict[int, tuple[str, ...]], text: str
) -> None:
    """Add the option of the commands that can use a data set with fewer classes."""
    parser.add_argument(
        "--classes",
        type=int,
        choices=sorted(classes),
        default=4,
        help=f"{text} (default: %(default)s)",
    )
