"""Checks a data folder: whether every file is what data_setup stored, and nothing else is there."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from pooch import file_hash

from data_setup.build import counts
from data_setup.record import RECORD, SUMS, is_own_record, is_scaffold, read_record
from derm_hash.data.manifest import MANIFEST, read_manifest
from derm_hash.errors import InputError
from derm_hash.files import leaves_folder, thread_map

HELP = "check every file of a data folder against its checksums"
ANEW = "make the folder anew with --force"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, metavar="ROOT", help="data folder to check")


def run(args: argparse.Namespace) -> int:
    """Print how the folder was made and what is wrong with it; 0 if nothing is, 1 otherwise."""
    root = args.root.expanduser()
    record = read_record(root)
    if not is_own_record(root / RECORD):
        raise InputError(
            f"{root} has no {RECORD} of this tool, so data_setup did not make it and cannot "
            "verify it: check the path"
        )
    print("\n".join(history(record)))
    problems = list(check(root, record))
    print("".join(f"{problem}\n" for problem in problems), end="")
    print(f"{root}: {f'problems: {len(problems)}' if problems else 'as it was stored'}")
    return 1 if problems else 0


def history(record: dict) -> Iterator[str]:
    """Lines that say how a folder was made."""
    words = " ".join(f"{name}={value}" for name, value in record.get("options", {}).items())
    yield f"Made by {record.get('tool')}: {record.get('command')} {words}".rstrip()
    for name, value in record.get("sources", {}).items():
        yield f"  from {name} ({value})"
    for name, reason in record.get("bad", {}).items():
        yield f"  without {name}: {reason}"


def check(root: Path, record: dict) -> Iterator[str]:
    """What is wrong with a data folder: one line per problem, each with its remedy."""
    if not (root / MANIFEST).exists():
        yield f"unfinished: {root} has no {MANIFEST}: run the command that made it again"
    try:
        sums = read_sums(root / SUMS)
    except InputError as error:
        yield f"damaged: {error}"
        return
    if file_hash(root / SUMS) != record.get(SUMS):
        yield f"changed: {SUMS} is not the one that {RECORD} names: {ANEW}"
    found = thread_map(lambda item: problem(root, *item), list(sums.items()), "verifying", True)
    problems = [line for line in found if line]
    yield from problems
    own = sums.keys() | {SUMS}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        hidden = name.startswith(".") or "/." in name
        if path.is_file() and not hidden and name not in own and not is_scaffold(path):
            yield f"extra: {name} is not part of the data set: remove it"
    if not problems and counts(read_manifest(root)) != record.get("counts"):
        yield f"changed: the counts in {RECORD} are not those of {MANIFEST}: {ANEW}"


def problem(root: Path, name: str, expected: str) -> str:
    """What is wrong with one file; "" if nothing is."""
    remedy = f"copy it back, or {ANEW}"
    try:
        return "" if file_hash(root / name) == expected else f"changed: {name}: {remedy}"
    except FileNotFoundError:
        return f"missing: {name}: {remedy}"
    except OSError as error:
        return f"unreadable: {name} ({error.strerror}): check the file's rights and the disk"


def read_sums(path: Path) -> dict[str, str]:
    """File name -> SHA-256 from a file as ``sha256sum`` writes it; `InputError` if damaged."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): {ANEW}") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or leaves_folder(name):
            raise InputError(f"line {number} of {path} is not the checksum of a file: {ANEW}")
        sums[name] = digest
    return sums
