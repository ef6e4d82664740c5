"""Finds the images that a table names, however it spells their names."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from pathlib import PurePosixPath

from data_setup.sources import SUFFIXES
from derm_hash.errors import InputError, cannot_be_shown
from derm_hash.files import leaves_folder

MASK_ENDS = ("_segmentation", "_mask", "_lesion", "_seg", "-mask")
"""What masks' names have after the image's."""


def check_name(name: str) -> None:
    """Refuse a file name that cannot stand in a manifest."""
    odd = cannot_be_shown(name) or not name.isprintable() or name != name.strip()
    if odd or leaves_folder(name):
        raise InputError(f"the file name {name!r} cannot stand in a manifest: rename the file")


def plain(name: str) -> str:
    """A path with / between its parts, composed accents, and the suffix in small letters."""
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    return str(path.with_name(stem(path.name) + path.name[len(stem(path.name)) :].lower()))


def stem(name: str) -> str:
    """A path without its suffix, if that is one of images; ISIC_1.5 has none."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else name


WAYS: dict[str, Callable[[str], str]] = {
    "path": lambda name: str(PurePosixPath(name)),
    "path in another spelling": plain,
    "path without suffix": lambda name: stem(plain(name)),
    "file name": lambda name: PurePosixPath(plain(name)).name,
    "file name without suffix": lambda name: stem(PurePosixPath(plain(name)).name),
}
"""How a file is found, the most exact way first, with what two names must have in common."""


class Finder:
    """Finds files by the names that a table gives; `ways` counts how they were found."""

    def __init__(self, files: Collection[str]):
        self.ways: Counter[str] = Counter()
        self.files = {way: defaultdict(list) for way in WAYS}
        for way, key in WAYS.items():
            for file in files:
                self.files[way][key(file)].append(file)

    def find(self, name: str, table: object) -> str | None:
        """The file that a name means, or None; `InputError` if there are several."""
        check_name(name)
        for way, key in WAYS.items():
            if not (found := self.files[way].get(key(name), [])):
                continue
            if len(found) > 1:
                alike = len({PurePosixPath(file).parent for file in found}) == 1
                raise InputError(
                    f"the image {name} in {table} could be {' or '.join(sorted(found)[:5])}: "
                    f"write the {'suffix' if alike else 'path with its folders'}"
                )
            self.ways[way] += 1
            return found[0]
        return None

    def summary(self) -> str:
        """How the files were found: "path 12, file name without suffix 3"."""
        return ", ".join(f"{way} {self.ways[way]:,}" for way in WAYS if self.ways[way])


def masks_of(images: Collection[str], masks: Collection[str]) -> dict[str, str]:
    """Image -> mask with the same file name, or that and one of `MASK_ENDS`."""
    by_name = defaultdict(list)
    for mask in masks:
        name = stem(PurePosixPath(plain(mask)).name)
        end = next((end for end in MASK_ENDS if name.lower().endswith(end)), "")
        by_name[name[: len(name) - len(end)]].append(mask)
    found = {}
    for image in images:
        fitting = by_name.get(stem(PurePosixPath(plain(image)).name), [])
        if len(fitting) > 1:  # of several folders, the one with the image's own folders
            folder = PurePosixPath(image).parent
            fitting = [m for m in fitting if PurePosixPath(m).parent == folder] or fitting
        if len(fitting) > 1:
            raise InputError(
                f"the mask of {image} could be {' or '.join(sorted(fitting)[:5])}: remove all but "
                "one"
            )
        if fitting:
            found[image] = fitting[0]
    return found
