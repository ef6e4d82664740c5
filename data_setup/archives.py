"""Zip archives, read with distrust: nothing is unpacked that could do harm."""

from __future__ import annotations

import stat
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from derm_hash.errors import InputError
from derm_hash.files import leaves_folder

MAX_RATIO = 200
"""JPEG and PNG files hardly compress; text reaches about 20, a zip bomb a thousand."""

MAX_MEMBER = 512 * 1024**2
"""Bytes of one unpacked file; the largest dermoscopic photographs take some 20 MB."""

UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What reading a damaged zip file runs into."""


class Archive:
    """A zip file opened for reading, by several threads if need be.

    Attributes:
        path: the file.
        members: path inside the archive -> entry of the zip's directory.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and check its directory.

        Raises:
            InputError: the file is missing or no zip file, or one of its entries points
                outside the folder, is a link, is encrypted, unpacks to absurdly many
                bytes, or has the name of another.
        """
        self.path = path
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise InputError(f"the archive {path} does not exist: check the path") from None
        except UNREADABLE as error:
            raise InputError(
                f"the archive {path} is damaged or no zip file ({error}): download it again"
            ) from error
        self.members: dict[str, zipfile.ZipInfo] = {}
        try:
            for info in self._zip.infolist():
                self._admit(info)
        except InputError:
            self._zip.close()
            raise

    def _admit(self, info: zipfile.ZipInfo) -> None:
        """Check one entry and list it, unless it is a folder or a macOS by-product."""
        if reason := _danger(info):
            raise InputError(
                f"the archive {self.path} is not safe to unpack ({info.filename!r} {reason}): "
                "get it from its publisher"
            )
        path = PurePosixPath(info.filename)
        if info.is_dir() or path.name.startswith("."):
            return
        if info.filename in self.members:
            raise InputError(
                f"the archive {self.path} holds {info.filename} twice: get it from its publisher"
            )
        self.members[info.filename] = info

    def read(self, name: str) -> bytes:
        """The bytes of a member, checked against the archive's CRC.

        Raises:
            InputError: they are damaged or cut short.
        """
        try:
            # ZipFile counts its open members without a lock of its own.
            with self._lock:
                return self._zip.read(self.members[name])
        except UNREADABLE as error:
            raise InputError(
                f"{name} in the archive {self.path} is damaged ({error}): download it again"
            ) from error

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()


@dataclass(frozen=True)
class Member:
    """A file in an archive, read when asked for."""

    archive: Archive
    name: str

    @property
    def size(self) -> int:
        """Bytes of the unpacked file, as the archive states them."""
        return self.archive.members[self.name].file_size

    def read_bytes(self) -> bytes:
        """The file's contents; raises `InputError` as `Archive.read`."""
        return self.archive.read(self.name)

    def __str__(self) -> str:
        return f"{self.name} in {self.archive.path}"


def _danger(info: zipfile.ZipInfo) -> str:
    """Why an entry must not be unpacked; "" if it may."""
    mode = info.external_attr >> 16
    if not info.filename:
        return "has no name"
    if leaves_folder(info.filename):
        return "points outside the folder"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.file_size > MAX_MEMBER:
        return f"unpacks to {info.file_size / 1e6:.0f} MB"
    if info.file_size > 1024**2 and info.file_size > MAX_RATIO * info.compress_size:
        return f"expands {info.file_size / max(info.compress_size, 1):.0f}-fold"
    return ""
