"""Scores of one trained run."""

import pandas as pd
import torch

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import to_input
from derm_hash.metrics.codes import code_quality
from derm_hash.metrics.scores import mean_scores, query_scores
from derm_hash.metrics.stability import rotation_scores
from derm_hash.model import encode
from derm_hash.retrieval import build_index
from derm_hash.runs import Run


def evaluate_run(run: Run, data: LesionDataset, progress: bool = False) -> dict[str, float]:
    """Score a run on the queries of its data.

    Returns
    -------
    dict: the scores of :func:`derm_hash.metrics.evaluate_retrieval`, and how still codes
    and hits hold under a quarter, half or three-quarter turn (means of the three):
    ``flipped_bits``, the share of bits that differ, and ``overlap_at_10``, the share of the
    ten nearest images of the whole database that stay among them.
    """
    return score_model(run.model, data, progress)[0]


def score_model(
    model: torch.nn.Module, data: LesionDataset, progress: bool = False, scored_on: str = "query"
) -> tuple[dict[str, float], pd.DataFrame]:
    """The scores of :func:`evaluate_run`, and what they are means of.

    Parameters
    ----------
    scored_on : str
        The part of the data that stands for the queries.

    Returns
    -------
    scores : dict
    table : DataFrame with a row for each query: image, lesion_id, label (the class's name),
        every other column of :func:`derm_hash.metrics.query_scores`, flipped_bits, overlap_at_10.
    """
    queries = data.split(scored_on)
    index = build_index(model, data.split("database"), progress=progress)
    codes, labels = encode(model, queries, progress=progress), queries.labels.numpy()
    found = query_scores(index, codes, labels)
    scores = mean_scores(found, data.classes) | code_quality(index.codes)
    turned = rotation_scores(model, to_input(queries.images), index=index).groupby("image").mean()
    still = {"flipped_bits": turned["flipped_bits"], "overlap_at_10": turned["overlap_at_10"]}
    who = queries.table[["image", "lesion_id", "label"]].reset_index(drop=True)
    scores |= {name: float(values.mean()) for name, values in still.items()}
    found = found.drop(columns="label")
    return scores, pd.concat([who, found, pd.DataFrame(still).reset_index(drop=True)], axis=1)
