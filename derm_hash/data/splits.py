"""Splits: which images train the network, which are searched, and which are queries.

``query`` images are the queries, and ``val`` images choose the epoch. In a split of three parts,
``database`` holds all others: the network is trained on the images that are searched, as in the
paper. In a split of four parts, it is trained on ``train`` and has never seen the ``database``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from derm_hash.data.manifest import SPLITS, with_all_columns
from derm_hash.data.tables import read_table
from derm_hash.errors import InputError, shown


def split_by_lesion(
    frame: pd.DataFrame, query: float = 0.1, val: float = 0.1, seed: int = 0, unseen: float = 0.0
) -> pd.DataFrame:
    """Fill the split column so that no lesion, and no near-duplicate, is in two parts.

    In each class the lesions are shuffled. The first ones become queries, the next ones val, then
    an unseen database if one is asked for, and the rest is trained on. A part ends at the lesion
    whose end comes closest to its share of the class's images. A class with at least as many
    lesions as there are parts has one in every part; a smaller class may lie entirely in the last
    part. The result depends neither on the order of the rows nor on the other classes, so that
    four and seven classes of one data set are split alike.

    Lesions that are connected by near-duplicate images count as one. The largest of them (on a
    tie, the first by name) stands for all, with its place in the shuffled order and its class; the
    others leave the order without changing it. So a group that is found later moves few images.
    Only a group over several classes can make the split of one class depend on another.

    Parameters
    ----------
    frame : DataFrame
        Manifest. A row without lesion_id is a lesion of its own; a lesion counts for its most
        frequent label. Rows with the same non-empty duplicate_group are near-duplicates.
    query : float
        Share of each class's images to be queries, 0 <= query < 1 (else `InputError`).
    val : float
        Share of the other images to be val, 0 <= val < 1 (else `InputError`).
    seed : int
    unseen : float
        Share of the images left to be a database that is not trained on, 0 <= unseen < 1 (else
        `InputError`); the rest is ``train``. With 0 there is no train part: the rest is database.

    Returns
    -------
    DataFrame
        Copy of the frame with the split column filled.
    """
    shares = shares_of_parts(query, val, unseen)
    frame = with_all_columns(frame)
    lesion = lesion_keys(frame)
    leader_of = _leaders(lesion, frame)
    leader = lesion.map(leader_of)
    images = leader.value_counts()
    label_of = _most_frequent_label(lesion, frame["label"])
    part_of = {}
    for _, members in label_of.groupby(label_of):
        keys = [key for key in _shuffled(members.index, seed) if leader_of[key] == key]
        part_of |= _cut(keys, images.loc[keys].to_numpy(), shares)
    return frame.assign(split=leader.map(part_of))


def split_by_image(
    frame: pd.DataFrame, query: float = 0.1, val: float = 0.1, seed: int = 0, unseen: float = 0.0
) -> pd.DataFrame:
    """Fill the split column image by image, as the paper's protocol does.

    In each class, the share `query` of the images become queries, the share `val` of the rest val,
    and the share `unseen` of what is left an unseen database, all rounded down. Images of one
    lesion can land in several parts, so retrieval partly finds the same lesion again: use this
    split to compare with published numbers, and `split_by_lesion`, which has the same arguments and
    errors, for honest scores.
    """
    shares = shares_of_parts(query, val, unseen)
    frame = with_all_columns(frame)
    part_of = {}
    for _, images in frame["image"].groupby(frame["label"]):
        names = _shuffled(images, seed)
        ends = [0]
        for share in shares:  # 0.29 * 100 is 28.999999999999996 in binary; it means 29
            ends.append(ends[-1] + int(share * (len(names) - ends[-1]) + 1e-9))
        part_of |= _in_parts(names, ends)
    return frame.assign(split=frame["image"].map(part_of))


def split_as_given(frame: pd.DataFrame, tables: Mapping[str, str | Path]) -> pd.DataFrame:
    """Fill the split column with a published split, given by a table for each part.

    Parameters
    ----------
    frame : DataFrame
        Manifest.
    tables : mapping from a part, such as database, val or query, to a CSV
        Its column image names the part's images, with or without folder and suffix. If it has a
        column category, this holds their labels, which must be those of the frame.

    Returns
    -------
    DataFrame
        The rows of the listed images, with their parts; `InputError` if an image is unknown, is
        listed twice, or has another label.
    """
    frame = with_all_columns(frame)
    row_of = {PurePosixPath(name).stem: row for row, name in enumerate(frame["image"])}
    split = pd.Series("", frame.index)
    for part, path in tables.items():
        if part not in SPLITS:
            raise InputError(f"there is no split {part!r}: use {', '.join(SPLITS)}")
        table = read_table(Path(path), ("image",), "name the images' column image")
        for name, label in zip(table["image"], table.get("category", table["image"]), strict=True):
            row = row_of.get(PurePosixPath(name).stem)
            if row is None:
                raise InputError(f"{path} lists {shown(name)}, which is not in the data: remove it")
            if split.iat[row]:
                raise InputError(f"{path} lists {shown(name)} again: keep one of its lines")
            if "category" in table and label != frame["label"].iat[row]:
                raise InputError(
                    f"{path} gives {shown(name)} the category {shown(label)} and the data the "
                    f"label {shown(frame['label'].iat[row])}: correct one of them"
                )
            split.iat[row] = part
    return frame.assign(split=split)[split != ""].reset_index(drop=True)


def matched_databases(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Choose a database that was trained on and an unseen one, with equally many of each class.

    Scores against databases of different size or class counts cannot be compared. In each class the
    larger side is sampled down: its lesions are shuffled and used whole until the number is
    reached, except for the last one. The unseen side is the part ``database`` if there is a part
    ``train``, else ``val``, which chose the epoch but was not trained on.

    A manifest with a filled split column -> ascending positions (n,) of ``trained`` and ``unseen``.
    """
    parts = {"trained": "database", "unseen": "val"}
    if (frame["split"] == "train").any():
        parts = {"trained": "train", "unseen": "database"}
    lesion = lesion_keys(frame).to_numpy()
    chosen = {side: [] for side in parts}
    for label in sorted(set(frame["label"])):
        own = {
            side: np.flatnonzero((frame["label"] == label) & (frame["split"] == part))
            for side, part in parts.items()
        }
        size = min(map(len, own.values()))
        for side, rows in own.items():
            place = {key: i for i, key in enumerate(_shuffled(set(lesion[rows]), seed=0))}
            order = np.argsort([place[key] for key in lesion[rows]], kind="stable")
            chosen[side].append(rows[order][:size])
    return {side: np.sort(np.concatenate(rows)) for side, rows in chosen.items()}


