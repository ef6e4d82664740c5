"""How good is retrieval? The scores of every query, and their means under fixed names.

There are three families of scores, and the names tell them apart:

- ``paper_*`` follow the protocol of Zhang et al. (2022): they look at the hits within a
  Hamming radius, at most ten. The paper calls the class-balanced precision of these "mAP".
- Names without a prefix, such as ``map``, are the usual scores of a ranking of the database.
- ``tie_aware_*`` are the usual scores again, for a ranking by Hamming distance. Many hash
  codes tie, so each is the expected value over all orders of the ties.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from derm_hash.data.classes import indices_in, names_in
from derm_hash.errors import InputError
from derm_hash.metrics import ranking, ties
from derm_hash.metrics.codes import code_quality

SCORES = ("class_mean_map", "class_mean_precision_at_10", "flipped_bits", "overlap_at_10")
QUERIES_AT_ONCE = 256  # whole rankings that are held at once: bounds memory
LOOKUP_RADIUS = 2  # bits; papers on hashing usually report lookups in a hash table within 2 bits


def class_means(values: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Means within each class: values (Q,), labels (Q,) -> {class: mean}."""
    return {int(c): float(values[labels == c].mean()) for c in np.unique(labels)}


def paper_scores(
    index,
    codes: np.ndarray,
    labels: np.ndarray,
    k: int = 10,
    radius: int = 4,
    metric: str = "cosine",
) -> dict[str, np.ndarray]:
    """The two scores of the paper's protocol for every query, without a ranking of the database.

    Arguments and names are those of :func:`query_scores`.
    """
    labels = indices_in(index, labels)
    near = ranking.relevance(index.search(codes, k, radius, metric).ids, index.labels, labels)
    return {
        "paper_precision": ranking.precision(near),
        "paper_reciprocal_rank": ranking.reciprocal_rank(near),
    }


