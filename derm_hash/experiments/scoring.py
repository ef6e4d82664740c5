"""Scores of one trained model on a data set, against databases that training has seen or not.

A search among the images that trained the network also rewards labels learnt by heart. So there
are three databases (see :func:`derm_hash.data.splits.matched_databases` for the last two):

- ``full``: all images that the network was trained on, as in the paper's protocol;
- ``trained``: some of these, as many as in ``unseen``;
- ``unseen``: images that training has never seen, equally many of each class.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import to_input
from derm_hash.data.splits import matched_databases
from derm_hash.experiments.evaluation import chance_scores, lesion_counts
from derm_hash.metrics.classification import classification_scores
from derm_hash.metrics.codes import code_quality
from derm_hash.metrics.scores import mean_scores, query_scores
from derm_hash.metrics.stability import orbit_scores
from derm_hash.model import classify, encode
from derm_hash.retrieval import HashIndex
from derm_hash.rotations import rotation_orbit

DATABASES = ("full", "trained", "unseen")


class Coded(NamedTuple):
    """The codes and predictions of a data set's images."""

    codes: np.ndarray
    """Soft codes (N, bits) of all images."""
    probabilities: np.ndarray | None
    """Class probabilities (N, classes) of the classifier; None if there is no classifier."""
    orbit: np.ndarray
    """Soft codes (4, Q, bits) of the queries, rotated by 0, 90, 180 and 270 degrees."""


def score_model(
    model: torch.nn.Module,
    data: LesionDataset,
    progress: bool = False,
    scored_on: str = "query",
    database: str = "full",
) -> tuple[dict[str, float], pd.DataFrame]:
    """Score a model (DermHash, OrbitMean) on a data set with splits.

    Parameters
    ----------
    model : DermHash or OrbitMean
    data : LesionDataset with splits
    progress : bool
        Show a progress bar.
    scored_on : str
        The part of the data that stands for the queries.
    database : str
        One of ``DATABASES``.

    Returns
    -------
    scores : dict
        The scores of :func:`derm_hash.evaluate_retrieval`; ``flipped_bits``, ``overlap_at_10`` and
        ``tied_at_10`` (:func:`derm_hash.rotation_report`), means over the queries rotated by 90,
        180 and 270 degrees; ``chance_SCORE``, what the database in random order
        would score; ``lesions_NAME``, the number of query lesions of each class; the classifier's
        :func:`.classification_scores` on the queries, of which ``accuracy`` is the balanced one;
        and its balanced accuracy on the database, ``database_accuracy``.
    queries : DataFrame
        A row for each query: image, lesion_id, label (the class's name), the other columns of
        :func:`derm_hash.query_scores`, correct (1 if the classifier is right, else 0),
        flipped_bits, overlap_at_10, tied_at_10.
    """
    return score_codes(encode_data(model, data, scored_on, progress), data, scored_on, database)


def encode_data(
    model: torch.nn.Module, data: LesionDataset, scored_on: str = "query", progress: bool = False
) -> Coded:
    """Encode every image once, and the rotated copies of the queries."""
    codes = encode(model, data, progress=progress)
    orbit = encode_orbit(model, data, scored_on, progress)
    return Coded(codes, softmax(classify(model, codes), axis=1), orbit)


def encode_orbit(
    model: torch.nn.Module, data: LesionDataset, scored_on: str = "query", progress: bool = False
) -> np.ndarray:
    """Encode the queries, rotated by 0, 90, 180 and 270 degrees: (4, Q, bits)."""
    rotated = rotation_orbit(data.split(scored_on).images)
    return np.stack([encode(model, to_input(copy), progress=progress) for copy in rotated])


def score_codes(
    coded: Coded, data: LesionDataset, scored_on: str = "query", database: str = "full"
) -> tuple[dict[str, float], pd.DataFrame]:
    """Score codes as :func:`score_model` scores a model's."""
    queries, images = data.positions(scored_on), database_positions(data, database)
    labels, table = data.labels.numpy(), data.table
    index = HashIndex.build(coded.codes[images], labels[images], table.iloc[images], data.classes)
    found = query_scores(index, coded.codes[queries], labels[queries])
    stability = orbit_scores(coded.orbit, index)
    if coded.probabilities is not None:
        found["correct"] = (coded.probabilities[queries].argmax(axis=1) == labels[queries]) * 1.0
    scores = mean_scores(found, data.classes) | code_quality(index.codes)
    scores |= {name: float(values.mean()) for name, values in stability.items()}
    if coded.probabilities is not None:
        own, known = (
            classification_scores(coded.probabilities[rows], labels[rows], data.classes)
            for rows in (queries, images)
        )
        scores |= own | {"accuracy": own["balanced_accuracy"]}
        scores["database_accuracy"] = known["balanced_accuracy"]
    about = table[["image", "lesion_id", "label"]].iloc[queries].reset_index(drop=True)
    scores |= chance_scores(about["label"], index.items["label"]) | lesion_counts(about)
    return scores, pd.concat([about, found.drop(columns="label"), stability], axis=1)


def has_unseen(data: LesionDataset) -> bool:
    """Whether the data has images with known labels that training has not seen."""
    parts = set(data.table["split"])
    return "val" in parts or {"train", "database"} <= parts


def database_positions(data: LesionDataset, database: str) -> np.ndarray:
    """Positions in the data of the images of one of ``DATABASES``."""
    if database == "full":
        return data.positions("train")
    return matched_databases(data.table)[database]
