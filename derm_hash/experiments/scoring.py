"""Scores of one trained run."""

import pandas as pd
import torch

from derm_hash.data.dataset import LesionDataset
from derm_hash.data.images import to_input
from derm_hash.experiments.evaluation import chance_scores, lesion_counts
from derm_hash.metrics.codes import code_quality
from derm_hash.metrics.scores import mean_scores, query_scores
from derm_hash.metrics.stability import rotation_scores
from derm_hash.model import encode
from derm_hash.retrieval import build_index
from derm_hash.runs import Run


def evaluate_run(run: Run, data: LesionDataset, progress: bool = False) -> dict[str, float]:
    """Score a run on the queries of its data.

    Parameters
    ----------
    run : Run
    data : LesionDataset with splits
    progress : bool
        Show a progress bar.

    Returns
    -------
    dict
        The scores of :func:`derm_hash.evaluate_retrieval`; means over a query's turns by 90, 180
        and 270 degrees of ``flipped_bits``, ``overlap_at_10`` and ``tied_at_10``
        (:func:`derm_hash.rotation_report`); ``chance_SCORE``, what the database in random order
        would score; and ``lesions_NAME``, the number of query lesions of each class.
    """
    return score_model(run.model, data, progress)[0]


def score_model(
    model: torch.nn.Module, data: LesionDataset, progress: bool = False, scored_on: str = "query"
) -> tuple[dict[str, float], pd.DataFrame]:
    """Score a model (DermHash, OrbitMean) as :func:`evaluate_run`, with the scores of every query.

    ``scored_on`` is the part of the data that stands for the queries. The table has a row for each:
    image, lesion_id, label (the class's name), the other columns of :func:`derm_hash.query_scores`,
    flipped_bits, overlap_at_10, tied_at_10.
    """
    queries = data.split(scored_on)
    index = build_index(model, data.split("database"), progress=progress)
    codes, labels = encode(model, queries, progress=progress), queries.labels.numpy()
    found = query_scores(index, codes, labels)
    turned = rotation_scores(model, to_input(queries.images), index=index).groupby("image").mean()
    stability = turned[["flipped_bits", "overlap_at_10", "tied_at_10"]].reset_index(drop=True)
    scores = mean_scores(found, data.classes) | code_quality(index.codes)
    scores |= {name: float(values.mean()) for name, values in stability.items()}
    about = queries.table[["image", "lesion_id", "label"]].reset_index(drop=True)
    scores |= chance_scores(about["label"], index.items["label"]) | lesion_counts(about)
    return scores, pd.concat([about, found.drop(columns="label"), stability], axis=1)
