"""Expected scores of a ranking with ties: any relevance, graded gains, images left out.

Codes of zeros and ones are ranked by Hamming distance, all others by cosine distance. Images at
equal distance tie, and each score is the expected value over all orders of the ties.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy import ndarray
from scipy.stats import rankdata

from derm_hash.metrics.ranking import cumulative_discount
from derm_hash.metrics.ties import expected_average_precision, expected_precision

K = 10
DIGITS = 12  # of a cosine that count: what differs less is rounding, and ties
PAIRS_AT_ONCE = 1_000_000  # pairs of query and database image per block, which bounds the memory


def rankings(
    queries: ndarray, database: ndarray, left_out: ndarray | None = None
) -> Iterator[tuple[slice, Callable[[ndarray], ndarray]]]:
    """Rank the database for blocks of queries.

    Parameters
    ----------
    queries, database : (Q, bits) and (N, bits) codes
    left_out : (Q, N) bool array, optional
        Images that a query is not searched against.

    Yields
    ------
    the block's slice of the queries, and a function that sums values (q, N) of its pairs over
    images at equal distance -> (q, D), nearest first. The sums of ones are the histograms of
    :mod:`derm_hash.metrics.ties`.
    """
    binary = all(np.isin(codes, (0, 1)).all() for codes in (queries, database))
    directions = [signs(codes) if binary else unit_vectors(codes) for codes in (queries, database)]
    step = max(1, PAIRS_AT_ONCE // len(database))
    for first in range(0, len(queries), step):
        block = slice(first, first + step)
        # Hamming distance falls with the product of signs, cosine distance with that of directions.
        likeness = (directions[0][block] @ directions[1].T).round(DIGITS)
        group = rankdata(-likeness, method="dense", axis=1).astype(np.int64) - 1
        size = group.max() + 1
        group += size * np.arange(len(group))[:, None]
        kept = 1 if left_out is None else ~left_out[block]

        def sums(values: ndarray, group=group, size=size, kept=kept) -> ndarray:
            values = np.broadcast_to(values * kept, group.shape)
            return np.bincount(group.ravel(), values.ravel(), len(group) * size).reshape(-1, size)

        yield block, sums


def signs(codes: ndarray) -> ndarray:
    """Codes of 0 and 1 -> -1 and 1; a . b of b bits is b minus twice their Hamming distance."""
    return 2.0 * np.asarray(codes, dtype=np.float64) - 1


def unit_vectors(codes: ndarray) -> ndarray:
    """Soft codes (n, bits) divided by their lengths, in 64 bits."""
    codes = np.asarray(codes, dtype=np.float64)
    return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def label_scores(
    queries: ndarray, database: ndarray, relevant: ndarray, left_out: ndarray | None = None
) -> pd.DataFrame:
    """Average precision ``ap`` and ``precision_at_10`` of every query.

    Parameters are those of :func:`rankings`, and ``relevant``, a (Q, N) bool array.
    """
    found = []
    for block, sums in rankings(queries, database, left_out):
        total, right = (sums(x).astype(np.int64) for x in (np.ones(1), relevant[block]))
        scores = {"ap": expected_average_precision(total, right)}
        scores["precision_at_10"] = expected_precision(total, right, K)
        found.append(pd.DataFrame(scores))
    return pd.concat(found, ignore_index=True)


def criteria_scores(
    queries: ndarray, database: ndarray, shown: ndarray, left_out: ndarray
) -> pd.DataFrame:
    """Score whether the hits of an image show its criteria, among all images but those left out.

    Parameters
    ----------
    queries, database : (n, bits) codes of the same images, as queries and as a database
    shown : (n, criteria) of 0 and 1
    left_out : (n, n) bool

    Returns
    -------
    DataFrame with a row for each image that shows a criterion, and the columns

    ndcg_at_10
        ``DCG@10 = sum_{i <= 10} g_i / log2(i + 1)`` over that of the best order, where the gain g
        of a hit is the number of criteria that it shares with the query (Jaervelin & Kekaelaeinen,
        2002). DCG is linear in the gains, so that tied hits count with their mean gain. NaN if no
        other image shares a criterion.
    0, 1, ...
        Average precision of this criterion: the images that show it are relevant. NaN if the query
        does not show it.
    """
    rows = np.flatnonzero(shown.any(axis=1))
    best, found = cumulative_discount(K), []
    for block, sums in rankings(queries[rows], database, left_out[rows]):
        own = shown[rows[block]]
        gains = own @ shown.T * ~left_out[rows[block]]
        total = sums(np.ones(1)).astype(np.int64)
        end = np.cumsum(total, axis=1)
        discount = best[np.minimum(end, K)] - best[np.minimum(end - total, K)]
        gain = (sums(gains) / np.maximum(total, 1) * discount).sum(axis=1)
        ideal = -np.sort(-gains, axis=1)[:, :K]
        ideal = ideal @ np.diff(best)[: ideal.shape[1]]
        scores = {"ndcg_at_10": np.divide(gain, ideal, np.full(len(gain), np.nan), where=ideal > 0)}
        for i in range(shown.shape[1]):
            right = sums(shown[:, i]).astype(np.int64)
            ap = expected_average_precision(total, right)
            scores[i] = np.where(own[:, i] > 0, ap, np.nan)
        found.append(pd.DataFrame(scores))
    return pd.concat(found, ignore_index=True)
