"""Class names: their order, which of them mean the same, and labels as class indices."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from derm_hash.errors import InputError, shown

ISIC_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
ALIASES = {"AKIEC": "AK"}
"""Other names of the same diagnosis. HAM10000 and ISIC 2018 have AKIEC where ISIC 2019 has AK."""


def class_order(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct labels: in the order of `ISIC_CLASSES` if all are there, else sorted.

    An alias takes the place of its class and keeps the spelling of the data.
    """
    places = {name: ISIC_CLASSES.index(name) for name in ISIC_CLASSES}
    places |= {alias: places[name] for alias, name in ALIASES.items()}
    names = sorted(set(labels))
    return tuple(sorted(names, key=places.get) if set(names) <= set(places) else names)


def match_classes(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Each name -> the `known` class of the same spelling, or else the only one it can mean.

    Case and aliases do not change the meaning of a name. Names without such a class are left out.
    """
    found = {}
    for name in names:
        same = [name] if name in known else [k for k in known if _meaning(k) == _meaning(name)]
        if len(same) == 1:
            found[name] = same[0]
    return found


def _meaning(name: str) -> str:
    return ALIASES.get(name.upper(), name.upper())


def class_indices(labels, classes: Sequence[str] | None = None) -> np.ndarray:
    """Labels (N,) as int64; `InputError` unless they are class indices, whole numbers from 0."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise InputError(
            f"labels of shape {labels.shape} are not class indices: give one whole number for each "
            "image, such as one_hot.argmax(axis=1)"
        )
    if not labels.size:
        return labels.astype(np.int64)
    if labels.dtype.kind not in "iub":
        raise InputError(
            f"labels such as {shown(labels[0])!r} ({labels.dtype}) are not class indices: give "
            "whole numbers that count the class list from 0, such as a LesionDataset's labels"
        )
    if labels.min() < 0:
        raise InputError(
            f"the label {labels.min()} is not a class index: leave out the images without a class"
        )
    if classes is not None and labels.max() >= len(classes):
        raise InputError(
            f"the label {labels.max()} is none of the {len(classes)} classes "
            f"{shown(', '.join(classes))}, which count from 0: give the class list of the labels"
        )
    return labels.astype(np.int64)


def indices_in(index, labels, class_names: Sequence[str] | None = None) -> np.ndarray:
    """Labels (Q,) of queries, indices into `class_names`, as class indices (Q,) of a HashIndex.

    Classes are matched by name; without `class_names`, labels already are the index's class
    indices. Raises `InputError` if a label is no class index, or its class is not in the index.
    """
    if class_names is None:
        return class_indices(labels, index.classes)
    labels, known = class_indices(labels, class_names), names_in(index)
    if not known:  # there are no names to match, so both must use the same list
        class_indices(index.labels, class_names)
    # With the same list, the database need not have images of every class.
    if all(i < len(class_names) and class_names[i] == name for i, name in known.items()):
        return labels
    used = {class_names[label] for label in np.unique(labels)}
    found = match_classes(used, tuple(known.values()))
    if lost := sorted(used - set(found)):
        raise InputError(
            f"queries of {shown(', '.join(lost))} cannot be matched with the database's classes "
            f"{shown(', '.join(known.values()))}: leave them out, or rename the classes"
        )
    position = {name: i for i, name in known.items()}
    table = [position[found[name]] if name in found else -1 for name in class_names]
    return np.array(table, dtype=np.int64)[labels]


def names_in(index) -> dict[int, str]:
    """Class index -> class name of a HashIndex; without a class list, from its items' labels."""
    if index.classes is not None or "label" not in index.items:
        return dict(enumerate(index.classes or ()))
    pairs = pd.DataFrame({"i": index.labels, "name": index.items["label"]}).drop_duplicates()
    if not (pairs["i"].is_unique and pairs["name"].is_unique):
        return {}
    return dict(zip(pairs["i"], pairs["name"], strict=True))
