"""Finds the images that a table or a folder of masks names, however it spells their names."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import PurePosixPath

from data_setup.sources import SUFFIXES
from derm_hash.errors import InputError, cannot_be_shown, shown
from derm_hash.files import leaves_folder

MASK_END = re.compile(r"(?<=.)[ _-](segmentation|mask|lesion|seg|gt)$")
"""What follows the image's name in a mask's name, in lower case."""


def check_name(name: str) -> None:
    """Refuse a file name that cannot stand in a manifest."""
    odd = cannot_be_shown(name) or not name.isprintable() or name != name.strip()
    if odd or leaves_folder(name):
        raise InputError(f"the file name {name!r} cannot stand in a manifest: rename the file")


def spelled(name: str) -> tuple[list[str], str, str]:
    """Folders, stem and suffix of an image's path, spelled alike on every system.

    Case, the composition of accents, and the kind of slash do not matter. Only suffixes of images
    count: ISIC_1.5 has none.
    """
    plain = unicodedata.normalize("NFC", name.casefold()).replace("\\", "/")
    *folders, file = plain.split("/")
    stem, dot, suffix = file.rpartition(".")
    stem, suffix = (stem, dot + suffix) if dot + suffix in SUFFIXES else (file, "")
    return [folder for folder in folders if folder not in ("", ".")], stem, suffix


def number_in(stem: str) -> str:
    """A number as a spreadsheet may spell it: 7 for 007 and for 7.0; "" for a name."""
    found = re.fullmatch(r"0*(\d+)(\.0+)?", stem)
    return found[1] if found else ""


class Finder:
    """Finds image files by the names that a table gives; `ways` counts how they were found."""

    def __init__(self, files: Collection[str]):
        self.ways: Counter[str] = Counter()
        self.files = set(files)
        self.by_stem, self.by_number = defaultdict(list), defaultdict(list)
        for file in files:
            stem = spelled(file)[1]
            self.by_stem[stem].append(file)
            self.by_number[number_in(stem)].append(file)

    def find(self, name: str, place: object) -> str | None:
        """The file that a name in a table or folder `place` means, or None.

        It is the file at this path, or else the one with this file name, in any spelling, with or
        without suffix, whose folders agree best. `InputError` if several files fit equally well.
        """
        way, found = "path", [str(PurePosixPath(name))]
        if found[0] not in self.files:
            way, found = self._best(name)
        if len(found) > 1:
            alike = len({PurePosixPath(file).parent for file in found}) == 1
            raise InputError(
                f"the image {shown(name)} in {place} could be {' or '.join(sorted(found)[:5])}: "
                f"write the {'suffix' if alike else 'path with its folders'}"
            )
        if not found:
            return None
        check_name(found[0])
        self.ways[way] += 1
        return found[0]

    def _best(self, name: str) -> tuple[str, list[str]]:
        """How a name finds files, and the files that fit it best."""
        folders, stem, suffix = spelled(name)
        way, fitting = "file name", self.by_stem.get(stem, [])
        if not fitting and (number := number_in(stem)):
            way, fitting = "number", self.by_number.get(number, [])

        def likeness(file: str) -> tuple[bool, int, bool]:
            theirs, _, their_suffix = spelled(file)
            pairs = zip(reversed(folders), reversed(theirs), strict=False)
            differs = [a != b for a, b in pairs] + [True]
            return folders == theirs, differs.index(True), their_suffix == suffix

        best = max(map(likeness, fitting), default=None)
        found = [file for file in fitting if likeness(file) == best]
        if way == "file name" and found and spelled(found[0])[0] == folders:
            way = "path in another spelling"
        return way, found

    def summary(self) -> str:
        """How the files were found: "path 12, file name 3"."""
        return ", ".join(f"{way} {count:,}" for way, count in self.ways.most_common())


def masks_of(images: Collection[str], masks: Collection[str], place: object) -> dict[str, str]:
    """Image -> the mask in `place` with its file name, with or without `MASK_END` added."""
    finder, found = Finder(images), {}
    for mask in masks:
        path = PurePosixPath(mask)
        plain = str(path.with_name(MASK_END.sub("", spelled(path.name)[1])))
        image = finder.find(mask, place) or finder.find(plain, place)
        if image and image in found:
            raise InputError(
                f"the mask of {image} could be {found[image]} or {mask} in {place}: remove one"
            )
        if image:
            found[image] = mask
    return found


def masks_beside(images: Collection[str]) -> dict[str, str]:
    """Image -> the file in the same folder that has its name with `MASK_END` added."""
    by_name = {(PurePosixPath(image).parent, spelled(image)[1]): image for image in images}
    found = {}
    for (folder, stem), mask in by_name.items():
        plain = MASK_END.sub("", stem)
        if plain != stem and (folder, plain) in by_name:
            found[by_name[folder, plain]] = mask
    return found