def query_scores(
    index,
    codes: np.ndarray,
    labels: np.ndarray,
    k: int = 10,
    radius: int = 4,
    metric: str = "cosine",
    class_names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Score each query's retrieval, for :func:`bootstrap_interval` and :func:`paired_test`.

    Parameters
    ----------
    index : HashIndex
    codes : (Q, bits) soft codes of the queries
    labels : (Q,) integer class indices
    k, radius, metric
        As in :meth:`HashIndex.search`, which calls the metric ``rank``.
    class_names : sequence of str, optional
        The class list of ``labels``, matched by name with the index's list, which is the default.

    Returns
    -------
    DataFrame
        One row for each query, with the columns below (the number k replaces the letter).
        All scores lie in [0, 1]; a query without a relevant image in the database has 0.

        label
            The query's class, as the index counts it.
        paper_precision, paper_reciprocal_rank
            The paper protocol (Zhang et al., 2022): among the hits within the radius, at most k.
        precision_at_k, recall_at_k, ndcg_at_k, ap_at_k
            Among the k nearest of the whole database.
        ap, reciprocal_rank
            Over the ranking of the whole database.
        precision_at_recall_0, ..._10, ... 100
            Interpolated precision once this per cent of the relevant images has been found.
        precision_within_2_bits, nothing_within_2_bits
            Share of relevant images within Hamming radius 2 (0 if there are no images), and whether
            there are none (1 or 0).
        tie_aware_precision_at_k, tie_aware_recall_at_k, tie_aware_ndcg_at_k,
        tie_aware_ap_at_k, tie_aware_ap, tie_aware_reciprocal_rank
            Expected over all orders of ties in a ranking by Hamming distance, for every ``metric``.

    Raises
    ------
    InputError
        If there are no queries, or not one label for each that is a class index of the index.
    """
    codes, labels = np.asarray(codes), indices_in(index, labels, class_names)
    if not len(codes) or len(codes) != len(labels):
        raise InputError(
            f"Retrieval scores need one label for each query, not {len(labels)} labels "
            f"for {len(codes)} queries"
        )
    scores = {"label": labels} | paper_scores(index, codes, labels, k, radius, metric)
    parts = []
    for part in np.array_split(np.arange(len(codes)), len(codes) // QUERIES_AT_ONCE + 1):
        ids = index.search(codes[part], len(index), radius=None, rank=metric).ids
        ranked = ranking.relevance(ids, index.labels, labels[part])
        histograms = ties.hamming_histograms(index.codes, index.labels, codes[part], labels[part])
        parts.append(_ranking_scores(ranked, k) | _hamming_scores(*histograms, k))
    scores |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return pd.DataFrame(scores)


def _ranking_scores(ranked: np.ndarray, k: int) -> dict[str, np.ndarray]:
    top, wanted = ranked[:, :k], (ranked == 1).sum(axis=1)
    curve = ranking.precision_at_recall(ranked)
    return {
        f"precision_at_{k}": ranking.precision(top),
        f"recall_at_{k}": ranking.recall(top, wanted),
        f"ndcg_at_{k}": ranking.ndcg(top, wanted),
        f"ap_at_{k}": ranking.average_precision(top),
        "ap": ranking.average_precision(ranked),
        "reciprocal_rank": ranking.reciprocal_rank(ranked),
        **{f"precision_at_recall_{r}": curve[:, i] for i, r in enumerate(ranking.RECALL_LEVELS)},
    }


def _hamming_scores(total: np.ndarray, relevant: np.ndarray, k: int) -> dict[str, np.ndarray]:
    found, right = (counts[:, : LOOKUP_RADIUS + 1].sum(axis=1) for counts in (total, relevant))
    return {
        f"precision_within_{LOOKUP_RADIUS}_bits": right / np.maximum(found, 1),
        f"nothing_within_{LOOKUP_RADIUS}_bits": (found == 0).astype(float),
        f"tie_aware_precision_at_{k}": ties.expected_precision(total, relevant, k),
        f"tie_aware_recall_at_{k}": ties.expected_recall(total, relevant, k),
        f"tie_aware_ndcg_at_{k}": ties.expected_ndcg(total, relevant, k),
        f"tie_aware_ap_at_{k}": ties.expected_average_precision_at(total, relevant, k),
        "tie_aware_ap": ties.expected_average_precision(total, relevant),
        "tie_aware_reciprocal_rank": ties.expected_reciprocal_rank(total, relevant),
    }


def evaluate_retrieval(
    index,
    codes: np.ndarray,
    labels: np.ndarray,
    k: int = 10,
    radius: int = 4,
    metric: str = "cosine",
    class_names: Sequence[str] | None = None,
) -> dict[str, float]:
    """Score the retrieval of all queries; parameters and errors are those of :func:`query_scores`.

    The scores of single classes have the names of the index's classes, or else those of
    ``class_names``, or else the class indices.

    Returns
    -------
    dict of float
        The number k replaces the letter in these names:

        paper_precision, paper_reciprocal_rank
            The paper protocol, mean over classes.
        precision_at_k, map, map_at_k, tie_aware_map, ...
            Other columns of :func:`query_scores`, mean over queries; "map" is the mean of an "ap".
        class_mean_precision_at_k, class_mean_map, ...
            The same, mean over the classes that have queries.
        precision_at_k_NAME, ap_NAME, paper_precision_NAME, ...
            Every column of :func:`query_scores`, mean over the queries of a class.
        queries_NAME
            Number of queries of the class.
        bit_balance, bit_correlation, distinct_codes, code_entropy, quantisation_gap
            :func:`code_quality` of the database's codes.
    """
    table = query_scores(index, codes, labels, k, radius, metric, class_names)
    names = dict(enumerate(class_names or ())) | names_in(index)
    return mean_scores(table, names) | code_quality(index.codes)


def mean_scores(
    table: pd.DataFrame, class_names: Sequence[str] | Mapping[int, str] | None = None
) -> dict[str, float]:
    """Average the table of :func:`query_scores`; names as in :func:`evaluate_retrieval`."""
    labels = table["label"].to_numpy()
    known = class_names if isinstance(class_names, Mapping) else dict(enumerate(class_names or ()))
    names = {int(c): known.get(int(c), str(int(c))) for c in np.unique(labels)}
    scores, by_class = {}, {}
    for column, values in table.drop(columns="label").items():
        per_class = class_means(values.to_numpy(), labels)
        class_mean = float(np.mean(list(per_class.values())))
        if column.startswith("paper_"):
            scores[column] = class_mean
        else:
            name = "_".join("map" if word == "ap" else word for word in column.split("_"))
            scores |= {name: float(values.mean()), f"class_mean_{name}": class_mean}
        by_class |= {f"{column}_{names[label]}": value for label, value in per_class.items()}
    queries = {f"queries_{names[c]}": float((labels == c).sum()) for c in names}
    return scores | by_class | queries
