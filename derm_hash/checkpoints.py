"""Checkpoints of a run, read with distrust: nothing in them runs, and nothing claims too much.

A checkpoint is what ``torch.save`` writes: a zip file that holds the numbers of every tensor and
one pickle that says how they hang together. A pickle is a program. So it is looked at before torch
reads it: it may name the few functions that put tensors together, and no other.
"""

import math
import pickletools
import struct
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from derm_hash.errors import InputError

ALLOWED = {
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    "collections Counter",  # the milestones of a schedule
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int")),
}
MAX_PICKLE = 16 * 1024**2
"""Bytes of the part that is a program; that of a ResNet-50 has a tenth of a million."""


REFUSED = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
"""Instructions of a pickle that reach for functions in other ways; torch writes none of them."""


class _Unsafe(Exception):
    """A checkpoint is not what ``torch.save`` makes of tensors and numbers."""


# What the readers of archives and pickles run into when they parse untrusted bytes.
_ERRORS = (
    _Unsafe,
    zipfile.BadZipFile,
    UnpicklingError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
    struct.error,
)


def read_checkpoint(path: Path) -> dict:
    """What a run has saved: dictionaries, lists, numbers, texts, and tensors on the CPU.

    Raises
    ------
    InputError
        If the file is damaged (every byte is checked), names a function, or holds a number that
        is not finite.
    """
    try:
        _check_archive(path)
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(saved, dict):
            raise _Unsafe("no dictionary")
        _check_numbers(saved)
    except _ERRORS as error:
        raise InputError(
            f"{path} cannot be read: delete the run's folder and start again."
        ) from error
    return saved


def _check_archive(path: Path) -> None:
    """Nothing is packed, every byte is as its checksum says, and the pickle names no function."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        names = {info.filename for info in members}
        total = sum(info.file_size for info in members)
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in members)
        if not stored or len(names) < len(members) or total > path.stat().st_size:
            raise _Unsafe("an archive that is larger inside than outside")
        if damaged := archive.testzip():
            raise _Unsafe(f"{damaged} is damaged")
        programs = [info for info in members if info.filename.endswith(".pkl")]
        if len(programs) != 1 or programs[0].file_size > MAX_PICKLE:
            raise _Unsafe("not one program")
        _check_pickle(archive.read(programs[0]))


def _check_pickle(program: bytes) -> None:
    """Refuse a pickle that names anything but the functions that put tensors together."""
    for instruction, argument, _ in pickletools.genops(program):
        if instruction.name in REFUSED:
            raise _Unsafe(instruction.name)
        if instruction.name == "GLOBAL" and argument not in ALLOWED:
            raise _Unsafe(argument)


def _check_numbers(saved: object) -> None:
    """Every number is finite, and no tensor is larger than the memory behind it."""
    seen, left = set(), [saved]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
        elif isinstance(value, Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise _Unsafe("a tensor that repeats itself")
            if not value.isfinite().all():
                raise _Unsafe("a number that is not finite")
        elif isinstance(value, float) and not math.isfinite(value):
            raise _Unsafe("a number that is not finite")
