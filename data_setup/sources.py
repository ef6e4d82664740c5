"""Where files come from: a folder, a zip archive or memory; and which of them are images."""

import hashlib
import io
import re
import shutil
import tempfile
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from derm_hash.errors import InputError, one_line, remedy, shown

MAX_BYTES = 512 * 1024**2  # the largest dermoscopic photographs take about 20 MB
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm"}
# Formats of cameras and hospitals that are not read.
FOREIGN = {".dcm", ".heic", ".heif", ".avif", ".jp2", ".pdf", ".dng", ".nef", ".cr2", ".arw"}
LISTED = 10  # names in a message
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
# What systems and programs put beside photographs (thumbnails, indexes, bins), in lower case.
SYSTEM = {"@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found"}
SYSTEM |= {"thumbs.db", "desktop.ini", "system volume information"}


@dataclass(frozen=True)
class Member:
    """A file in a zip archive: read into memory when asked for, never unpacked to a path."""

    archive: zipfile.ZipFile
    lock: threading.Lock  # ZipFile does not lock its count of open members
    name: str
    size: int  # bytes of the unpacked file, as the archive states them; no more are read

    def read_bytes(self) -> bytes:
        """The file's contents, checked against the archive's CRC.

        `InputError` if they are damaged or absurdly large.
        """
        refuse_huge(self)
        try:
            with self.lock:
                return self.archive.read(self.name)
        except Exception as error:  # damaged bytes raise almost anything in zipfile
            raise InputError(f"{self} is damaged ({one_line(error)}): download it again") from error

    def __str__(self) -> str:
        return f"{shown(self.name)} in the archive {self.archive.filename}"


@dataclass(frozen=True)
class Drawn:
    """Pixels in memory, in the place of a PNG file."""

    pixels: np.ndarray  # uint8: an image (H, W, 3) or a mask (H, W)
    name: str  # what messages call it

    @property
    def size(self) -> int:
        """The largest size of the PNG file in bytes, except for noise, which does not compress."""
        return self.pixels.nbytes

    def read_bytes(self) -> bytes:
        """The PNG file."""
        return encoded(Image.fromarray(self.pixels), "PNG")

    def __str__(self) -> str:
        return self.name


Source = Path | Member | Drawn


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    """The bytes of an image as a file of a format, JPEG or PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def read(source: Source) -> bytes:
    """The bytes of a file; `InputError` if it is missing, damaged or absurdly large."""
    try:
        refuse_huge(source)
        return source.read_bytes()
    except OSError as error:
        raise InputError(
            f"{source} cannot be read ({error.strerror}): check the file or leave it out"
        ) from error


def refuse_huge(source: Source) -> None:
    """Raise `InputError` if a file has more than `MAX_BYTES`, which would fill the memory."""
    if size_of(source) > MAX_BYTES:
        raise InputError(
            f"{source} has more than {MAX_BYTES / 1e6:.0f} MB: replace it or leave it out"
        )


def size_of(source: Source) -> int:
    return source.stat().st_size if isinstance(source, Path) else source.size


def suffix_of(source: Path | Member) -> str:
    """Suffix of a file's name, in lower case."""
    return PurePosixPath(source.name).suffix.lower()


def files_in(
    place: Path | Member, inner: Callable[[str], bool] = lambda name: False, depth: int = 2
) -> dict[str, Source]:
    """The files of a folder or zip archive by path, sorted.

    Zip archives in it for whose paths `inner` is true are opened, too, and the archives in these,
    `depth` levels deep. Hidden files and those of the system, such as thumbnails, are left out;
    their number is printed.
    """
    if isinstance(place, Path) and place.is_dir():
        found = {p.relative_to(place).as_posix(): p for p in place.rglob("*") if p.is_file()}
    else:
        found = members(place)
    kept: dict[str, Source] = {}
    for name in sorted(name for name in found if not is_hidden(name)):
        if depth and suffix_of(found[name]) == ".zip" and inner(name):
            below = files_in(found[name], inner, depth - 1)
            kept |= {f"{name}/{path}": file for path, file in below.items()}
        else:
            kept[name] = found[name]
    if hidden := sum(map(is_hidden, found)):
        print(f"Hidden files and files of the system left out of {place}: {hidden}")
    return kept


def is_hidden(name: str) -> bool:
    """Whether a path is hidden or of the system, such as .thumbnails/x.jpg or nv/@eaDir/x.jpg."""
    parts = [part for part in name.lower().split("/") if part not in (".", "..")]
    return any(part.startswith(".") or part in SYSTEM for part in parts)


