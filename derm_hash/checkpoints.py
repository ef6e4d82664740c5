"""Checkpoints of a run, read with distrust: nothing in them runs, and nothing claims too much.

A checkpoint is what ``torch.save`` writes: a zip file that holds the numbers of every tensor and
one pickle that says how they hang together. A pickle is a program. So it is looked at before torch
reads it: it may name the few functions that put tensors together, and no other, and it builds
nothing that is larger than itself. Torch is then given the members that were looked at, not the
file.
"""

import io
import math
import pickletools
import struct
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from derm_hash.errors import InputError

STORAGES = {
    f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int")
}
FUNCTIONS = {
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    "collections Counter",  # the milestones of a schedule
}
MAX_PICKLE = 4 * 1024**2
"""Bytes of the part that is a program: a tenth of a million for a ResNet-50, and some hundred for
each epoch."""

VALUES = {
    "BINUNICODE": "text",
    **dict.fromkeys(("BININT", "BININT1", "BININT2"), "whole number"),
    **dict.fromkeys(("BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST"), "value"),
    "EMPTY_DICT": "dictionary",
    "EMPTY_TUPLE": (),
}
"""Instructions of a pickle that put a value on its stack, and what kind of value that is."""
TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "BINPERSID": 1, "REDUCE": 2, "BUILD": 2}
TAKEN |= {"SETITEM": 2, "APPEND": 1}
"""Instructions that take so many values from the stack."""
ALL_TAKEN = {"TUPLE", "SETITEMS", "APPENDS"}
"""Instructions that take all values since the last MARK."""


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
        If the file is damaged (every byte is checked), names a function, has keys that are not
        texts or whole numbers, or holds a number that is not finite.
    """
    try:
        saved = torch.load(_checked_copy(path), map_location="cpu", weights_only=True)
        if not isinstance(saved, dict):
            raise _Unsafe("no dictionary")
        _check_numbers(saved)
    except _ERRORS as error:
        raise InputError(
            f"{path} cannot be read: delete the run's folder and start again."
        ) from error
    return saved


def _checked_copy(path: Path) -> io.BytesIO:
    """The members of an archive, each as its checksum says, in an archive of our own.

    Two readers of zip files may find different members in one file. Torch gets to see what was
    checked and nothing else.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as ours:
        members = archive.infolist()
        program = _check_members(members, path.stat().st_size)
        for info in members:
            content = archive.read(info)
            if info is program:
                _check_pickle(content)
            ours.writestr(info.filename, content)
    copy.seek(0)
    return copy


def _check_members(members: list[zipfile.ZipInfo], size: int) -> zipfile.ZipInfo:
    """Nothing is in front, packed, or there twice; the member with the one program."""
    names = {info.filename.casefold() for info in members}  # torch tells no A from an a
    total = sum(info.file_size for info in members)
    stored = all(info.compress_type == zipfile.ZIP_STORED for info in members)
    if not stored or len(names) < len(members) or total > size:
        raise _Unsafe("an archive that is larger inside than outside")
    if members[0].header_offset:
        raise _Unsafe("something in front of the archive")
    [program] = [info for info in members if info.filename.casefold().endswith(".pkl")]
    folder = members[0].filename.split("/")[0]  # where torch looks for everything
    if program.filename != f"{folder}/data.pkl" or program.file_size > MAX_PICKLE:
        raise _Unsafe("not one program")
    return program


def _check_pickle(program: bytes) -> None:
    """Follow a pickle without doing what it says; refuse what torch writes in no checkpoint.

    Only texts and names are used twice, and only texts and whole numbers are keys. So nothing that
    is hashed or compared is larger than the pickle, as a pair of twice a pair of twice ... is.
    """
    stack, outer, memo = [], [], {}
    for instruction, argument, _ in pickletools.genops(program):
        match instruction.name:
            case name if name in VALUES:
                stack.append(VALUES[name])
            case "GLOBAL" if argument in FUNCTIONS | STORAGES:
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET" if memo[argument] in ("text", *FUNCTIONS, *STORAGES):
                stack.append(memo[argument])
            case "MARK":
                outer.append(stack)
                stack = []
            case name if name in ALL_TAKEN:
                items, stack = stack, outer.pop()
                stack += _made(name, items)
            case name if name in TAKEN:
                items = [stack.pop() for _ in range(TAKEN[name])][::-1]
                stack += _made(name, items)
            case "PROTO" | "STOP":
                pass
            case name:
                raise _Unsafe(name)


def _made(name: str, items: list) -> list:
    """What an instruction that takes such items from the stack puts there."""
    if name.startswith("TUPLE"):
        return [tuple(items)]
    if name.startswith("APPEND"):
        return []
    if name.startswith("SETITEM") and all(key in ("text", "whole number") for key in items[::2]):
        return []
    match (name, *items):
        case ("REDUCE", "collections OrderedDict", ()):
            return ["ordered dictionary"]
        case ("BUILD", "ordered dictionary", "dictionary"):  # what torch notes beside the weights
            return ["ordered dictionary"]
        case ("REDUCE", "collections Counter", ("dictionary",)):
            return ["counter"]
        case ("BINPERSID", ("text", kind, "text", "text", "whole number")) if kind in STORAGES:
            return ["storage"]
        case ("REDUCE", "torch._utils _rebuild_tensor_v2", ("storage", *_)):
            return ["tensor"]
    raise _Unsafe(name)


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