def lesion_keys(frame: pd.DataFrame) -> pd.Series:
    """One key per lesion; an image without lesion_id counts as a lesion of its own."""
    # The prefixes keep an image apart from a lesion of the same name.
    alone = "image " + frame["image"]
    return ("lesion " + frame["lesion_id"]).where(frame["lesion_id"] != "", alone)


def _leaders(lesion: pd.Series, frame: pd.DataFrame) -> dict[str, str]:
    """Lesion -> the largest lesion it is connected to; on a tie, the first by name."""
    lesions = lesion.value_counts().rename_axis("lesion").reset_index()
    lesions = lesions.sort_values(["count", "lesion"], ascending=[False, True], ignore_index=True)
    names = lesions["lesion"]
    group = frame.get("duplicate_group", pd.Series("", frame.index)).fillna("")
    known = group != ""
    # A graph of lesions and, numbered after them, groups: an edge for each image in a group.
    ends = pd.Index(names).get_indexer(lesion[known])
    groups, group_names = pd.factorize(group[known])
    nodes = len(names) + len(group_names)
    edges = (np.ones(len(ends)), (ends, len(names) + groups))
    component = connected_components(coo_array(edges, shape=(nodes, nodes)), directed=False)[1]
    leaders = names.groupby(component[: len(names)]).transform("first")
    return dict(zip(names, leaders, strict=True))


def _most_frequent_label(lesion: pd.Series, label: pd.Series) -> pd.Series:
    """Label of each lesion: the most frequent one; on a tie, the first in the alphabet."""
    counts = pd.DataFrame({"lesion": lesion, "label": label}).value_counts().reset_index()
    counts = counts.sort_values(["lesion", "count", "label"], ascending=[True, False, True])
    return counts.drop_duplicates("lesion").set_index("lesion")["label"]


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    """The names in an order that depends only on the set of names and the seed."""
    return np.random.default_rng(seed).permutation(sorted(names)).tolist()


def _cut(keys: list[str], images: np.ndarray, shares: Sequence[float]) -> dict[str, str]:
    """Lesion -> part, for the shuffled lesions of one class and their numbers of images."""
    ends = np.concatenate([[0], np.cumsum(images)])
    cuts, reached = [0], 0.0
    for i, share in enumerate(shares):
        reached += share * (1 - reached)
        cut = int(np.abs(ends - reached * ends[-1]).argmin())
        if len(keys) > len(shares):  # then no part is empty
            later = sum(s > 0 for s in shares[i + 1 :])
            cut = int(np.clip(cut, cuts[-1] + (share > 0), len(keys) - 1 - later))
        cuts.append(cut)
    return _in_parts(keys, cuts)


def shares_of_parts(query: float, val: float, unseen: float) -> tuple[float, ...]:
    """Each part's share of what the parts before it leave; `InputError` if one is not in [0, 1)."""
    for name, share in (("query", query), ("val", val), ("unseen", unseen)):
        if not 0 <= share < 1:
            raise InputError(f"the {name} share {share} is not possible: use 0 <= {name} < 1")
    return (query, val, unseen) if unseen else (query, val)


def _in_parts(names: list[str], starts: Sequence[int]) -> dict[str, str]:
    """Name -> part, for parts that start at some positions of the list."""
    parts = ["query", "val", "database", "train"][: len(starts)]
    parts = np.repeat(parts, np.diff([*starts, len(names)])).tolist()
    return dict(zip(names, parts, strict=True))
