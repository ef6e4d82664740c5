"""Where files come from: a folder, a zip archive or memory; and which of them are images."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from derm_hash.errors import InputError, one_line

MAX_BYTES = 512 * 1024**2  # the largest dermoscopic photographs take about 20 MB
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm"}
LISTED = 10  # names in a message


@dataclass(frozen=True)
class Member:
    """A file in a zip archive: read into memory when asked for, never unpacked to a path."""

    archive: zipfile.ZipFile
    lock: threading.Lock  # ZipFile counts its open members without one
    name: str
    size: int  # bytes of the unpacked file, as the archive states them; no more are read

    def read_bytes(self) -> bytes:
        """The file's contents, checked against the archive's CRC; `InputError` if damaged."""
        try:
            with self.lock:
                return self.archive.read(self.name)
        except Exception as error:  # damaged bytes raise almost anything in zipfile
            raise InputError(f"{self} is damaged ({one_line(error)}): download it again") from error

    def __str__(self) -> str:
        return f"{self.name} in the archive {self.archive.filename}"


@dataclass(frozen=True)
class Drawn:
    """Pixels in memory, in the place of a PNG file."""

    pixels: np.ndarray  # uint8: an image (H, W, 3) or a mask (H, W)
    name: str  # what messages call it

    @property
    def size(self) -> int:
        """Bytes of the PNG file at most, except for noise, which does not compress."""
        return self.pixels.nbytes

    def read_bytes(self) -> bytes:
        """The PNG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, format="PNG")
        return buffer.getvalue()

    def __str__(self) -> str:
        return self.name


Source = Path | Member | Drawn


def existing(path: Path, remedy: str) -> Path:
    """A file that must be there; else `InputError`."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: {remedy}")
    return path


def read(source: Source) -> bytes:
    """The bytes of a file; `InputError` if it is missing, damaged or absurdly large."""
    try:
        if size_of(source) > MAX_BYTES:
            raise InputError(
                f"{source} has more than {MAX_BYTES / 1e6:.0f} MB: replace it or leave it out"
            )
        return source.read_bytes()
    except OSError as error:
        raise InputError(
            f"{source} cannot be read ({error.strerror}): check the file or leave it out"
        ) from error


def size_of(source: Source) -> int:
    """Bytes of a file."""
    return source.stat().st_size if isinstance(source, Path) else source.size


def suffix_of(source: Path | Member) -> str:
    """Suffix of a file's name, in small letters."""
    return PurePosixPath(source.name).suffix.lower()


def files_in(place: Path, stack: ExitStack) -> dict[str, Source]:
    """The files of a folder or zip archive (`stack` closes it) by path, sorted, none hidden."""
    if place.is_dir():
        found = {p.relative_to(place).as_posix(): p for p in place.rglob("*") if p.is_file()}
    else:
        found = members(place, stack)
    return {name: found[name] for name in sorted(found) if not name.split("/")[-1].startswith(".")}


def members(path: Path, stack: ExitStack) -> dict[str, Member]:
    """The files of a zip archive by their paths in it; several threads may read them."""
    try:
        archive, lock = stack.enter_context(zipfile.ZipFile(path)), threading.Lock()
        files = [info for info in archive.infolist() if not info.is_dir()]
        return {f.filename: Member(archive, lock, f.filename, f.file_size) for f in files}
    except FileNotFoundError:
        raise InputError(f"the archive {path} does not exist: check the path") from None
    except Exception as error:  # as in `Member.read_bytes`
        raise InputError(
            f"the archive {path} is damaged or not a zip file ({one_line(error)}): download it "
            "again"
        ) from error


def images_by_id(files: dict[str, Source], id_of: Callable[[str], str | None]) -> dict[str, Source]:
    """Image id -> file; `id_of` gives the id of a path, or None for a file that is not wanted."""
    found: dict[str, Source] = {}
    for name, source in files.items():
        key = id_of(name) if suffix_of(source) in SUFFIXES else None
        if key in found:
            raise InputError(f"{source} and {found[key]} are both {key}: remove one of them")
        if key is not None:
            found[key] = source
    return found


def stamp(folder: Path, names: Iterable[str]) -> str:
    """SHA-256 over names, sizes and times of files: changes when any of them does."""
    digest = hashlib.sha256()
    for name in names:
        stat = (folder / name).stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def listing(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
