"""Finds labels that are hardly diagnoses: missing values, splits, two spellings of one class."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

from data_setup.sources import listing
from derm_hash.errors import InputError, shown

MISSING = {"", "nan", "none", "null", "nil", "na", "n/a", "n.a.", "<na>", "#n/a", "?", "-", "--"}
MISSING |= {"unknown", "unk", "undefined", "missing", "not available", "unlabelled", "unlabeled"}
SPLIT_OF = dict.fromkeys(("database", "db", "gallery", "train", "training"), "database")
SPLIT_OF |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
SPLIT_OF |= dict.fromkeys(("query", "queries", "test", "testing"), "query")
UNLABELLED = "unlabelled"  # the label of images without a diagnosis, which heatmaps do not need
PARTS = {"image", "img", "mask", "segmentation", "annotation", "label", "fold"}
MANY, FEW = 20, 10  # more labels than MANY with fewer images than FEW each are hardly diagnoses
END = re.compile(r"([ _-]?(set|data|images|\d+)|s)$")  # as in train_images, testset, fold 1, masks


def refuse_doubtful(images: Sequence[str], place: Path, chosen: bool, one_is_enough: bool) -> None:
    """Raise InputError if the labels of the images of a folder or table are hardly diagnoses.

    Two spellings of one label are always refused. Unless the user has named the classes (`chosen`),
    so are missing values, names of splits, a single label (except where `one_is_enough`, as for
    queries), and many labels with few images each.
    """
    labels, spellings = sorted(set(images)), defaultdict(list)
    for label in labels:
        spellings[_meaning(label)].append(label)
    for same in spellings.values():
        if len(same) > 1:
            raise InputError(
                f"{place} has the labels {quoted(same)}, which differ only in case, blanks or "
                f"number format: write them alike, such as with --map '{same[1]}={same[0]}'"
            )
    if chosen:
        return
    if missing := [label for label in labels if is_missing(label)]:
        raise InputError(
            f"{place} has the label {quoted(missing)}, which means that the diagnosis is not "
            "known: remove these images, or name the classes to use with --classes"
        )
    if splits := [label for label in labels if is_part(label)]:
        raise InputError(
            f"{place} has the labels {quoted(splits)}, which are parts of a data set and not "
            "diagnoses: name one of them as --source, or list images, labels and splits in a "
            "table with --csv"
        )
    if len(labels) == 1 and not one_is_enough:
        raise InputError(
            f"{place} has a single class, {quoted(labels)}, so that every hit would be right: "
            "check --source or --label-column, or confirm it with --classes"
        )
    if len(labels) > MANY and len(images) < FEW * len(labels):
        raise InputError(
            f"{place} has {len(labels)} labels for {len(images)} images ({quoted(labels)}), which "
            "may be patients or lesions and not diagnoses: check --source or --label-column, or "
            "confirm them with --classes"
        )


def is_missing(value: str) -> bool:
    """Whether a value says that nothing is known, such as "", nan or unknown."""
    return value.strip().casefold() in MISSING


def is_part(name: str) -> bool:
    """Whether a name means a part of a data set, such as train, Test_images or masks."""
    name = name.strip().casefold()
    return bool(split_of(name) or {name, END.sub("", name)} & PARTS)


def split_of(name: str) -> str | None:
    """The split that a name means, such as database for Train or training_set; None if none."""
    name = name.strip().casefold()
    return SPLIT_OF.get(name) or SPLIT_OF.get(END.sub("", name))


def refuse_other_levels(source: Path, names: Sequence[str]) -> None:
    """Refuse a source whose top folders seem to lie above or below those of the classes.

    `names` are the paths of the images below `source`, which begin with the label.
    """
    inside = defaultdict(set)  # label -> the folders directly in it that hold images
    for label, *folders in (name.split("/")[:-1] for name in names):
        inside[label].update(folders[:1])
    if len(inside) == 1 and len(lower := inside[label := next(iter(inside))]) > 1:
        remedy = f"use --source {source / label}" if source.is_dir() else "unpack it, and name that"
        raise InputError(
            f"{source} has one folder, {label!r}, and the classes seem to lie in it "
            f"({quoted(lower)}): {remedy}, or confirm the class with --classes"
        )
    if any(map(is_part, inside)):
        return  # `refuse_doubtful` has a better remedy
    if len(inside) > 1 and len(shared := set.intersection(*inside.values())) > 1:
        raise InputError(
            f"each folder of {source} has the same folders ({quoted(shared)}), so the classes may "
            f"be these and not {quoted(inside)}: move the folders of the classes to the top, or "
            "confirm the classes with --classes"
        )


def quoted(names: Collection[str]) -> str:
    """The names as a message lists them, at most five."""
    return listing([repr(shown(name)) for name in sorted(names)], most=5)


def _meaning(label: str) -> str:
    """A label without case, blanks and number format, which do not change its meaning."""
    text = re.sub(r"[\s_]+", "", unicodedata.normalize("NFKC", label)).casefold()
    if re.fullmatch(r"[+-]?\d+([.,]\d*)?", text):
        return repr(float(text.replace(",", ".")) + 0.0)
    return text
