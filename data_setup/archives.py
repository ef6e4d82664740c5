"""Zip archives: their members are read into memory, never unpacked to paths of their own."""

from __future__ import annotations

import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

from derm_hash.errors import InputError, one_line


class Archive:
    """A zip file opened for reading, also by several threads; `InputError` if it is not one.

    `members` holds the files in it by their paths in the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()  # ZipFile counts its open members without one
        try:
            self.zip = zipfile.ZipFile(path)
            self.members = {
                info.filename: Member(self, info.filename, info.file_size)
                for info in self.zip.infolist()
                if not info.is_dir()
            }
        except FileNotFoundError:
            raise InputError(f"the archive {path} does not exist: check the path") from None
        except Exception as error:  # damaged bytes raise almost anything in zipfile
            raise InputError(
                f"the archive {path} is damaged or not a zip file ({one_line(error)}): download it "
                "again"
            ) from error

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.zip.close()


@dataclass(frozen=True)
class Member:
    """A file in an archive, read when asked for."""

    archive: Archive
    name: str
    size: int
    """Bytes of the unpacked file, as the archive states them; no more than these are read."""

    def read_bytes(self) -> bytes:
        """The file's contents, checked against the archive's CRC; `InputError` if damaged."""
        try:
            with self.archive.lock:
                return self.archive.zip.read(self.name)
        except Exception as error:  # as above; encrypted members and unknown methods, too
            raise InputError(f"{self} is damaged ({one_line(error)}): download it again") from error

    def __str__(self) -> str:
        return f"{self.name} in the archive {self.archive.path}"