def members(place: Path | Member) -> dict[str, Member]:
    """The files of a zip archive by their paths in it; several threads may read them.

    An archive in another one is copied to a temporary file. The archive is closed when its last
    member goes.
    """
    try:
        if isinstance(place, Path):
            archive = zipfile.ZipFile(place)
        else:
            copy = tempfile.TemporaryFile()  # noqa: SIM115
            with place.lock, place.archive.open(place.name) as file:
                shutil.copyfileobj(file, copy)
            archive = zipfile.ZipFile(copy)
            archive.filename = str(place)
            weakref.finalize(archive, copy.close)
    except FileNotFoundError:
        raise InputError(f"the folder or zip file {place} does not exist: check the path") from None
    except Exception as error:  # as in `Member.read_bytes`
        if isinstance(error, OSError) and remedy(error):  # such as a full disk
            raise
        raise InputError(
            f"the archive {place} is damaged or not a zip file ({one_line(error)}): download it "
            "again, or unpack an archive of another kind (RAR, 7-Zip, tar) and name the folder"
        ) from error
    files = [info for info in archive.infolist() if not info.filename.endswith(("/", "\\"))]
    for info in files:
        refuse_unreadable(info, archive.filename)
    lock = threading.Lock()
    # Some programs write Windows' backslashes into archives.
    names = [info.filename.replace("\\", "/") for info in files]
    found = [Member(archive, lock, info.filename, info.file_size) for info in files]
    return dict(zip(names, found, strict=True))


def refuse_unreadable(info: zipfile.ZipInfo, archive: str) -> None:
    """`InputError` for a file that Python cannot unpack."""
    if not info.filename:
        raise InputError(f"the archive {archive} has a file without a name: download it again")
    if info.flag_bits & 1:
        problem = "has a password"
    elif info.compress_type not in METHODS:
        method = zipfile.compressor_names.get(info.compress_type, f"number {info.compress_type}")
        problem = f"is compressed by the method {method}, which Python cannot unpack"
    else:
        return
    raise InputError(
        f"{shown(info.filename)} in the archive {archive} {problem}: unpack the archive with "
        "another program, such as 7-Zip, and name the folder instead"
    )


def images_in(files: Mapping[str, Source]) -> list[str]:
    """The paths of the files that can be read as images."""
    return [name for name in files if suffix_of(files[name]) in SUFFIXES]


def path_of(files: Iterable[str], names: Sequence[str]) -> str | None:
    """The path of the first of `names` (in any case) that one of the files has; None if none."""
    by_name = {PurePosixPath(path).name.lower(): path for path in sorted(files, reverse=True)}
    return next((by_name[name.lower()] for name in names if name.lower() in by_name), None)


def named(files: Mapping[str, Source], pattern: str) -> dict[str, str]:
    """Path -> image id, for images whose names fit a pattern in any case; its group is the id."""
    matches = {
        path: re.fullmatch(pattern, PurePosixPath(path).stem, re.IGNORECASE)
        for path in images_in(files)
    }
    return {path: match[1].upper() for path, match in matches.items() if match}


def images_by_id(files: Mapping[str, Source], pattern: str) -> dict[str, Source]:
    """Image id -> file, for names that fit a pattern; `InputError` if two with one id differ."""
    found: dict[str, Source] = {}
    for path, key in named(files, pattern).items():
        first = found.setdefault(key, files[path])
        if first is not files[path] and read(files[path]) != read(first):
            raise InputError(f"{files[path]} and {first} are both {key}: remove one of them")
    return found


def state_of(place: Path, files: Iterable[Path]) -> int | str:
    """What a record says about the files used: the size of an archive, or a text about a folder.

    The number at the end of the text changes with the name, size or time of any of the `files`.
    """
    if place.is_file():
        return place.stat().st_size
    digest, sizes = hashlib.sha256(), []
    for path in sorted(files):
        stat = path.stat()
        digest.update(f"{path.relative_to(place)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        sizes.append(stat.st_size)
    return f"{len(sizes)} files, {sum(sizes)} bytes, {digest.hexdigest()[:16]}"


def states_of(place: Path, files: Mapping[str, Source]) -> dict[str, int | str]:
    """The `state_of` an archive, or of each archive and folder in a place from which files come."""
    if place.is_file():
        return {place.name: state_of(place, ())}
    used: dict[str, list[Source]] = {}
    for name, file in files.items():
        used.setdefault(name.split("/")[0], []).append(file)
    return {top: state_of(place / top, used[top]) for top in sorted(used)}


def listing(names: Sequence[str], most: int = LISTED) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
