"""Class names: their order, which of them mean the same, and labels as class indices."""

from collections.abc import Mapping, Sequence

import numpy as np

from derm_hash.errors import InputError, shown

ISIC_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
ALIASES = {"AKIEC": "AK"}
"""Other names of the same diagnosis. HAM10000 and ISIC 2018 have AKIEC where ISIC 2019 has AK."""


def class_order(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct labels: in the order of `ISIC_CLASSES` if they are all there, else sorted.

    An alias stands where its class stands, in the spelling of the data.
    """
    places = {name: ISIC_CLASSES.index(name) for name in ISIC_CLASSES}
    places |= {alias: places[name] for alias, name in ALIASES.items()}
    names = sorted(set(labels))
    return tuple(sorted(names, key=places.get) if set(names) <= set(places) else names)


def match_classes(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Find the class of a list that each name means.

    Parameters
    ----------
    names : sequence of str
    known : sequence of str
        The class list.

    Returns
    -------
    dict of str to str
        From a name to that of `known` with the same spelling, or else to the only one that
        differs in upper and lower case or by an alias. A name without one is left out.
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
    """Check that labels are class indices.

    Parameters
    ----------
    labels : (N,) array, tensor or list of integers
    classes : sequence of str, optional
        The class list that they count.

    Returns
    -------
    (N,) int64 array

    Raises
    ------
    InputError
        If there is not one whole number for each image, or one is negative or has no class.
    """
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


def matched_indices(
    labels: np.ndarray, classes: Sequence[str], known: Mapping[int, str]
) -> np.ndarray:
    """Translate class indices of one class list into those of another, by name.

    Parameters
    ----------
    labels : (N,) int array
        Positions in `classes`.
    classes : sequence of str
    known : mapping from int to str
        The other class list: names by class index.

    Returns
    -------
    (N,) int64 array
        Keys of `known`.

    Raises
    ------
    InputError
        If a label that occurs has no class in the other list; it is named.
    """
    if all(index < len(classes) and classes[index] == name for index, name in known.items()):
        return labels  # one class list, of which the database need not have every class
    names = {classes[label] for label in np.unique(labels)}
    found = match_classes(names, tuple(known.values()))
    if lost := sorted(names - set(found)):
        raise InputError(
            f"queries of {shown(', '.join(lost))} cannot be matched with the database's classes "
            f"{shown(', '.join(known.values()))}: leave them out, or rename the classes"
        )
    position = {name: index for index, name in known.items()}
    table = [position[found[name]] if name in found else -1 for name in classes]
    return np.array(table, dtype=np.int64)[labels]
