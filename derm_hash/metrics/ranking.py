"""Scores of a ranking: given which hits are relevant, in order, how good is it?

The array ``relevant`` has a row for each query, best hit first: 1 for a hit with the query's
label, 0 for another, -1 for no hit. ``wanted`` (Q,) is R, the number of relevant items in the
database. Each function returns one number per query; a score at k uses the first k columns.
"""

import numpy as np

RECALL_LEVELS = range(0, 101, 10)  # in percent: the usual eleven


def precision(relevant: np.ndarray) -> np.ndarray:
    """Share of relevant hits among those returned: (Q, k) -> (Q,); 0 where nothing was returned.

    ``P@k = 1/n sum_{i <= n} rel_i`` with n hits returned, at most k (Manning, Raghavan &
    Schuetze, "Introduction to Information Retrieval", 2008, sections 8.3 and 8.4).
    """
    returned = (relevant >= 0).sum(axis=1)
    return (relevant == 1).sum(axis=1) / np.maximum(returned, 1)


def recall(relevant: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Share of the relevant items that were returned: (Q, k), (Q,) -> (Q,); 0 if none exist.

    ``R@k = 1/R sum_{i <= k} rel_i`` (Manning et al., 2008, section 8.3).
    """
    return (relevant == 1).sum(axis=1) / np.maximum(wanted, 1)


def reciprocal_rank(relevant: np.ndarray) -> np.ndarray:
    """One over the rank of the first relevant hit: (Q, k) -> (Q,); 0 where there is none.

    Voorhees, "The TREC-8 question answering track report", 1999.
    """
    found = relevant == 1
    return np.where(found.any(axis=1), 1 / (found.argmax(axis=1) + 1), 0.0)


def average_precision(relevant: np.ndarray) -> np.ndarray:
    """Mean of the precisions at the ranks of the relevant hits: (Q, k) -> (Q,).

    ``AP = 1/R sum_{i: rel_i = 1} (1/i) sum_{j <= i} rel_j`` with R relevant items among
    all N (Manning et al., 2008, section 8.4); 0 where nothing is relevant.

    For the first k hits alone, this is AP at k as in papers on hashing and in torchmetrics: R
    counts the relevant hits *among the k*, so one relevant hit at rank 1 is enough for a score of
    1. It says how well the k are ordered, not how many are relevant: look at recall as well.
    """
    relevant = relevant == 1
    at_rank = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    return (at_rank * relevant).sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)


def ndcg(relevant: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Normalised discounted cumulative gain at k: (Q, k), (Q,) -> (Q,); 0 if nothing is relevant.

    ``nDCG@k = sum_{i <= k} rel_i / log2(i + 1)`` over its value for the best ranking, with
    ``min(k, R)`` relevant hits first (Jaervelin & Kekaelaeinen, "Cumulated gain-based evaluation
    of IR techniques", ACM TOIS 20(4), 2002, with the shift of the logarithm that is usual today).
    """
    best = cumulative_discount(relevant.shape[1])
    gain = (relevant == 1) @ np.diff(best)
    return gain / np.maximum(best[np.minimum(wanted, relevant.shape[1])], 1)


def cumulative_discount(k: int) -> np.ndarray:
    """``sum_{j <= i} 1 / log2(j + 1)`` for i = 0..k: (k + 1,), the gain of i relevant hits."""
    return np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])


def precision_at_recall(relevant: np.ndarray, levels=RECALL_LEVELS) -> np.ndarray:
    """The precision-recall curve, interpolated: (Q, N) -> (Q, L), for L recall levels in percent.

    ``P(level) = max over ranks i with R@i >= level of P@i`` (Manning et al., 2008, equation
    8.7); the whole database must be ranked. 0 where nothing is relevant.
    """
    hits = np.cumsum(relevant == 1, axis=1)
    at_rank = hits / np.arange(1, relevant.shape[1] + 1)
    best_from = np.maximum.accumulate(at_rank[:, ::-1], axis=1)[:, ::-1]
    curve = []
    for level in levels:  # in whole per cent, since 0.07 * 100 is more than 7
        before = (100 * hits < level * hits[:, -1:]).sum(axis=1)  # ranks that do not reach it
        curve.append(np.take_along_axis(best_from, before[:, None], axis=1))
    return np.concatenate(curve, axis=1)


def relevance(ids: np.ndarray, database_labels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Hits (Q, k) -> 1 where the label is the query's, 0 where not, -1 where there is no hit."""
    same = database_labels[ids] == labels[:, None]
    return np.where(ids >= 0, same, -1).astype(np.int8)
