"""One's own images: a folder with one folder of images per class."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pandas as pd

from data_setup.common import add_common_arguments, build
from derm_hash.data import leaves_folder
from derm_hash.errors import InputError

HELP = "your own images: a folder with one folder of images per class"
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_common_arguments(parser)
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with one folder per class, whose name is the label",
    )


def run(args: argparse.Namespace) -> None:
    """Copy the class folders of ``args.source`` into the data folder ``args.root``."""
    source, root = args.source.expanduser().resolve(), args.root.expanduser().resolve()
    if source == root or source in root.parents or root in source.parents:
        raise InputError(
            f"--root {args.root} and --source {args.source} lie in each other: "
            "choose a --root beside the source"
        )
    files = find_images(source)
    sources = {str(source): fingerprint(source, files)}
    build(args, "folder", {}, sources, lambda: rows(source, files), {"title": source.name})


def rows(source: Path, files: list[str]) -> pd.DataFrame:
    """The manifest's rows, not split."""
    return pd.DataFrame(
        {
            "image": [f"images/{name}" for name in files],
            "label": [name.split("/")[0] for name in files],
            "lesion_id": "",
            "mask": "",
            "source": source.name,
            "image_from": [source / name for name in files],
            "mask_from": None,
        }
    )


def find_images(source: Path) -> list[str]:
    """Paths of the images below the class folders, relative to `source`, sorted.

    Raises:
        InputError: there are no class folders, a class folder has no image, or a name
            cannot stand in a manifest.
    """
    if not source.is_dir():
        raise InputError(f"the folder --source {source} does not exist: check the path")
    folders = sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise InputError(f"{source} has no folders: put the images of each class into a folder")
    names: list[str] = []
    others = sum(p.is_file() and not p.name.startswith(".") for p in source.iterdir())
    for folder in folders:
        files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
        images = sorted(p.relative_to(source).as_posix() for p in files if is_image_name(p))
        if not images:
            raise InputError(f"the class folder {folder} has no images: add some or remove it")
        others += len(files) - len(images)
        names += images
    for name in names:
        if leaves_folder(name) or not name.isprintable():
            raise InputError(f"the file name {name!r} cannot stand in a manifest: rename the file")
        if name.split("/")[0].strip() != name.split("/")[0]:
            raise InputError(f"the class folder of {name!r} has blanks at its ends: rename it")
    if others:
        print(f"Files left out, outside the class folders or not images: {others}")
    return names


def is_image_name(path: Path) -> bool:
    """Whether a file is an image by its suffix."""
    return path.suffix.lower() in SUFFIXES


def fingerprint(source: Path, files: list[str]) -> str:
    """SHA-256 over names, sizes and times of the files: changes when any of them does."""
    digest = hashlib.sha256()
    for name in files:
        stat = (source / name).stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
