"""What the commands of published data sets share: options, files, and the run."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from data_setup.build import build
from data_setup.download import NotOffered, fetch
from data_setup.info import INFO, PAPER_CLASSES, files_of, images
from derm_hash.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the commands whose files a publisher offers."""
    text = "folder or zip file with the publisher's files; without it, they are downloaded"
    parser.add_argument("--archives", type=Path, metavar="PATH", help=text)
    text = (
        "accept the licence that `python -m data_setup list` shows; needed for a download, which "
        "goes to downloads/NAME beside --root"
    )
    parser.add_argument("--accept-licence", action="store_true", help=text)


def add_classes(parser: argparse.ArgumentParser, name: str) -> None:
    """Add ``--classes``, for data sets that can be reduced to the paper's four classes."""
    every = INFO[name].classes
    few = [one for one in every if one.label in PAPER_CLASSES]
    text = (
        f"{len(few)}: {' '.join(PAPER_CLASSES)}, the paper's, {images(few):,} images; "
        f"{len(every)}: all, {images(every):,} images (default: %(default)s)"
    )
    sizes = [len(few), len(every)]
    parser.add_argument("--classes", type=int, choices=sizes, default=len(few), help=text)


def classes(args: argparse.Namespace, name: str) -> tuple[str, ...]:
    """The labels that ``--classes`` asks for."""
    every = tuple(INFO[name].labels.values())
    return every if args.classes == len(every) else PAPER_CLASSES


def files(args: argparse.Namespace, name: str, wanted: Sequence[str] | None = None) -> Path:
    """The folder with a publisher's files: ``args.archives``, or else a download beside ``--root``.

    Only the `wanted` files of the data set `name` are downloaded, by default all. `InputError` if
    the licence was not accepted, or as `fetch`; it says how else to get the files.
    """
    if args.archives is not None:
        return args.archives.expanduser()
    data = INFO[name]
    if not args.accept_licence:
        raise InputError(
            f"{name} needs the files of {data.home}, which are licensed {data.licence} "
            f"({data.restrictions}): add --accept-licence to download them under these terms, "
            "or name a folder that has them with --archives DIR"
        )
    beside = args.root.expanduser().absolute().parent if args.root else Path()
    folder = beside / "downloads" / name
    print(f"Downloads: {folder}")
    try:
        fetch([f for f in files_of(name) if wanted is None or f.name in wanted], folder)
    except NotOffered as error:
        raise InputError(f"{error}; {data.elsewhere}") from error
    return folder


def run(
    args: argparse.Namespace,
    name: str,
    options: dict,
    sources: dict,
    rows: Callable[[], pd.DataFrame],
) -> None:
    """Build the data folder of a published data set, and print under which terms it may be used."""
    data = INFO[name]
    build(args, name, options, sources, rows, data.record)
    print(f"Licence: {data.licence}: {data.restrictions}. Please cite: {data.citation}")
